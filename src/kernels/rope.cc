#include "kernels/rope.h"

#include "kernels/cpu/rows.h"
#include "kernels/parallel.h"

namespace millrace {
namespace {

constexpr Impl<RopeFn> kImpls[] = {{"avx512", Isa::kAvx512, avx512::rope},
                                   {"avx2", Isa::kAvx2, avx2::rope},
                                   {"portable", Isa::kPortable, portable::rope}};

RopeArgs tokens_of(const RopeArgs& a, int64_t begin, int64_t end) {
  RopeArgs part = a;
  part.T = end - begin;
  part.x += begin * a.token_stride;
  part.cos += begin * (a.dims / 2);
  part.sin += begin * (a.dims / 2);
  return part;
}

}  // namespace

std::span<const Impl<RopeFn>> rope_impls() { return kImpls; }

void rope(const RopeArgs& args) {
  static RopeFn* const run = best_impl(rope_impls());
  constexpr int64_t kElementsPerThread = 1 << 14;
  const int64_t grain = std::max<int64_t>(1, kElementsPerThread / std::max<int64_t>(args.heads * args.head_dim, 1));
  parallel_ranges(args.T, grain, [&](int64_t begin, int64_t end) { run(tokens_of(args, begin, end)); });
}

}  // namespace millrace
