#include "engine/local/memory_plan.h"

#include <algorithm>
#include <cstdlib>

#include "base/text.h"
#include "models/families/planner.h"

namespace millrace {
namespace {

constexpr int64_t kDefaultCacheBytes = int64_t{4} << 30;  // as vLLM's CPU back end

bool long_lengths_allowed() {
  const char* value = std::getenv("VLLM_ALLOW_LONG_MAX_MODEL_LEN");
  return value && std::string(value) == "1";
}

struct Wish {
  int64_t length;
  std::string reason;
};

Result<Wish> wanted_length(const EngineArgs& args, const DecoderSpec& spec) {
  if (!args.max_model_len) return Wish{spec.max_positions, "the checkpoint's"};
  if (*args.max_model_len > spec.max_positions && !spec.length_unbounded && !long_lengths_allowed())
    return invalid_argument(
        "--max-model-len is {}, but the checkpoint was made for {} tokens. VLLM_ALLOW_LONG_MAX_MODEL_LEN=1 allows it; "
        "answers beyond that length may be nonsense",
        *args.max_model_len, spec.max_positions);
  return Wish{*args.max_model_len, "--max-model-len"};
}

struct Blocks {
  int64_t count;
  std::string reason;
};

// Memory that may go to the KV cache, and how many blocks of it are of use.
Result<Blocks> choose_blocks(const EngineArgs& args, int64_t weight_bytes, int64_t block_bytes, int64_t length,
                             const MachineInfo& machine) {
  if (args.num_gpu_blocks_override > 0) return Blocks{args.num_gpu_blocks_override, "--num-gpu-blocks-override"};
  const int64_t left = cache_budget_bytes(machine.memory_bytes, args.gpu_memory_utilization, weight_bytes);
  if (args.kv_cache_memory_bytes > 0) {
    if (args.kv_cache_memory_bytes > left)
      return resource_exhausted(
          "the KV cache is to have {}, but beside weights of {} only {} of this machine's {} are left",
          format_bytes(args.kv_cache_memory_bytes), format_bytes(weight_bytes),
          format_bytes(std::max<int64_t>(left, 0)), format_bytes(machine.memory_bytes));
    return Blocks{args.kv_cache_memory_bytes / block_bytes, "as asked for"};
  }
  if (left < block_bytes)
    return resource_exhausted("weights of {} leave no room for a KV cache within {:.0f} % of this machine's {}",
                              format_bytes(weight_bytes), 100 * args.gpu_memory_utilization,
                              format_bytes(machine.memory_bytes));
  const int64_t useful = (length + args.block_size - 1) / args.block_size * args.max_num_seqs;
  const int64_t fitting = std::min(left, kDefaultCacheBytes) / block_bytes;
  if (useful <= fitting) return Blocks{useful, "enough for every sequence at full length"};
  return Blocks{fitting, left < kDefaultCacheBytes ? "what the weights leave"
                                                   : "up to 4 GiB; VLLM_CPU_KVCACHE_SPACE sets another size"};
}

}  // namespace

Result<MemoryPlan> plan_memory(const EngineArgs& args, const DecoderSpec& spec, int64_t weight_bytes,
                               int64_t block_bytes, const MachineInfo& machine) {
  MR_ASSIGN_OR_RETURN(const Wish wish, wanted_length(args, spec));
  MR_ASSIGN_OR_RETURN(const Blocks blocks, choose_blocks(args, weight_bytes, block_bytes, wish.length, machine));
  if (blocks.count < 1)
    return resource_exhausted("a KV cache of {} does not hold one block of {} tokens ({})",
                              format_bytes(args.kv_cache_memory_bytes), args.block_size, format_bytes(block_bytes));
  if (blocks.count > INT32_MAX / 2)
    return invalid_argument("{} KV blocks are more than {}", blocks.count, INT32_MAX / 2);
  MemoryPlan plan{.num_blocks = blocks.count,
                  .max_model_len = wish.length,
                  .blocks_reason = blocks.reason,
                  .length_reason = wish.reason};
  const int64_t holds = blocks.count * args.block_size;
  if (wish.length <= holds) return plan;
  if (args.max_model_len)
    return resource_exhausted(
        "--max-model-len is {}, but the KV cache holds only {} tokens ({}). Lower --max-model-len, or give the cache "
        "more "
        "memory with VLLM_CPU_KVCACHE_SPACE or --gpu-memory-utilization",
        wish.length, holds, format_bytes(blocks.count * block_bytes));
  plan.max_model_len = holds;
  plan.length_reason = fmt::format("what the KV cache holds; the checkpoint's is {}", wish.length);
  return plan;
}

}  // namespace millrace
