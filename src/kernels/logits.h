// Passes over one row of logits [V]: what greedy choice, sampling and log-probabilities are made of. One thread each;
// rows are independent. Minus infinity is a banned token; NaN counts as minus infinity.
#pragma once
#include <bit>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <span>

#include "base/random.h"
#include "kernels/impl.h"

namespace millrace {

struct NoiseKey {
  uint64_t seed, position;
};
// Exponential noise e as -log(e): Gumbel noise.
inline float gumbel(uint32_t bits) { return -std::log(-std::log(uniform_open(bits))); }
inline constexpr float kGumbelSlope = std::numbers::ln2_v<float> / (1 << 23);
inline constexpr float kGumbelMost = (127 + 32) * std::numbers::ln2_v<float> + 1e-3f;  // a little more for rounding
// At least gumbel(bits), at most 0.09 more where that is above 3: -log(-log(u)) <= -log(1 - u), and the logarithm to
// base two of a float is at least its bits, read as a number, less the bias (a chord of each octave).
inline float gumbel_bound(uint32_t bits) {
  const auto rest = static_cast<float>((~bits & ~511u) | 256u);  // (1 - u) * 2^32, exact
  return kGumbelMost - kGumbelSlope * static_cast<float>(std::bit_cast<uint32_t>(rest));
}
inline constexpr float kMostNoise = 17;  // no gumbel_bound is larger

inline constexpr int kMassBounds = 8;
inline constexpr int64_t kLogitBlock =
    4096;  // stay in the first-level cache, and float32 sums of them are exact enough

// One implementation of all passes.
struct LogitKernels {
  // The largest value; minus infinity where there is none.
  float (*largest)(const float* x, int64_t n);
  // The lowest index whose value equals `value`; n where none does.
  int64_t (*find)(const float* x, int64_t n, float value);
  // Sum of e^(x[i] - shift), in blocks of float32 added up in double. shift is finite.
  double (*sum_exp)(const float* x, int64_t n, float shift);
  // How many values are larger than `bound`.
  int64_t (*count_larger)(const float* x, int64_t n, float bound);
  // Indices, rising, of values >= bound from `from` on; stops when `most` were found. Returns how many; *next is where
  // the scan stopped.
  int64_t (*collect)(const float* x, int64_t n, float bound, int64_t from, int32_t* indices, int64_t most,
                     int64_t* next);
  // masses[b]: sum of e^(x[i] - shift) where x[i] >= bounds[b], kMassBounds of them, in blocks of float32 added up in
  // double. shift is finite and no value is larger.
  void (*masses)(const float* x, int64_t n, float shift, const float* bounds, double* masses);
  // to[i] = e^(x[i] - shift) but for a relative error of 2e-4, and their sum. shift is finite and no value is larger.
  // n is at most kLogitBlock.
  float (*exponentials)(const float* x, int64_t n, float shift, float* to);
  // Sum of the values that are at least `bound`. n is at most kLogitBlock.
  float (*sum_at_least)(const float* x, int64_t n, float bound);
  // Values in [low, high), in order, and their ids: ids[i], or i where `ids` is null. Returns how many. Both may be
  // written over what is read.
  int64_t (*between)(const float* x, const int32_t* ids, int64_t n, float low, float high, float* values,
                     int32_t* values_ids);
  // x[i] *= factor. Returns the largest product; minus infinity where there is none.
  float (*scale)(float* x, int64_t n, float factor);
  // Values that are not at least `bound` become minus infinity.
  void (*ban_below)(float* x, int64_t n, float bound);
  // Who could win: indices, rising, of all values with x[i] + gumbel(bits) >= best, and maybe of others for which
  // gumbel_bound(bits) is enough, and their bits: word i % 4 of philox(seed, i / 4, position). Looks at values from
  // `from`, a multiple of 128, on; stops when fewer than 128 places of `most` are left. Returns how many; *next is
  // where it stopped.
  int64_t (*contenders)(const float* x, int64_t n, float best, const NoiseKey& key, int64_t from, int32_t* indices,
                        uint32_t* bits, int64_t most, int64_t* next);
};
const LogitKernels& logit_kernels();
struct LogitImpl {
  std::string_view name;
  Isa needs;
  LogitKernels kernels;
};
std::span<const LogitImpl> logit_impls();

}  // namespace millrace
