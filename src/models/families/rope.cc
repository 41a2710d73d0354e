#include "models/families/rope.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "base/check.h"

namespace millrace {
namespace {

float powf32(float base, float exponent) {
  return static_cast<float>(std::pow(static_cast<double>(base), static_cast<double>(exponent)));
}

// base^(2 i / dims) for each pair i of elements: positions per radian.
std::vector<float> wavelengths(float base, int64_t dims) {
  std::vector<float> out(dims / 2);
  for (int64_t i = 0; i < dims / 2; ++i) out[i] = powf32(base, static_cast<float>(2 * i) / static_cast<float>(dims));
  return out;
}

std::vector<float> plain(float base, int64_t dims) {
  std::vector<float> inv_freq = wavelengths(base, dims);
  for (float& f : inv_freq) f = 1.0f / f;
  return inv_freq;
}

std::vector<float> linear(const Rope& rope) {
  std::vector<float> inv_freq = plain(static_cast<float>(rope.theta), rope.dims);
  for (float& f : inv_freq) f /= static_cast<float>(rope.factor);
  return inv_freq;
}

// NTK by the current length: theta grows once the sequence is longer than the model was trained at.
std::vector<float> dynamic(const Rope& rope, int64_t length) {
  const auto theta = static_cast<float>(rope.theta);
  if (length <= rope.original_max_positions) return plain(theta, rope.dims);
  const auto factor = static_cast<float>(rope.factor);
  const float stretched =
      factor * static_cast<float>(length) / static_cast<float>(rope.original_max_positions) - (factor - 1.0f);
  const auto exponent = static_cast<float>(static_cast<double>(rope.dims) / static_cast<double>(rope.dims - 2));
  return plain(theta * powf32(stretched, exponent), rope.dims);
}

// Qwen 1: theta grows in powers of two of the length beyond the trained one.
std::vector<float> qwen_ntk(const Rope& rope, int64_t length) {
  const double doublings =
      std::log2(static_cast<double>(length) / static_cast<double>(rope.original_max_positions)) + 1;
  const double alpha = length < 1 ? 1 : std::max(std::exp2(std::ceil(doublings)) - 1, 1.0);
  const double exponent = static_cast<double>(rope.dims) / static_cast<double>(rope.dims - 2);
  return plain(static_cast<float>(rope.theta * std::pow(alpha, exponent)), rope.dims);
}

// The (fractional) pair that turns `rotations` times within the trained length.
double yarn_correction_dim(const Rope& rope, double rotations) {
  const auto length = static_cast<double>(rope.original_max_positions);
  return static_cast<double>(rope.dims) * std::log(length / (rotations * 2 * std::numbers::pi)) /
         (2 * std::log(rope.theta));
}

// YaRN (Peng et al., 2023): fast pairs keep their frequency, slow ones are divided by the factor, a ramp between.
std::vector<float> yarn(const Rope& rope) {
  double low = yarn_correction_dim(rope, rope.beta_fast), high = yarn_correction_dim(rope, rope.beta_slow);
  if (rope.truncate) low = std::floor(low), high = std::ceil(high);
  low = std::max(low, 0.0), high = std::min(high, static_cast<double>(rope.dims - 1));
  if (low == high) high += 0.001;
  const std::vector<float> wave = wavelengths(static_cast<float>(rope.theta), rope.dims);
  std::vector<float> inv_freq(wave.size());
  for (size_t i = 0; i < wave.size(); ++i) {
    const float ramp = (static_cast<float>(i) - static_cast<float>(low)) / static_cast<float>(high - low);
    const float kept = 1.0f - std::clamp(ramp, 0.0f, 1.0f);
    const float interpolated = 1.0f / (static_cast<float>(rope.factor) * wave[i]);
    inv_freq[i] = interpolated * (1.0f - kept) + 1.0f / wave[i] * kept;
  }
  return inv_freq;
}

double yarn_mscale(double factor, double mscale) { return factor <= 1 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0; }

double yarn_attention_factor(const Rope& rope) {
  if (rope.mscale != 0 && rope.mscale_all_dim != 0)
    return yarn_mscale(rope.factor, rope.mscale) / yarn_mscale(rope.factor, rope.mscale_all_dim);
  return yarn_mscale(rope.factor, 1);
}

// LongRoPE (Ding et al., 2024): every pair has a factor of its own.
std::vector<float> longrope(const Rope& rope, int64_t length) {
  const bool is_long = rope.switches_at_original ? length > rope.original_max_positions : rope.factor > 1;
  const std::vector<double>& factors = is_long ? rope.long_factor : rope.short_factor;
  std::vector<float> inv_freq = wavelengths(static_cast<float>(rope.theta), rope.dims);
  MR_CHECK(factors.size() == inv_freq.size(), "{} longrope factors for {} pairs", factors.size(), inv_freq.size());
  for (size_t i = 0; i < inv_freq.size(); ++i) inv_freq[i] = 1.0f / (static_cast<float>(factors[i]) * inv_freq[i]);
  return inv_freq;
}

double longrope_attention_factor(const Rope& rope) {
  if (rope.factor <= 1) return 1;
  return std::sqrt(1 + std::log(rope.factor) / std::log(static_cast<double>(rope.original_max_positions)));
}

// Llama 3.1: long waves are divided by the factor, short ones kept, those between blended.
std::vector<float> llama3(const Rope& rope) {
  const auto length = static_cast<float>(rope.original_max_positions), factor = static_cast<float>(rope.factor);
  const auto low = static_cast<float>(rope.low_freq_factor);
  const auto longest = static_cast<float>(static_cast<double>(rope.original_max_positions) / rope.low_freq_factor);
  const auto shortest = static_cast<float>(static_cast<double>(rope.original_max_positions) / rope.high_freq_factor);
  std::vector<float> inv_freq = plain(static_cast<float>(rope.theta), rope.dims);
  for (float& f : inv_freq) {
    const float wavelength = static_cast<float>(2 * std::numbers::pi) / f;
    if (wavelength > longest) {
      f /= factor;
    } else if (wavelength >= shortest) {
      const float smooth =
          (length / wavelength - low) / static_cast<float>(rope.high_freq_factor - rope.low_freq_factor);
      f = (1.0f - smooth) * f / factor + smooth * f;
    }
  }
  return inv_freq;
}

std::vector<float> inverse_frequencies(const Rope& rope, int64_t length) {
  switch (rope.scaling) {
    case Rope::Scaling::kNone:
      break;
    case Rope::Scaling::kLinear:
      return linear(rope);
    case Rope::Scaling::kDynamic:
      return dynamic(rope, length);
    case Rope::Scaling::kYarn:
      return yarn(rope);
    case Rope::Scaling::kLongRope:
      return longrope(rope, length);
    case Rope::Scaling::kLlama3:
      return llama3(rope);
    case Rope::Scaling::kQwenNtk:
      return qwen_ntk(rope, length);
  }
  return plain(static_cast<float>(rope.theta), rope.dims);
}

double attention_factor(const Rope& rope) {
  if (rope.attention_factor != 0) return rope.attention_factor;
  if (rope.scaling == Rope::Scaling::kYarn) return yarn_attention_factor(rope);
  if (rope.scaling == Rope::Scaling::kLongRope) return longrope_attention_factor(rope);
  return 1;
}

}  // namespace

RopeFrequencies rope_frequencies(const Rope& rope, int64_t length) {
  const std::vector<float> inv_freq = inverse_frequencies(rope, length);
  return {{inv_freq.begin(), inv_freq.end()}, attention_factor(rope)};
}

int64_t RotationLengths::last_of_group(int64_t length) const {
  if (limit == 0) return std::numeric_limits<int64_t>::max();
  if (length <= limit) return limit;
  if (beyond == Beyond::kEveryLength) return length;
  if (beyond == Beyond::kOnce) return std::numeric_limits<int64_t>::max();
  int64_t last = limit;
  while (last < length) last *= 2;
  return last;
}

int64_t RotationLengths::group(int64_t length) const {
  return limit == 0 || length <= limit ? 0 : last_of_group(length);
}

RotationLengths rotation_lengths(const Rope& rope) {
  if (!rope.depends_on_length()) return {};
  using Beyond = RotationLengths::Beyond;
  if (rope.scaling == Rope::Scaling::kQwenNtk) return {rope.original_max_positions, Beyond::kDoublings};
  if (rope.scaling == Rope::Scaling::kLongRope) return {rope.original_max_positions, Beyond::kOnce};
  return {rope.original_max_positions, Beyond::kEveryLength};
}

}  // namespace millrace
