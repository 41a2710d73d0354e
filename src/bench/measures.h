// From records to figures, by the definitions of docs/bench.md: TTFT, TPOT, ITL and chunk gaps, E2EL, each also from
// the schedule; throughput over the run and over its steady window; goodput. Pure functions, any thread.
#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "bench/record.h"
#include "report/statistics.h"

namespace millrace::bench {

enum class Metric { kTtft, kTpot, kItl, kChunkGap, kE2el, kTtftSched, kE2elSched, kCount };
inline constexpr const char* kMetricNames[] = {"ttft", "tpot", "itl", "chunk_gap", "e2el", "ttft_sched", "e2el_sched"};
inline constexpr const char* kMetricTitles[] = {"Time to First Token",
                                                "Time per Output Token (excl. 1st token)",
                                                "Inter-token Latency",
                                                "Gap between Chunks",
                                                "End-to-end Latency",
                                                "Time to First Token from Schedule",
                                                "End-to-end Latency from Schedule"};
// kInvalidArgument names the known ones.
Result<Metric> find_metric(std::string_view name);

// Of one completed request, in ms; nothing where it is not defined (no token, one token only).
std::optional<double> ttft_ms(const RequestRecord& record);
std::optional<double> tpot_ms(const RequestRecord& record);  // (t_n - t_1) / (n_out - 1)
std::optional<double> e2el_ms(const RequestRecord& record);

// A limit on a metric of every request: ttft, tpot or e2el, in ms.
struct Limit {
  Metric metric = Metric::kTtft;
  double ms = 0;
};
// "ttft:2000"
Result<Limit> parse_limit(std::string_view text);
// Completed and within all limits. TPOT counts as 0 where it is not defined; any other undefined value is a miss.
bool meets(const RequestRecord& record, const std::vector<Limit>& limits);

struct Measures {
  // All in ms, of completed requests. ITL has one value for each token after the first event's: an event that brings k
  // tokens after a gap gives k values gap/k, and so do events that share a read; the raw gaps are kChunkGap.
  report::Sample samples[static_cast<size_t>(Metric::kCount)];
  report::Sample late_ms;  // t_send - t_sched
  bool itl_estimated = false;

  int64_t issued = 0, completed = 0, failed = 0, interrupted = 0;
  int64_t failures[std::size(kOutcomeNames)] = {};  // by Outcome
  int64_t short_outputs = 0;                        // completed with fewer tokens than asked for
  int64_t uncounted = 0;                            // completed, but nobody states how many tokens
  int64_t input_tokens = 0, output_tokens = 0;      // of completed requests
  int64_t cached_tokens = kUnknown;
  int64_t cached_base_tokens = 0;  // prompt tokens of the requests that state their cached ones
  int64_t events = 0, coalesced_events = 0;

  double duration_s = 0;  // D = max(t_done) - min(t_send) of completed requests
  double request_throughput = 0, output_throughput = 0, total_throughput = 0;
  double peak_output_throughput = 0;  // best whole second
  int64_t peak_concurrency = 0;
  // From the moment so many requests were under way to the moment the generator ran out; absent if there is none.
  struct Steady {
    double begin_s = 0, end_s = 0;
    int64_t concurrency = 0;
    double output_throughput = 0, request_throughput = 0;
  };
  std::optional<Steady> steady;

  std::vector<Limit> limits;  // what goodput is about; empty: none was asked for
  int64_t good = 0;
  double goodput = 0;     // good / D
  double attainment = 0;  // good / issued (interrupted ones left out)

  const report::Sample& sample(Metric metric) const { return samples[static_cast<size_t>(metric)]; }
};
Measures measure(const RunRecord& run, const std::vector<Limit>& limits = {});

// How many requests were under way at a time: (moment, number from then on), rising.
std::vector<std::pair<double, int64_t>> concurrency_steps(const RunRecord& run);

// Acceptance with speculation. From the server's counters where they exist, else estimated from the events:
// rate = (n_out - steps) / ((steps - 1) m), the usual acceptance rate, with steps = token events. The share of draft
// tokens that count, the target's own among them, is (n_out - 1) / ((steps - 1) (m + 1)).
struct Acceptance {
  bool estimated = false;
  double rate = 0;    // accepted / drafted, 0 to 1
  double length = 1;  // tokens per step: 1 + accepted / drafts
  std::vector<double> per_position;
  report::Sample per_request;           // estimated rates; empty where m is not known
  report::Sample per_request_with_own;  // the same with the target's own token counted as accepted
};
std::optional<Acceptance> acceptance(const RunRecord& run, int64_t num_speculative_tokens);

}  // namespace millrace::bench
