// What the row operations mean. Plain on purpose.
#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "base/random.h"
#include "kernels/cpu/gemm_w8a8_impls.h"
#include "kernels/cpu/rows.h"

namespace millrace::portable {
namespace {

void store(void* y, DType dtype, int64_t at, double value) {
  if (dtype == DType::kBf16)
    static_cast<bf16*>(y)[at] = to_bf16(static_cast<float>(value));
  else
    static_cast<float*>(y)[at] = static_cast<float>(value);
}

void add_residual(const NormArgs& a, int64_t t) {
  for (int64_t c = 0; c < a.C; ++c) a.x[t * a.x_stride + c] += a.residual_scale * a.residual[t * a.C + c];
}

// Row t of y; value(c): its elements.
template <class Value>
void store_row(const NormArgs& a, int64_t t, const Value& value) {
  if (a.y_dtype == DType::kI8) {
    int8_t* y = static_cast<int8_t*>(a.y) + t * a.y_stride;
    const auto rounded = [&](int64_t c) { return static_cast<float>(value(c)); };
    return set_made_scale(y, a.C, quantize_row(a.y_scale, a.C, rounded, y));
  }
  for (int64_t c = 0; c < a.C; ++c) store(a.y, a.y_dtype, t * a.y_stride + c, value(c));
}

double activate(GluActivation activation, double x) {
  switch (activation) {
    case GluActivation::kSilu:
      return x / (1 + std::exp(-x));
    case GluActivation::kGelu:
      return x * (1 + std::erf(x / std::sqrt(2.0))) / 2;
    case GluActivation::kGeluTanh:
      return x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x))) / 2;
    case GluActivation::kRelu:
      return std::max(x, 0.0);
  }
  MR_CHECK(false, "activation {}", static_cast<int>(activation));
  return 0;
}

float largest(const float* x, int64_t n) {
  float best = -INFINITY;
  for (int64_t i = 0; i < n; ++i)
    if (x[i] > best) best = x[i];
  return best;
}

int64_t find(const float* x, int64_t n, float value) { return std::find(x, x + n, value) - x; }

double sum_exp(const float* x, int64_t n, float shift) {
  double total = 0;
  for (int64_t i = 0; i < n; ++i)
    if (!std::isnan(x[i])) total += std::exp(static_cast<double>(x[i]) - shift);
  return total;
}

int64_t count_larger(const float* x, int64_t n, float bound) {
  return std::count_if(x, x + n, [&](float value) { return value > bound; });
}

int64_t collect(const float* x, int64_t n, float bound, int64_t from, int32_t* indices, int64_t most, int64_t* next) {
  int64_t count = 0, i = from;
  for (; i < n && count < most; ++i)
    if (x[i] >= bound) indices[count++] = static_cast<int32_t>(i);
  *next = i;
  return count;
}

void masses(const float* x, int64_t n, float shift, const float* bounds, double* masses) {
  std::fill_n(masses, kMassBounds, 0.0);
  for (int64_t i = 0; i < n; ++i)
    for (int b = 0; b < kMassBounds; ++b)
      if (x[i] >= bounds[b]) masses[b] += std::exp(static_cast<double>(x[i]) - shift);
}

float exponentials(const float* x, int64_t n, float shift, float* to) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) {
    to[i] = std::isnan(x[i]) ? 0 : static_cast<float>(std::exp(static_cast<double>(x[i]) - shift));
    sum += to[i];
  }
  return static_cast<float>(sum);
}

float sum_at_least(const float* x, int64_t n, float bound) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += x[i] >= bound ? x[i] : 0;
  return static_cast<float>(sum);
}

int64_t between(const float* x, const int32_t* ids, int64_t n, float low, float high, float* values,
                int32_t* values_ids) {
  int64_t count = 0;
  for (int64_t i = 0; i < n; ++i) {
    if (!(x[i] >= low && x[i] < high)) continue;
    values_ids[count] = ids ? ids[i] : static_cast<int32_t>(i);
    values[count++] = x[i];
  }
  return count;
}

void ban_below(float* x, int64_t n, float bound) {
  for (int64_t i = 0; i < n; ++i)
    if (!(x[i] >= bound)) x[i] = -INFINITY;
}

float scale(float* x, int64_t n, float factor) {
  for (int64_t i = 0; i < n; ++i) x[i] *= factor;
  return largest(x, n);
}

}  // namespace

