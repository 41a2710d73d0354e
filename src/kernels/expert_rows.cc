#include "kernels/expert_rows.h"

#include <algorithm>
#include <cstring>

#include "kernels/cpu/rows.h"
#include "kernels/parallel.h"

namespace millrace {
namespace {

constexpr Impl<CombineRowsFn> kImpls[] = {{"avx512", Isa::kAvx512, avx512::combine_rows},
                                          {"avx2", Isa::kAvx2, avx2::combine_rows},
                                          {"portable", Isa::kPortable, portable::combine_rows}};
constexpr int64_t kBytesPerThread = 1 << 16;

CombineRowsArgs tokens_of(const CombineRowsArgs& a, int64_t begin, int64_t end) {
  CombineRowsArgs part = a;
  part.T = end - begin;
  part.weights += begin * a.K;
  part.row_of += begin * a.K;
  part.y += begin * a.y_stride;
  if (part.gate) part.gate += begin;
  return part;
}

}  // namespace

void order_by_expert(const ExpertOrderArgs& a) {
  std::fill(a.first_row, a.first_row + a.E + 1, 0);
  for (int64_t i = 0; i < a.T * a.K; ++i) {
    MR_CHECK(a.experts[i] >= 0 && a.experts[i] < a.E, "expert {} of {}", a.experts[i], a.E);
    ++a.first_row[a.experts[i] + 1];
  }
  for (int64_t e = 0; e < a.E; ++e) a.first_row[e + 1] += a.first_row[e];
  // first_row[e] runs to the end of e's rows, then everything moves back by one expert.
  for (int64_t i = 0; i < a.T * a.K; ++i) {
    const int32_t row = a.first_row[a.experts[i]]++;
    a.row_of[i] = row;
    a.token_of_row[row] = static_cast<int32_t>(i / a.K);
  }
  for (int64_t e = a.E; e > 0; --e) a.first_row[e] = a.first_row[e - 1];
  a.first_row[0] = 0;
}

void gather_rows(const GatherRowsArgs& a) {
  const auto* from = static_cast<const std::byte*>(a.from);
  auto* to = static_cast<std::byte*>(a.to);
  const int64_t grain = std::max<int64_t>(1, kBytesPerThread / std::max<int64_t>(a.row_bytes, 1));
  parallel_ranges(a.n, grain, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r)
      std::memcpy(to + r * a.to_stride, from + a.rows[r] * a.from_stride, static_cast<size_t>(a.row_bytes));
  });
}

std::span<const Impl<CombineRowsFn>> combine_rows_impls() { return kImpls; }

void combine_rows(const CombineRowsArgs& args) {
  static CombineRowsFn* const run = best_impl(combine_rows_impls());
  const int64_t grain = std::max<int64_t>(1, kBytesPerThread / std::max<int64_t>(4 * args.C * args.K, 1));
  parallel_ranges(args.T, grain, [&](int64_t begin, int64_t end) { run(tokens_of(args, begin, end)); });
}

}  // namespace millrace
