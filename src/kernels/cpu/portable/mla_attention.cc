// What mla_attention means. Plain on purpose.
#include <cmath>
#include <vector>

#include "kernels/cpu/mla_impls.h"

namespace millrace::portable {
namespace {

double element(const void* rows, DType dtype, int64_t at) {
  if (dtype == DType::kBf16) return to_float(static_cast<const bf16*>(rows)[at]);
  if (dtype == DType::kF16) return to_float(static_cast<const f16*>(rows)[at]);
  return static_cast<const float*>(rows)[at];
}

constexpr int64_t kMostDim = 4096;  // of a value

struct Query {
  int64_t s, token, h, g, end;
};

double score(const MlaAttentionArgs& a, const Query& query, int64_t position) {
  const float* q = a.q + query.token * a.q_stride + query.h * a.key_dim;
  const int64_t at = mla_row_at(a, a.keys, query.s, query.g, position);
  double dot = 0;
  for (int64_t d = 0; d < a.key_dim; ++d) dot += q[d] * element(a.keys.data, a.dtype, at + d);
  return a.scale * dot;
}

void attend(const MlaAttentionArgs& a, const Query& query) {
  double highest = -INFINITY, total = 0, sums[kMostDim] = {};
  for (int64_t p = 0; p < query.end; ++p) highest = std::max(highest, score(a, query, p));
  for (int64_t p = 0; p < query.end; ++p) {
    const double weight = std::exp(score(a, query, p) - highest);
    const int64_t at = mla_row_at(a, a.values, query.s, query.g, p);
    total += weight;
    for (int64_t d = 0; d < a.value_dim; ++d) sums[d] += weight * element(a.values.data, a.dtype, at + d);
  }
  for (int64_t d = 0; d < a.value_dim; ++d) {
    const auto value = static_cast<float>(sums[d] / total);
    const int64_t at = query.token * a.out_stride + query.h * a.value_dim + d;
    if (a.out_dtype == DType::kBf16)
      static_cast<bf16*>(a.out)[at] = to_bf16(value);
    else
      static_cast<float*>(a.out)[at] = value;
  }
}

}  // namespace

void mla_attention(const MlaAttentionArgs& a) {
  MR_CHECK(a.value_dim <= kMostDim, "values of {} elements", a.value_dim);
  const int64_t group = a.H / a.G;
  for (int64_t s = 0; s < a.S; ++s)
    parallel_items(mla_rows_of(a, s) * a.G, [&](int64_t i) {
      const int64_t row = i / a.G, g = i % a.G;
      attend(a, {s, a.query_start[s] + row / group, g * group + row % group, g, mla_seen_end(a, s, row)});
    });
}

}  // namespace millrace::portable