int64_t contenders(const float* x, int64_t n, float best, const NoiseKey& key, int64_t from, int32_t* indices,
                   uint32_t* bits, int64_t most, int64_t* next) {
  int64_t count = 0, i = from;
  for (; i < n && (i % 128 != 0 || count + 128 <= most); i += 4) {
    const int64_t end = std::min(i + 4, n);
    if (std::none_of(x + i, x + end, [&](float value) { return value + kMostNoise >= best; })) continue;
    const auto words = philox(key.seed, static_cast<uint64_t>(i) / 4, key.position);
    for (int64_t j = i; j < end; ++j) {
      if (!(x[j] + gumbel_bound(words[j - i]) >= best)) continue;
      bits[count] = words[j - i];
      indices[count++] = static_cast<int32_t>(j);
    }
  }
  *next = i;
  return count;
}

LogitKernels logit_kernels() {
  return {largest,      find,         sum_exp, count_larger, collect,   masses,
          exponentials, sum_at_least, between, scale,        ban_below, contenders};
}

void rms_norm(const NormArgs& a) {
  for (int64_t t = 0; t < a.T; ++t) {
    if (a.residual) add_residual(a, t);
    const float* x = a.x + t * a.x_stride;
    double sum = 0;
    for (int64_t c = 0; c < a.C; ++c) sum += static_cast<double>(x[c]) * x[c];
    const double scale = 1 / std::sqrt(sum / static_cast<double>(a.C) + a.eps);
    store_row(a, t, [&](int64_t c) { return a.w[c] * (x[c] * scale); });
  }
}

void layer_norm(const NormArgs& a) {
  for (int64_t t = 0; t < a.T; ++t) {
    if (a.residual) add_residual(a, t);
    const float* x = a.x + t * a.x_stride;
    double sum = 0, squares = 0;
    for (int64_t c = 0; c < a.C; ++c) sum += x[c];
    const double mean = sum / static_cast<double>(a.C);
    for (int64_t c = 0; c < a.C; ++c) squares += (x[c] - mean) * (x[c] - mean);
    const double scale = 1 / std::sqrt(squares / static_cast<double>(a.C) + a.eps);
    store_row(a, t, [&](int64_t c) { return a.w[c] * ((x[c] - mean) * scale) + (a.b ? a.b[c] : 0.0f); });
  }
}

void rope(const RopeArgs& a) {
  const int64_t pairs = a.dims / 2;
  for (int64_t t = 0; t < a.T; ++t)
    for (int64_t h = 0; h < a.heads; ++h)
      for (int64_t i = 0; i < pairs; ++i) {
        float* head = a.x + t * a.token_stride + h * a.head_dim;
        float& first = head[a.interleaved ? 2 * i : i];
        float& second = head[a.interleaved ? 2 * i + 1 : i + pairs];
        const float cos = a.cos[t * pairs + i], sin = a.sin[t * pairs + i], x = first, y = second;
        first = x * cos - y * sin;
        second = y * cos + x * sin;
      }
}

void glu(const GluArgs& a) {
  for (int64_t t = 0; t < a.T; ++t)
    for (int64_t f = 0; f < a.F; ++f) {
      const double gate = a.gate[t * a.x_stride + f], up = a.up ? a.up[t * a.x_stride + f] : 1;
      store(a.y, a.y_dtype, t * a.y_stride + f, activate(a.activation, gate) * up);
    }
}

void cast_rows(const CastRowsArgs& a) {
  for (int64_t i = 0; i < a.n; ++i)
    for (int64_t c = 0; c < std::max(a.width, a.padded); ++c) {
      const int64_t at = (a.slots ? a.slots[i] : i) * a.to_stride + c;
      const float value = c < a.width ? a.from[i * a.from_stride + c] : 0.0f;
      if (a.to_dtype == DType::kF16)
        static_cast<f16*>(a.to)[at] = to_f16(value);
      else
        store(a.to, a.to_dtype, at, value);
    }
}

void combine_rows(const CombineRowsArgs& a) {
  for (int64_t t = 0; t < a.T; ++t) {
    const double base = !a.adds ? 0 : a.gate ? 1 / (1 + std::exp(-static_cast<double>(a.gate[t]))) : 1;
    for (int64_t c = 0; c < a.C; ++c) {
      float& y = a.y[t * a.y_stride + c];
      double sum = a.adds ? base * y : 0;
      for (int64_t k = t * a.K; k < (t + 1) * a.K; ++k)
        sum += static_cast<double>(a.weights[k]) * a.x[a.row_of[k] * a.C + c];
      y = static_cast<float>(sum);
    }
  }
}

}  // namespace millrace::portable
