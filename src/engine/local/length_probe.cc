#include "engine/local/length_probe.h"

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/cpu.h"
#include "base/progress.h"
#include "base/random.h"
#include "base/text.h"
#include "engine/local/local_engine.h"
#include "models/families/planner.h"

namespace millrace {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kFirstLength = 4096;
constexpr std::chrono::milliseconds kGlance{200};  // between looks at how far the prompts are

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

GenerationRequest request_of(const StaticLoad& load, int64_t index, int64_t vocab_size) {
  GenerationRequest request;
  request.id = fmt::format("static-{}", index);
  Random random(static_cast<uint64_t>(index));
  for (int64_t i = 0; i < load.prompt_tokens; ++i)
    request.prompt_token_ids.push_back(static_cast<int32_t>(random.below(static_cast<uint32_t>(vocab_size))));
  request.params.max_tokens = load.output_tokens;
  request.params.temperature = 0;
  request.params.ignore_eos = true;
  request.params.detokenize = false;
  return request;
}

// What the output thread tells about the load.
struct Arrivals {
  explicit Arrivals(int64_t sequences) : without_first(sequences), unfinished(sequences) {}
  void take(const RequestOutput& output, bool& has_first) {
    const std::lock_guard lock(mutex);
    const bool brings = std::ranges::any_of(output.sequences, [](const auto& s) { return !s.token_ids.empty(); });
    if (brings && !std::exchange(has_first, true) && --without_first == 0) all_started = Clock::now();
    if (!output.error.ok()) error = output.error;
    if (output.finished && --unfinished == 0) changed.notify_one();
  }
  std::mutex mutex;
  std::condition_variable changed;
  int64_t without_first, unfinished;
  Clock::time_point all_started;
  Status error;
};

// Tokens of prompts that have a place in the cache: a step takes the blocks of what it computes.
int64_t tokens_in_cache(const EngineClient& engine) {
  const EngineStats stats = engine.stats();
  return stats.blocks_total > 0
             ? (stats.blocks_total - stats.blocks_free) * (engine.limits().kv_tokens / stats.blocks_total)
             : 0;
}

void wait_until_done(EngineClient& engine, Arrivals& arrivals, const StaticLoad& load) {
  const int64_t total = load.sequences * load.prompt_tokens;
  Progress progress("Computing prompts", total, "tokens");
  std::unique_lock lock(arrivals.mutex);
  for (int64_t shown = 0; !arrivals.changed.wait_for(lock, kGlance, [&] { return arrivals.unfinished == 0; });) {
    const int64_t done = std::min(total, tokens_in_cache(engine));
    if (shown < total) progress.advance(std::max<int64_t>(0, done - shown));
    shown = std::max(shown, done);
  }
}

Json to_json(const LengthServed& served) {
  return {{"max_model_len", served.max_model_len},         {"kv_cache_bytes", served.kv_cache_bytes},
          {"resident_bytes", served.resident_bytes},       {"start_seconds", served.start_seconds},
          {"prompt_seconds", served.times.prompt_seconds}, {"output_seconds", served.times.output_seconds}};
}

LengthServed from_json(const Json& json) {
  return {.max_model_len = json["max_model_len"],
          .kv_cache_bytes = json["kv_cache_bytes"],
          .resident_bytes = json["resident_bytes"],
          .start_seconds = json["start_seconds"],
          .times = {.prompt_seconds = json["prompt_seconds"], .output_seconds = json["output_seconds"]}};
}

Status check_free_memory(int64_t weight_bytes, int64_t cache_bytes) {
  const int64_t free = machine_info().memory_available_bytes, needed = weight_bytes + cache_bytes + kRuntimeBytes;
  if (needed <= free) return {};
  return resource_exhausted("weights of {}, a KV cache of {} and buffers of {} need {}; {} of memory are free",
                            format_bytes(weight_bytes), format_bytes(cache_bytes), format_bytes(kRuntimeBytes),
                            format_bytes(needed), format_bytes(free));
}

}  // namespace

Result<LoadTimes> run_static_load(EngineClient& engine, const StaticLoad& load) {
  const auto arrivals = std::make_shared<Arrivals>(load.sequences);
  const Clock::time_point start = Clock::now();
  for (int64_t i = 0; i < load.sequences; ++i) {
    const auto sink = [arrivals, has_first = false](RequestOutput&& output) mutable {
      arrivals->take(output, has_first);
    };
    MR_RETURN_IF_ERROR(engine.submit(request_of(load, i, engine.limits().vocab_size), sink).status());
  }
  wait_until_done(engine, *arrivals, load);
  MR_RETURN_IF_ERROR(arrivals->error);
  const std::chrono::duration<double> prompt = arrivals->all_started - start;
  return LoadTimes{.prompt_seconds = prompt.count(), .output_seconds = seconds_since(arrivals->all_started)};
}

Result<LengthServed> serve_length(EngineArgs args, int64_t length, const LengthOptions& options) {
  if (options.output_tokens >= length)
    return invalid_argument("{} output tokens leave no room for a prompt in {} tokens", options.output_tokens, length);
  const Clock::time_point start = Clock::now();
  MR_ASSIGN_OR_RETURN(const EngineNeeds needs, engine_needs(args));
  const int64_t blocks = (length + args.block_size - 1) / args.block_size * options.sequences;
  args.max_model_len = length;
  args.max_num_seqs = options.sequences;
  args.kv_cache_memory_bytes = blocks * needs.block_bytes;
  args.num_gpu_blocks_override = 0;
  args.enable_prefix_caching = false;
  args.skip_tokenizer_init = true;
  MR_RETURN_IF_ERROR(check_free_memory(needs.weight_bytes, args.kv_cache_memory_bytes));
  MR_ASSIGN_OR_RETURN(const LocalEngine local, start_local_engine(args));
  LengthServed served{.max_model_len = length, .kv_cache_bytes = args.kv_cache_memory_bytes};
  served.start_seconds = seconds_since(start);
  MR_ASSIGN_OR_RETURN(served.times, run_static_load(*local.engine, {.sequences = options.sequences,
                                                                    .prompt_tokens = length - options.output_tokens,
                                                                    .output_tokens = options.output_tokens}));
  served.resident_bytes = resident_bytes();
  return served;
}

Result<LengthServed> serve_length_apart(const EngineArgs& args, int64_t length, const LengthOptions& options,
                                        const ApartOptions& apart) {
  const auto work = [&]() -> Result<std::string> {
    MR_ASSIGN_OR_RETURN(const LengthServed served, serve_length(args, length, options));
    return dump_json(to_json(served));
  };
  MR_ASSIGN_OR_RETURN(const std::string answer, run_apart(work, apart));
  MR_ASSIGN_OR_RETURN(const Json json, parse_json(answer));
  return from_json(json);
}

std::vector<int64_t> lengths_to_try(int64_t last) {
  std::vector<int64_t> lengths;
  for (int64_t length = kFirstLength; length < last; length *= 2) lengths.push_back(length);
  lengths.push_back(last);
  return lengths;
}

LongestLength find_longest_length(const std::vector<int64_t>& lengths, const LengthProbe& probe) {
  LongestLength longest;
  for (const int64_t length : lengths) {
    Result<LengthServed> served = probe(length);
    if (!served.ok()) {
      longest.failed_length = length;
      longest.reason = served.status();
      return longest;
    }
    longest.served.push_back(*served);
  }
  return longest;
}

}  // namespace millrace
