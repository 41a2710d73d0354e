#include "kernels/mla_attention.h"

#include "kernels/cpu/mla_impls.h"

namespace millrace {
namespace {

constexpr Impl<MlaAttentionFn> kImpls[] = {{"amx", Isa::kAmx, amx::mla_attention},
                                           {"avx512", Isa::kAvx512, avx512::mla_attention},
                                           {"avx2", Isa::kAvx2, avx2::mla_attention},
                                           {"portable", Isa::kPortable, portable::mla_attention}};

}  // namespace

std::span<const Impl<MlaAttentionFn>> mla_attention_impls() { return kImpls; }

void mla_attention(const MlaAttentionArgs& args) {
  static MlaAttentionFn* const run = best_impl(mla_attention_impls());
  MR_CHECK(args.block_tokens % 16 == 0 && args.G > 0 && args.H % args.G == 0,
           "blocks of {} tokens, {} query heads for {} key/value heads", args.block_tokens, args.H, args.G);
  run(args);
}

// Each thread's work, and for few items the partitions under way: see MlaMemory in cpu/simd/mla_attention.inl, and
// Memory in cpu/amx/mla_attention.cc.
int64_t mla_attention_scratch_bytes(int64_t key_dim, int64_t value_dim, int threads) {
  const int64_t part = (kMlaRows * mla_padded(value_dim) + 2 * kMlaRows) * 4;
  const int64_t work = kMlaRows * (mla_padded(key_dim) + kMlaPartition) * 4;
  const int64_t vectors = mla_threads(threads) * (work + kMlaPartsPerThread * part);
  return std::max(vectors, amx::mla_scratch_bytes(key_dim, value_dim, threads));
}

}  // namespace millrace
