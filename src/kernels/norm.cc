#include "kernels/norm.h"

#include "kernels/cpu/rows.h"
#include "kernels/parallel.h"

namespace millrace {
namespace {

constexpr Impl<NormFn> kRmsNorm[] = {{"avx512", Isa::kAvx512, avx512::rms_norm},
                                     {"avx2", Isa::kAvx2, avx2::rms_norm},
                                     {"portable", Isa::kPortable, portable::rms_norm}};
constexpr Impl<NormFn> kLayerNorm[] = {{"avx512", Isa::kAvx512, avx512::layer_norm},
                                       {"avx2", Isa::kAvx2, avx2::layer_norm},
                                       {"portable", Isa::kPortable, portable::layer_norm}};

NormArgs rows_of(const NormArgs& a, int64_t begin, int64_t end) {
  NormArgs part = a;
  part.T = end - begin;
  part.x += begin * a.x_stride;
  if (a.residual) part.residual += begin * a.C;
  part.y = static_cast<std::byte*>(a.y) + begin * a.y_stride * dtype_bytes(a.y_dtype);
  return part;
}

void split_rows(const NormArgs& a, NormFn* run) {
  constexpr int64_t kElementsPerThread = 1 << 14;
  const int64_t grain = std::max<int64_t>(1, kElementsPerThread / std::max<int64_t>(a.C, 1));
  parallel_ranges(a.T, grain, [&](int64_t begin, int64_t end) { run(rows_of(a, begin, end)); });
}

}  // namespace

std::span<const Impl<NormFn>> rms_norm_impls() { return kRmsNorm; }
std::span<const Impl<NormFn>> layer_norm_impls() { return kLayerNorm; }

void rms_norm(const NormArgs& args) {
  static NormFn* const run = best_impl(rms_norm_impls());
  split_rows(args, run);
}

void layer_norm(const NormArgs& args) {
  static NormFn* const run = best_impl(layer_norm_impls());
  split_rows(args, run);
}

}  // namespace millrace
