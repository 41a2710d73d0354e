#include "kernels/paged_attention.h"

#include "kernels/cpu/attention_impls.h"

namespace millrace {
namespace {

constexpr Impl<AttentionFn> kImpls[] = {{"amx", Isa::kAmx, amx::paged_attention},
                                        {"avx512_bf16", Isa::kAvx512Bf16, avx512::paged_attention_pairs},
                                        {"avx512", Isa::kAvx512, avx512::paged_attention},
                                        {"avx2", Isa::kAvx2, avx2::paged_attention},
                                        {"portable", Isa::kPortable, portable::paged_attention}};

}  // namespace

std::span<const Impl<AttentionFn>> paged_attention_impls() { return kImpls; }

void paged_attention(const AttentionArgs& args) {
  static AttentionFn* const run = best_impl(paged_attention_impls());
  const KvLayout& kv = args.layout;
  MR_CHECK(kv.head_dim <= kMaxHeadDim && kv.block_tokens % kKvLanes == 0, "heads of {} elements, blocks of {} tokens",
           kv.head_dim, kv.block_tokens);
  MR_CHECK(args.H % kv.kv_heads == 0, "{} query heads for {} key/value heads", args.H, kv.kv_heads);
  MR_CHECK(args.q_dtype == DType::kF32 || (args.q_dtype == DType::kBf16 && kv.head_dim % 32 == 0),
           "queries of {}, heads of {} elements", dtype_name(args.q_dtype), kv.head_dim);
  const bool scaled = args.k_scales && args.v_scales;
  MR_CHECK(scaled == (kv.dtype == DType::kI8 && !kv.token_scales), "scales given: {}; a cache of {}", scaled,
           dtype_name(kv.dtype));
  run(args);
}

int64_t attention_scratch_bytes(int64_t H, int64_t D, int64_t max_context) {
  constexpr int64_t kSequences = 4;
  const int64_t partitions = (max_context + kPartitionPositions - 1) / kPartitionPositions;
  return kSequences * partitions * H * ((D + 15) / 16 * 16 + 16) * 4;
}

}  // namespace millrace
