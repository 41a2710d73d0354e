#include "kernels/cast_rows.h"

#include "kernels/cpu/rows.h"
#include "kernels/parallel.h"

namespace millrace {
namespace {

constexpr Impl<CastRowsFn> kImpls[] = {{"avx512", Isa::kAvx512, avx512::cast_rows},
                                       {"avx2", Isa::kAvx2, avx2::cast_rows},
                                       {"portable", Isa::kPortable, portable::cast_rows}};

CastRowsArgs rows_of(const CastRowsArgs& a, int64_t begin, int64_t end) {
  CastRowsArgs part = a;
  part.n = end - begin;
  part.from += begin * a.from_stride;
  if (a.slots)
    part.slots += begin;
  else
    part.to = static_cast<std::byte*>(a.to) + begin * a.to_stride * dtype_bytes(a.to_dtype);
  return part;
}

}  // namespace

std::span<const Impl<CastRowsFn>> cast_rows_impls() { return kImpls; }

void cast_rows(const CastRowsArgs& args) {
  static CastRowsFn* const run = best_impl(cast_rows_impls());
  constexpr int64_t kElementsPerThread = 1 << 15;
  const int64_t grain = std::max<int64_t>(1, kElementsPerThread / std::max<int64_t>(args.width, 1));
  parallel_ranges(args.n, grain, [&](int64_t begin, int64_t end) { run(rows_of(args, begin, end)); });
}

}  // namespace millrace
