// What a decode step of a whole engine spends outside of the decoder: scheduling, sampling, handing over. Sequences of
// random tokens decode together in an engine over a decoder with random weights; a row of medians for each way of
// choosing tokens. Then the choices alone, on random rows.
//   bench_engine [--family llama] [--size llama-3.2-1b] [--streams 1 16 64] [--tokens 48] [--prompt 128]
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <nlohmann/json.hpp>

#include "base/cpu.h"
#include "base/random.h"
#include "engine/engine.h"
#include "engine/local/decoder_runner.h"
#include "kernels/parallel.h"
#include "models/families/read_spec.h"
#include "ops/sampling.h"
#include "weights/model_folder.h"
#include "weights/random_weights.h"

namespace millrace {
namespace {

using Clock = std::chrono::steady_clock;

double microseconds(Clock::duration d) { return std::chrono::duration<double, std::micro>(d).count(); }

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::nth_element(values.begin(), values.begin() + static_cast<int64_t>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

// A decoder that notes when it was entered and left.
class Timed : public ModelRunner {
 public:
  struct Step {
    int64_t tokens;
    Clock::time_point begin;
    Clock::duration inside;  // forward and logits
  };
  explicit Timed(std::unique_ptr<ModelRunner> model) : model_(std::move(model)) { steps.reserve(1 << 16); }
  const Info& info() const override { return model_->info(); }
  Status forward(const Batch& batch) override {
    const Clock::time_point begin = Clock::now();
    const Status status = model_->forward(batch);
    steps.push_back({batch.num_tokens(), begin, Clock::now() - begin});
    return status;
  }
  Status logits(int64_t begin, int64_t end, float* out) override {
    const Clock::time_point start = Clock::now();
    const Status status = model_->logits(begin, end, out);
    steps.back().inside += Clock::now() - start;
    return status;
  }
  std::vector<Step> steps;

 private:
  std::unique_ptr<ModelRunner> model_;
};

struct Sampling {
  const char* name;
  double temperature = 0;
  int64_t top_k = 0;
  double top_p = 1, repetition = 1;
};
constexpr Sampling kSamplings[] = {{"greedy"},
                                   {"temperature", 0.8},
                                   {"top-k 50", 0.8, 50},
                                   {"top-p 0.9", 0.8, 0, 0.9},
                                   {"top-k, top-p", 0.8, 50, 0.9},
                                   {"and penalty", 0.8, 50, 0.9, 1.1}};

SamplingParams params_of(const Sampling& sampling, int64_t tokens) {
  SamplingParams params;
  params.temperature = sampling.temperature;
  params.top_k = sampling.top_k;
  params.top_p = sampling.top_p;
  params.repetition_penalty = sampling.repetition;
  params.max_tokens = tokens;
  params.ignore_eos = true;
  params.detokenize = false;
  return params;
}

class Bench {
 public:
  Bench(const DecoderSpec& spec, int64_t most_streams, int64_t prompt, int64_t tokens)
      : prompt_(prompt), tokens_(tokens) {
    const int64_t length = (prompt + tokens + 31) / 16 * 16;
    auto decoder = Decoder::create(spec, DecoderTensors(dummy_weights(spec, DType::kBf16)),
                                   {.dtype = DType::kBf16, .max_context = length});
    MR_CHECK(decoder.ok(), "{}", decoder.status().message());
    const KvCache::Config cache = Decoder::cache_config(spec, DType::kBf16, most_streams * length / 16, 16);
    auto model = std::make_unique<DecoderRunner>(std::move(*decoder), KvCache(cache), length, int64_t{2048});
    auto runner = std::make_unique<Timed>(std::move(model));
    timed_ = runner.get();
    auto engine = Engine::create({.max_num_seqs = static_cast<int32_t>(most_streams),
                                  .max_num_batched_tokens = 2048,
                                  .enable_prefix_caching = false,
                                  .skip_tokenizer_init = true},
                                 std::move(runner), {});
    MR_CHECK(engine.ok(), "{}", engine.status().message());
    engine_ = std::move(*engine);
  }

  void run(int64_t streams, const Sampling& sampling, bool print) {
    timed_->steps.clear();
    decode(streams, params_of(sampling, tokens_));
    std::vector<double> whole, outside;
    const std::vector<Timed::Step>& steps = timed_->steps;
    for (size_t i = 0; i + 1 < steps.size(); ++i) {
      if (steps[i].tokens != streams || steps[i + 1].tokens != streams) continue;
      whole.push_back(microseconds(steps[i + 1].begin - steps[i].begin));
      outside.push_back(whole.back() - microseconds(steps[i].inside));
    }
    if (!print) return;
    fmt::print("  {:3} streams  {:13} {:9.2f} ms a step, outside the decoder {:8.1f} us  {:6.3f} %\n", streams,
               sampling.name, median(whole) / 1000, median(outside), 100 * median(outside) / median(whole));
  }

 private:
  void decode(int64_t streams, const SamplingParams& params) {
    std::mutex mutex;
    std::condition_variable changed;
    int64_t unfinished = streams;
    for (int64_t s = 0; s < streams; ++s) {
      GenerationRequest request;
      request.id = fmt::format("{}", s);
      Random random(static_cast<uint64_t>(s));
      for (int64_t i = 0; i < prompt_; ++i)
        request.prompt_token_ids.push_back(
            static_cast<int32_t>(random.below(static_cast<uint32_t>(timed_->info().vocab_size))));
      request.params = params;
      const auto submitted = engine_->submit(std::move(request), [&](RequestOutput&& output) {
        if (!output.finished) return;
        const std::lock_guard lock(mutex);
        if (--unfinished == 0) changed.notify_one();
      });
      MR_CHECK(submitted.ok(), "{}", submitted.status().message());
    }
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return unfinished == 0; });
  }
  const int64_t prompt_, tokens_;
  Timed* timed_ = nullptr;
  std::unique_ptr<Engine> engine_;
};

// One row on one thread, logits normal with standard deviation 2.
void bench_choices(int64_t vocab) {
  constexpr int kRows = 200;
  Random random(3);
  std::vector<float> fresh(static_cast<size_t>(vocab)), row(fresh.size());
  for (float& x : fresh) {
    x = 0;
    for (int i = 0; i < 12; ++i) x += uniform_open(random());
    x = 2 * (x - 6);
  }
  SampleScratch scratch;
  fmt::print("a row of {} logits, one thread:\n", vocab);
  for (const Sampling& sampling : kSamplings) {
    if (sampling.repetition != 1) continue;
    std::vector<double> times;
    for (int i = 0; i < kRows; ++i) {
      row = fresh;
      const Clock::time_point begin = Clock::now();
      if (sampling.temperature == 0)
        greedy_token(row);
      else
        draw_token(row,
                   {.temperature = static_cast<float>(sampling.temperature),
                    .top_k = sampling.top_k,
                    .top_p = static_cast<float>(sampling.top_p)},
                   1, static_cast<uint64_t>(i), scratch);
      times.push_back(microseconds(Clock::now() - begin));
    }
    fmt::print("  {:13} {:8.1f} us\n", sampling.name, median(times));
  }
}

int run(int argc, char** argv) {
  CLI::App app("Time of a decode step outside of the decoder.");
  InitOptions model{.family = "llama", .size = "llama-3.2-1b"};
  std::vector<int64_t> streams = {1, 16, 64};
  int64_t tokens = 48, prompt = 128;
  app.add_option("--family", model.family);
  app.add_option("--size", model.size);
  app.add_option("--streams", streams);
  app.add_option("--tokens", tokens, "decoded by each stream");
  app.add_option("--prompt", prompt, "tokens of a stream's prompt");
  CLI11_PARSE(app, argc, argv);
  const Result<Json> config = new_config(model);
  MR_CHECK(config.ok(), "{}", config.status().message());
  const DecoderSpec spec = read_spec(*config)->spec;
  fmt::print("{}, {} threads, isa {}\n", machine_info().model_name, compute_threads(), isa_name(best_isa()));
  bench_choices(spec.vocab_size);
  Bench bench(spec, *std::max_element(streams.begin(), streams.end()), prompt, tokens);
  fmt::print("{} {}, bfloat16, random weights:\n", model.family, model.size);
  for (const int64_t n : streams) {
    bench.run(n, kSamplings[0], /*print=*/false);
    for (const Sampling& sampling : kSamplings) bench.run(n, sampling, /*print=*/true);
  }
  return 0;
}

}  // namespace
}  // namespace millrace

int main(int argc, char** argv) { return millrace::run(argc, argv); }
