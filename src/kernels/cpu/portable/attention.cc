// What paged_attention means. Plain on purpose.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "kernels/cpu/attention_impls.h"
#include "kernels/parallel.h"

namespace millrace::portable {
namespace {

double element(const void* cache, DType dtype, int64_t at) {
  if (dtype == DType::kBf16) return to_float(static_cast<const bf16*>(cache)[at]);
  if (dtype == DType::kF16) return to_float(static_cast<const f16*>(cache)[at]);
  if (dtype == DType::kI8) return static_cast<const int8_t*>(cache)[at];
  return static_cast<const float*>(cache)[at];
}

// First element of the block that holds `position`.
int64_t block_at(const AttentionArgs& a, int64_t s, int64_t position) {
  return a.block_table[s * a.max_blocks + position / a.layout.block_tokens] * a.layout.block_elements();
}

// What the elements of head g count at `position` of sequence s, in the keys or the values; `scales` are theirs.
double scale_of(const AttentionArgs& a, const void* cache, const float* scales, int64_t s, int64_t g,
                int64_t position) {
  const KvLayout& kv = a.layout;
  if (scales) return scales[g];
  if (!kv.token_scales) return 1;
  float scale;
  const int64_t at = block_at(a, s, position) + kv.scale_at(g, position % kv.block_tokens);
  std::memcpy(&scale, static_cast<const int8_t*>(cache) + at, sizeof scale);
  return scale;
}

double score(const AttentionArgs& a, int64_t s, int64_t token, int64_t h, int64_t position) {
  const KvLayout& kv = a.layout;
  const int64_t q = token * a.q_stride + h * kv.head_dim;
  const int64_t g = h / (a.H / kv.kv_heads), block = block_at(a, s, position);
  double dot = 0;
  for (int64_t d = 0; d < kv.head_dim; ++d)
    dot += element(a.q, a.q_dtype, q + (a.q_dtype == DType::kBf16 ? query_place(d, kv.head_dim) : d)) *
           element(a.k_cache, kv.dtype, block + kv.key_at(g, position % kv.block_tokens, d));
  dot *= scale_of(a, a.k_cache, a.k_scales, s, g, position) * a.scale;
  if (a.q_factors) dot *= a.q_factors[token];
  if (a.soft_cap > 0) dot = a.soft_cap * std::tanh(dot / a.soft_cap);
  if (a.alibi_slopes && a.alibi_bf16) dot += a.scale * bf16_bias(a.alibi_slopes[h], position);
  if (a.alibi_slopes && !a.alibi_bf16)
    dot += a.alibi_slopes[h] * static_cast<double>(position - query_position(a, s, token));
  return dot;
}

void attend(const AttentionArgs& a, int64_t s, int64_t token, int64_t h) {
  const KvLayout& kv = a.layout;
  const Visible seen = visible(a, s, token);
  const int64_t g = h / (a.H / kv.kv_heads);
  double highest = -INFINITY, total = 0, sums[kMaxHeadDim] = {};
  for (int64_t p = seen.begin; p < seen.end; ++p) highest = std::max(highest, score(a, s, token, h, p));
  for (int64_t p = seen.begin; p < seen.end; ++p) {
    const double weight = std::exp(score(a, s, token, h, p) - highest);
    total += weight;
    const double scale = scale_of(a, a.v_cache, a.v_scales, s, g, p);
    for (int64_t d = 0; d < kv.head_dim; ++d)
      sums[d] +=
          weight * scale * element(a.v_cache, kv.dtype, block_at(a, s, p) + kv.value_at(g, p % kv.block_tokens, d));
  }
  for (int64_t d = 0; d < kv.head_dim; ++d) {
    const auto value = static_cast<float>(sums[d] / total);
    const int64_t at = token * a.out_stride + h * kv.head_dim + d;
    if (a.out_dtype == DType::kBf16)
      static_cast<bf16*>(a.out)[at] = to_bf16(value);
    else
      static_cast<float*>(a.out)[at] = value;
  }
}

}  // namespace

float kv_quantize(const float* x, int64_t n, float scale, int8_t* to) {
  float largest = 0, inverse = 1 / scale;
  bool finite = true;
  for (int64_t d = 0; d < n; ++d) largest = std::max(largest, std::abs(x[d])), finite = finite && std::isfinite(x[d]);
  if (scale == 0) {
    scale = finite ? largest / 127 : NAN;
    inverse = finite && largest >= kLeastKvMax ? 127 / largest : 0;
  }
  for (int64_t d = 0; d < n; ++d) {
    const float q = x[d] * inverse;
    to[d] = inverse == 0 ? int8_t{0} : static_cast<int8_t>(std::nearbyint(std::min(q > -127 ? q : -127, 127.0f)));
  }
  return scale;
}

void paged_attention(const AttentionArgs& a) {
  for (int64_t s = 0; s < a.S; ++s) {
    const int64_t first = a.query_start[s], tokens = a.query_start[s + 1] - first;
    parallel_ranges(tokens * a.H, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) attend(a, s, first + i / a.H, i % a.H);
    });
  }
}

}  // namespace millrace::portable
