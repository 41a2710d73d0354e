#include "cli/engine_flags.h"

#include <cstdlib>
#include <map>

#include "base/text.h"

namespace millrace::cli {
namespace {

constexpr const char* kModel = "Model and loading";
constexpr const char* kMemory = "Memory";
constexpr const char* kSchedule = "Scheduling";

// A flag of vLLM of which only some values are built.
void add_only(CLI::App& app, const std::string& name, const std::vector<std::string>& supported, const char* group,
              const std::string& help) {
  app.add_option_function<std::string>(
         name,
         [name, supported](const std::string& value) {
           for (const std::string& known : supported)
             if (value == known) return;
           throw CLI::ValidationError(
               fmt::format("{} is '{}'; this build supports only {}", name, value, fmt::join(supported, ", ")));
         },
         help)
      ->group(group);
}

void add_model_flags(CLI::App& app, EngineArgs& args) {
  app.add_option("--tokenizer", args.tokenizer, "tokenizer folder or file, where it is not the model's")->group(kModel);
  add_switch(app, "skip-tokenizer-init", args.skip_tokenizer_init, "token ids in and out only");
  add_only(app, "--tokenizer-mode", {"auto"}, kModel, "auto");
  app.add_option("--load-format", args.load_format, "dummy: random weights, for benchmarks without a checkpoint")
      ->check(CLI::IsMember({"auto", "safetensors", "pt", "dummy"}))
      ->group(kModel);
  app.add_option("--dtype", args.dtype, "auto: what the checkpoint is stored in")
      ->check(CLI::IsMember({"auto", "half", "float16", "bfloat16", "float", "float32"}))
      ->group(kModel);
  app.add_option(
         "-q,--quantization", args.quantization,
         "w8a8 or w8a16: quantise dense weights while loading; awq, gptq, smoothquant, compressed-tensors: what "
         "the checkpoint must be (found by itself)")
      ->check(CLI::IsMember({"awq", "gptq", "smoothquant", "compressed-tensors", "w8a8", "w8a16"}))
      ->group(kModel);
  app.add_option("--packed-weights-cache", args.packed_weights_cache,
                 "folder that keeps the weights as they are packed for this machine, from start to start; empty: none")
      ->group(kModel);
  app.add_option("--max-model-len", args.max_model_len, "longest prompt + output in tokens")
      ->check(CLI::PositiveNumber)
      ->group(kModel);
  app.add_option("--rope-scaling", args.rope_scaling, R"(JSON, e.g. {"rope_type":"dynamic","factor":2.0})")
      ->group(kModel);
  app.add_option("--rope-theta", args.rope_theta, "base of the rotary embedding")
      ->check(CLI::PositiveNumber)
      ->group(kModel);
  app.add_option("--seed", args.seed, "seed of requests without one, and of dummy weights")->group(kModel);
  add_switch(app, "disable-sliding-window", args.disable_sliding_window, "cap the length at the window instead");
}

void add_memory_flags(CLI::App& app, EngineArgs& args) {
  app.add_option("--gpu-memory-utilization", args.gpu_memory_utilization,
                 "share of this machine's memory to use at most")
      ->check(CLI::Range(0.01, 1.0))
      ->group(kMemory);
  app.add_option("--kv-cache-memory-bytes", args.kv_cache_memory_bytes,
                 "size of the KV cache; 0: VLLM_CPU_KVCACHE_SPACE GiB, else up to 4 GiB")
      ->check(CLI::NonNegativeNumber)
      ->group(kMemory);
  app.add_option("--num-gpu-blocks-override", args.num_gpu_blocks_override,
                 "exact number of KV blocks; 0: from the memory")
      ->check(CLI::NonNegativeNumber)
      ->group(kMemory);
  app.add_option("--block-size", args.block_size, "tokens of a KV block")
      ->check(CLI::IsMember({16, 32, 64, 128}))
      ->group(kMemory);
  app.add_option(
         "--kv-cache-dtype", args.kv_cache_dtype,
         "auto: the model's dtype; int8, or int8-dynamic with a scale for each token and head: half of bfloat16")
      ->check(CLI::IsMember({"auto", "int8", "int8-dynamic"}))
      ->group(kMemory);
  app.add_option("--quantization-param-path", args.quantization_param_path,
                 "kv_cache_scales.json for --kv-cache-dtype int8; without it the checkpoint's scales, or 1")
      ->group(kMemory);
}

void add_schedule_flags(CLI::App& app, EngineArgs& args) {
  app.add_option("--max-num-seqs", args.max_num_seqs, "most sequences in one step")
      ->check(CLI::Range(1, 65536))
      ->group(kSchedule);
  app.add_option("--max-num-batched-tokens", args.max_num_batched_tokens,
                 "most tokens in one step; 0: 2048, or the longest length without chunked prefill")
      ->check(CLI::NonNegativeNumber)
      ->group(kSchedule);
  app.add_option("--long-prefill-token-threshold", args.long_prefill_token_threshold,
                 "most prompt tokens of one request in a step; 0: no limit")
      ->check(CLI::NonNegativeNumber)
      ->group(kSchedule);
  add_switch(
      app, "batch-invariant", args.batch_invariant,
      "bit-identical answers, whatever else runs, of models with latent attention too (others always give them)");
  add_switch(app, "enable-prefix-caching", args.enable_prefix_caching, "reuse the KV of equal prefixes (default on)");
  add_switch(app, "enable-chunked-prefill", args.enable_chunked_prefill,
             "cut long prompts at the token budget (default on)");
  app.add_option("--scheduling-policy", args.scheduling_policy, "fcfs, or priority: lower values first")
      ->check(CLI::IsMember({"fcfs", "priority"}))
      ->group(kSchedule);
  app.add_option("--num-scheduler-steps", args.num_scheduler_steps, "decode steps for one scheduling round")
      ->check(CLI::Range(1, 1024))
      ->group(kSchedule);
  app.add_option("--multi-step-stream-outputs", args.multi_step_stream_outputs,
                 "false: one event for each group of steps")
      ->group(kSchedule);
  app.add_option("--max-logprobs", args.max_logprobs, "most log-probabilities a request may ask for")
      ->check(CLI::Range(0, 1000))
      ->group(kSchedule);
  add_only(app, "--preemption-mode", {"recompute"}, kSchedule, "recompute");
}

void add_single_machine_flags(CLI::App& app) {
  constexpr const char* kGroup = "One device";
  add_only(app, "--tensor-parallel-size", {"1"}, kGroup, "1");
  add_only(app, "--pipeline-parallel-size", {"1"}, kGroup, "1");
  add_only(app, "--device", {"auto", "cpu"}, kGroup, "cpu");
}

void add_ignored_flags(CLI::App& app) {
  const std::string graphs = "there is no graph capture", python = "no Python code is run";
  const std::string launcher = "there is one launcher", local = "models are local folders";
  add_no_effect(app, "trust-remote-code", false, python);
  add_no_effect(app, "enforce-eager", false, graphs);
  add_no_effect(app, "max-seq-len-to-capture", true, graphs);
  add_no_effect(app, "use-v2-block-manager", false, "there is one block manager");
  add_no_effect(app, "num-lookahead-slots", true, "slots are reserved as they are needed");
  add_no_effect(app, "swap-space", true, "preempted sequences are recomputed");
  add_no_effect(app, "disable-async-output-proc", false, "outputs always have a thread of their own");
  add_no_effect(app, "async-scheduling", false, "the next step is always planned ahead");
  add_no_effect(app, "distributed-executor-backend", true, launcher);
  add_no_effect(app, "worker-use-ray", false, launcher);
  add_no_effect(app, "ray-workers-use-nsight", false, launcher);
  add_no_effect(app, "max-parallel-loading-workers", true, "loading uses every core");
  add_no_effect(app, "disable-custom-all-reduce", false, "there is one device");
  add_no_effect(app, "tokenizer-pool-size", true, "the tokenizer is shared by threads");
  add_no_effect(app, "tokenizer-pool-type", true, "the tokenizer is shared by threads");
  add_no_effect(app, "tokenizer-pool-extra-config", true, "the tokenizer is shared by threads");
  for (const char* name : {"revision", "code-revision", "tokenizer-revision", "download-dir"})
    add_no_effect(app, name, true, local);
}

Status apply_environment(EngineArgs& args) {
  if (const char* invariant = std::getenv("VLLM_BATCH_INVARIANT"); invariant && std::string_view(invariant) == "1")
    args.batch_invariant = true;
  const char* space = std::getenv("VLLM_CPU_KVCACHE_SPACE");
  if (!space || args.kv_cache_memory_bytes > 0) return {};
  char* end = nullptr;
  const double gib = std::strtod(space, &end);
  if (end == space || *end || gib < 0 || gib > 1e6)
    return invalid_argument("VLLM_CPU_KVCACHE_SPACE is '{}'; it must be a number of GiB, 0 or more", space);
  args.kv_cache_memory_bytes = static_cast<int64_t>(gib * (int64_t{1} << 30));
  return {};
}

}  // namespace

void add_engine_flags(CLI::App& app, EngineArgs& args, bool positional_model) {
  app.add_option(positional_model ? "model,--model" : "--model", args.model, "folder with config.json and the weights")
      ->group(kModel);
  add_model_flags(app, args);
  add_memory_flags(app, args);
  add_schedule_flags(app, args);
  add_single_machine_flags(app);
  add_ignored_flags(app);
}

Status finish_engine_args(EngineArgs& args) {
  if (args.model.empty())
    return invalid_argument("no model: give a checkpoint folder with --model DIR ('millrace init DIR' makes one)");
  if (args.max_num_batched_tokens > 0 && args.max_num_batched_tokens < args.max_num_seqs)
    return invalid_argument("--max-num-batched-tokens ({}) must be at least --max-num-seqs ({})",
                            args.max_num_batched_tokens, args.max_num_seqs);
  return apply_environment(args);
}

}  // namespace millrace::cli
