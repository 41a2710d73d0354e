#include "kernels/glu.h"

#include "kernels/cpu/rows.h"
#include "kernels/parallel.h"

namespace millrace {
namespace {

constexpr Impl<GluFn> kImpls[] = {{"avx512", Isa::kAvx512, avx512::glu},
                                  {"avx2", Isa::kAvx2, avx2::glu},
                                  {"portable", Isa::kPortable, portable::glu}};

GluArgs rows_of(const GluArgs& a, int64_t begin, int64_t end) {
  GluArgs part = a;
  part.T = end - begin;
  part.gate += begin * a.x_stride;
  if (a.up) part.up += begin * a.x_stride;
  part.y = static_cast<std::byte*>(a.y) + begin * a.y_stride * dtype_bytes(a.y_dtype);
  return part;
}

}  // namespace

std::span<const Impl<GluFn>> glu_impls() { return kImpls; }

void glu(const GluArgs& args) {
  static GluFn* const run = best_impl(glu_impls());
  constexpr int64_t kElementsPerThread = 1 << 13;
  const int64_t grain = std::max<int64_t>(1, kElementsPerThread / std::max<int64_t>(args.F, 1));
  parallel_ranges(args.T, grain, [&](int64_t begin, int64_t end) { run(rows_of(args, begin, end)); });
}

}  // namespace millrace
