#include "kernels/elementwise.h"

#include <cmath>
#include <cstring>

#include "base/check.h"
#include "base/from_float.h"
#include "kernels/parallel.h"

namespace millrace {
namespace {

constexpr int64_t kGrain = 1 << 15;

template <class Row>
void gather(const EmbeddingArgs& a, const Row* row, float* y) {
  for (int64_t c = 0; c < a.C; ++c) y[c] = to_float(row[c]) * a.scale;
}

void gather_token(const EmbeddingArgs& a, int64_t t) {
  const int64_t at = a.tokens[t] * a.C;
  MR_CHECK(a.tokens[t] >= 0 && a.tokens[t] < a.V, "token {} of a vocabulary of {}", a.tokens[t], a.V);
  float* y = a.y + t * a.C;
  if (a.dtype == DType::kF32) return gather(a, static_cast<const float*>(a.table) + at, y);
  if (a.dtype == DType::kBf16) return gather(a, static_cast<const bf16*>(a.table) + at, y);
  gather(a, static_cast<const f16*>(a.table) + at, y);
}

template <class From, class To>
void convert_values(const From* from, To* to, int64_t n) {
  if constexpr (std::is_same_v<From, To>)
    std::memcpy(to, from, n * sizeof(To));
  else
    for (int64_t i = 0; i < n; ++i) to[i] = from_float<To>(to_float(from[i]));
}

template <class From>
void convert_from(const From* from, void* to, DType to_dtype, int64_t n) {
  if (to_dtype == DType::kF32) return convert_values(from, static_cast<float*>(to), n);
  if (to_dtype == DType::kBf16) return convert_values(from, static_cast<bf16*>(to), n);
  convert_values(from, static_cast<f16*>(to), n);
}

}  // namespace

void add_scaled(float* y, const float* x, float scale, int64_t n) {
  parallel_ranges(n, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) y[i] += scale * x[i];
  });
}

void scale_values(float* x, float scale, int64_t n) {
  parallel_ranges(n, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) x[i] *= scale;
  });
}

void soft_cap(float* x, float cap, int64_t n) {
  parallel_ranges(n, kGrain / 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) x[i] = cap * std::tanh(x[i] / cap);
  });
}

void embedding(const EmbeddingArgs& args) {
  const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(args.C, 1));
  parallel_ranges(args.T, grain, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) gather_token(args, t);
  });
}

void convert(const void* from, DType from_dtype, void* to, DType to_dtype, int64_t n) {
  parallel_ranges(n, kGrain, [&](int64_t begin, int64_t end) {
    const auto* source = static_cast<const std::byte*>(from) + begin * dtype_bytes(from_dtype);
    auto* target = static_cast<std::byte*>(to) + begin * dtype_bytes(to_dtype);
    const int64_t count = end - begin;
    if (from_dtype == DType::kF32)
      convert_from(reinterpret_cast<const float*>(source), target, to_dtype, count);
    else if (from_dtype == DType::kBf16)
      convert_from(reinterpret_cast<const bf16*>(source), target, to_dtype, count);
    else
      convert_from(reinterpret_cast<const f16*>(source), target, to_dtype, count);
  });
}

}  // namespace millrace
