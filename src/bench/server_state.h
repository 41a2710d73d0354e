// What a server says about itself beside its answers: its Prometheus page, and the few calls that bring it into a known
// state between two points of a load. Blocking, any thread. The page is not trusted: what cannot be read is not there.
#pragma once
#include <atomic>
#include <optional>
#include <string_view>

#include "bench/load.h"

namespace millrace::bench {

// A value of a Prometheus text page: the sum over its label sets; nothing where it does not appear.
std::optional<double> metric_value(std::string_view page, std::string_view name);
// The values of a metric by its label `position`, summed over the other labels; index = position.
std::vector<double> metric_by_position(std::string_view page, std::string_view name);

// The counters of speculation on a page, of vLLM's present generation (num_drafts, ... _per_pos) or of 0.6
// (num_emitted_tokens): there a draft emits its accepted tokens and one more.
SpeculationCounters speculation_counters(std::string_view page);
// In tokens; not known where the page does not have them.
PrefixCacheCounters prefix_cache_counters(std::string_view page);

// Requests running and waiting, as vLLM, SGLang, TGI or llama.cpp name them; nothing where the page names none.
std::optional<double> requests_under_way(std::string_view page);

// GET /metrics; "" when there is no such page.
std::string metrics_page(const LoadTarget& target);
// Blocks until /metrics shows no running and no waiting request, or `patience` has passed. False: not idle in time, or
// no such page; then the caller may wait some other way.
bool wait_until_idle(const LoadTarget& target, std::chrono::milliseconds patience, const std::atomic<bool>& stop);

// POST /reset_prefix_cache. The error is one line.
Status reset_prefix_cache(const LoadTarget& target);

}  // namespace millrace::bench
