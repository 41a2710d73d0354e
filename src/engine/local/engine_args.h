// Everything about a model and its engine that a command line can say. Names, defaults and meanings are vLLM's; fields
// that differ say so.
#pragma once
#include <cstdint>
#include <optional>
#include <string>

namespace millrace {

struct EngineArgs {
  std::string model;      // folder with config.json and weights
  std::string tokenizer;  // folder or file; empty: the model's
  bool skip_tokenizer_init = false;
  std::string load_format = "auto";  // auto, safetensors, pt, dummy
  std::string dtype = "auto";        // auto: the checkpoint's
  std::string quantization;          // empty: as the checkpoint says; else its method, or w8a8, w8a16 of a dense one
  std::string packed_weights_cache;  // folder that keeps packed matrices from start to start; empty: none
  std::optional<int64_t> max_model_len;  // none: the checkpoint's, cut to what the KV cache holds
  std::string rope_scaling;              // JSON; replaces config.json's
  std::optional<double> rope_theta;
  int64_t seed = 0;
  bool disable_sliding_window = false;

  double gpu_memory_utilization = 0.92;  // share of this machine's memory for weights, activations and KV
  int64_t kv_cache_memory_bytes = 0;     // 0: VLLM_CPU_KVCACHE_SPACE GiB, else 4 GiB or what is left
  int64_t num_gpu_blocks_override = 0;   // exact number of KV blocks; 0: from the memory
  int64_t block_size = 16;
  std::string kv_cache_dtype = "auto";  // the model's dtype; int8, or int8-dynamic: a scale for each token and head
  std::string quantization_param_path;  // file of scales for int8

  int64_t max_num_seqs = 256;
  int64_t max_num_batched_tokens = 0;  // 0: 2048, or max_model_len without chunked prefill
  int64_t long_prefill_token_threshold = 0;
  bool batch_invariant = false;
  bool enable_prefix_caching = true;
  bool enable_chunked_prefill = true;
  std::string scheduling_policy = "fcfs";
  int64_t num_scheduler_steps = 1;
  bool multi_step_stream_outputs = true;
  int64_t max_logprobs = 20;
};

}  // namespace millrace
