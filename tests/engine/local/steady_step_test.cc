// A steady decode step of a whole engine allocates nothing and touches no new page, on the engine's thread and on those
// of the compute pool.
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <atomic>
#include <cstdlib>
#include <mutex>
#include <new>

#include "engine/local/decoder_runner.h"
#include "kernels/parallel.h"
#include "tests/engine/engine_fixture.h"
#include "weights/model_folder.h"

namespace {

thread_local int64_t allocations = 0;

void* counted(std::size_t bytes, std::size_t alignment) {
  ++allocations;
  const std::size_t size = (std::max<std::size_t>(bytes, 1) + alignment - 1) / alignment * alignment;
  void* const memory = std::aligned_alloc(alignment, size);
  if (!memory) throw std::bad_alloc();
  return memory;
}

}  // namespace

void* operator new(std::size_t bytes) { return counted(bytes, alignof(std::max_align_t)); }
void* operator new(std::size_t bytes, std::align_val_t alignment) {
  return counted(bytes, static_cast<std::size_t>(alignment));
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }

namespace millrace {
namespace {

// Of one thread, or of several.
struct Counts {
  int64_t allocations = 0, faults = 0;
  Counts operator-(const Counts& other) const { return {allocations - other.allocations, faults - other.faults}; }
};

Counts of_this_thread() {
  rusage usage{};
  ::getrusage(RUSAGE_THREAD, &usage);
  return {allocations, usage.ru_minflt};
}

// Of the calling thread and the pool's.
Counts of_the_team() {
  std::atomic<int64_t> allocations = 0, faults = 0;
  parallel_team([&](const TeamMember&) {
    const Counts mine = of_this_thread();
    allocations += mine.allocations, faults += mine.faults;
  });
  return {allocations, faults};
}

// A decoder that notes at the start of each forward what the step before cost.
class Watched : public ModelRunner {
 public:
  explicit Watched(std::unique_ptr<ModelRunner> model) : model_(std::move(model)) { steps.reserve(4096); }
  const Info& info() const override { return model_->info(); }
  Status forward(const Batch& batch) override {
    std::lock_guard lock(gate);
    const Counts now = of_the_team();
    steps.push_back({static_cast<int64_t>(batch.context_len.size()), batch.num_tokens(), now - before_});
    before_ = now;
    return model_->forward(batch);
  }
  Status logits(int64_t begin, int64_t end, float* out) override { return model_->logits(begin, end, out); }

  struct Step {
    int64_t sequences, tokens;
    Counts cost;  // of the step before
  };
  std::vector<Step> steps;
  std::mutex gate;  // held while a step runs; whoever else holds it keeps steps from starting

 private:
  std::unique_ptr<ModelRunner> model_;
  Counts before_;
};

constexpr int64_t kSequences = 8, kPrompt = 20, kNew = 100, kLength = 256;
constexpr int64_t kBlocks = kSequences * ((kPrompt + kNew + 15) / 16);  // each is written in every run

struct Served {
  Served() {
    ModelFolder model = *open_model_folder(std::string(MILLRACE_SOURCE_DIR) + "/tests/golden/mistral");
    DecoderWeights weights = *load_weights(model);
    auto decoder = Decoder::create(model.spec, DecoderTensors(std::move(weights)), {.max_context = kLength});
    const KvCache::Config cache = Decoder::cache_config(model.spec, DType::kF32, kBlocks, 16);
    auto runner = std::make_unique<Watched>(
        std::make_unique<DecoderRunner>(std::move(*decoder), KvCache(cache), kLength, kSequences * kPrompt));
    watched = runner.get();
    auto made = Engine::create({.block_size = 16,
                                .max_num_seqs = kSequences,
                                .max_num_batched_tokens = kSequences * kPrompt,
                                .enable_prefix_caching = false,
                                .skip_tokenizer_init = true},
                               std::move(runner), {});
    engine = std::move(*made);
  }
  void run(const SamplingParams& params) {
    std::vector<std::shared_ptr<Collector>> answers;
    // All sequences run together, and so write every block of the cache.
    std::unique_lock lock(watched->gate);
    for (int64_t s = 0; s < kSequences; ++s) {
      GenerationRequest request;
      request.id = fmt::format("{}", s);
      for (int32_t i = 0; i < kPrompt; ++i) request.prompt_token_ids.push_back(static_cast<int32_t>(7 * s + i) % 100);
      request.params = params;
      answers.push_back(std::make_shared<Collector>());
      EXPECT_TRUE(engine->submit(std::move(request), answers.back()->sink()).ok());
    }
    lock.unlock();
    for (const auto& answer : answers) answer->wait();
  }
  std::unique_ptr<Engine> engine;
  Watched* watched = nullptr;
};

SamplingParams params_of(double temperature) {
  SamplingParams params;
  params.temperature = temperature;
  params.top_p = 0.9;
  params.top_k = 40;
  params.max_tokens = kNew;
  params.ignore_eos = true;
  params.detokenize = false;
  return params;
}

// What the second of two equal runs cost in its steady steps.
Counts cost_of_steady_steps(double temperature) {
  Served served;
  served.run(params_of(temperature));  // every block of the cache, every vector has its size
  served.watched->steps.clear();
  served.run(params_of(temperature));
  int64_t steady = 0;
  Counts cost;
  const std::vector<Watched::Step>& steps = served.watched->steps;
  for (size_t i = 1; i < steps.size(); ++i) {
    if (steps[i].sequences != kSequences || steps[i - 1].tokens != kSequences || steps[i].tokens != kSequences)
      continue;
    ++steady;
    cost.allocations += steps[i].cost.allocations, cost.faults += steps[i].cost.faults;
  }
  EXPECT_GE(steady, kNew / 2);
  return cost;
}

TEST(SteadyStep, AllocatesNothingAndTouchesNoNewPage) {
  for (const double temperature : {0.0, 0.8}) {
    SCOPED_TRACE(temperature);
    const Counts cost = cost_of_steady_steps(temperature);
    EXPECT_EQ(cost.allocations, 0);
    EXPECT_EQ(cost.faults, 0);
  }
}

}  // namespace
}  // namespace millrace
