// How many KV blocks there are and how long a sequence may be, from the arguments and this machine's memory. Numbers
// only.
#pragma once
#include <cstdint>
#include <string>

#include "base/cpu.h"
#include "base/result.h"
#include "engine/local/engine_args.h"
#include "models/families/spec.h"

namespace millrace {

struct MemoryPlan {
  int64_t num_blocks = 0;
  int64_t max_model_len = 0;
  std::string blocks_reason, length_reason;  // "VLLM_CPU_KVCACHE_SPACE", "the checkpoint's", ...
};

// `weight_bytes` of the packed weights, `block_bytes` of a KV block over all layers.
// Errors: kInvalidArgument for a length beyond the checkpoint's, kResourceExhausted when what is left of the memory
// does not hold one sequence of the wanted length (or, where none is wanted, not even one block).
Result<MemoryPlan> plan_memory(const EngineArgs& args, const DecoderSpec& spec, int64_t weight_bytes,
                               int64_t block_bytes, const MachineInfo& machine);

}  // namespace millrace
