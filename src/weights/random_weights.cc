#include "weights/random_weights.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

#include "base/random.h"
#include "models/families/names.h"

namespace millrace {
namespace {

uint64_t hash_of(std::string_view name) {  // FNV-1a
  uint64_t hash = 0xcbf29ce484222325u;
  for (const char c : name) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3u;
  return hash;
}

void put(float* to, float x) { *to = x; }
void put(bf16* to, float x) { *to = to_bf16(x); }
void put(f16* to, float x) { *to = to_f16(x); }

// Calls fill(first element, counter, how many) for every run of eight elements.
template <class T, class Fill>
void in_runs(Tensor& tensor, const Fill& fill) {
  const int64_t n = tensor.numel();
  T* data = tensor.data<T>();
#pragma omp parallel for schedule(static)
  for (int64_t run = 0; run < (n + 7) / 8; ++run)
    fill(data + 8 * run, static_cast<uint64_t>(run), static_cast<int>(std::min<int64_t>(8, n - 8 * run)));
}

// Eight elements from the eight 16-bit parts of one Philox block, each one of 4096 evenly spaced values.
template <class T>
void fill_uniform(Tensor& tensor, uint64_t seed, uint64_t stream, float half_width) {
  std::array<T, 4096> values;
  for (int i = 0; i < 4096; ++i) put(&values[i], (static_cast<float>(i) - 2047.5f) * (half_width / 2048.0f));
  in_runs<T>(tensor, [&values, seed, stream](T* to, uint64_t run, int count) {
    const auto words = philox(seed, run, stream);
    for (int i = 0; i < count; ++i) to[i] = values[(words[i / 2] >> (16 * (i % 2))) & 4095];
  });
}

// Box and Muller: two elements from two words.
template <class T>
void fill_normal(Tensor& tensor, uint64_t seed, uint64_t stream, float sigma) {
  in_runs<T>(tensor, [=](T* to, uint64_t run, int count) {
    for (int first = 0; first < count; first += 4) {
      const auto words = philox(seed, 2 * run + static_cast<uint64_t>(first / 4), stream);
      for (int i = first; i < std::min(first + 4, count); i += 2) {
        const float radius = sigma * std::sqrt(-2.0f * std::log(uniform_open(words[i % 4])));
        const float angle = 2.0f * std::numbers::pi_v<float> * uniform_open(words[i % 4 + 1]);
        put(to + i, radius * std::cos(angle));
        if (i + 1 < count) put(to + i + 1, radius * std::sin(angle));
      }
    }
  });
}

template <class T>
void fill_constant(Tensor& tensor, float value) {
  in_runs<T>(tensor, [=](T* to, uint64_t, int count) {
    for (int i = 0; i < count; ++i) put(to + i, value);
  });
}

enum class Law { kUniform, kNormal };

template <class T>
void fill(Tensor& tensor, const std::string& name, Law law, uint64_t seed, float sigma) {
  const bool bias = name.ends_with(".bias");
  if (name.ends_with("norm.weight"))
    fill_constant<T>(tensor, 1.0f);
  else if (bias && law == Law::kNormal)
    fill_constant<T>(tensor, 0.0f);
  else if (law == Law::kNormal)
    fill_normal<T>(tensor, seed, hash_of(name), sigma);
  else
    fill_uniform<T>(tensor, seed, hash_of(name), sigma * std::sqrt(3.0f));
}

DecoderWeights random_weights(const DecoderSpec& spec, DType dtype, Law law, uint64_t seed, double sigma) {
  DecoderWeights weights;
  for (const TensorNeed& need : needed_tensors(spec)) {
    Tensor tensor = Tensor::empty(dtype, Shape(need.shape));
    const auto width = static_cast<float>(sigma);
    if (dtype == DType::kF32)
      fill<float>(tensor, need.name, law, seed, width);
    else if (dtype == DType::kBf16)
      fill<bf16>(tensor, need.name, law, seed, width);
    else if (dtype == DType::kF16)
      fill<f16>(tensor, need.name, law, seed, width);
    else
      MR_CHECK(false, "random weights of {}", dtype_name(dtype));
    weights[need.name] = std::move(tensor);
  }
  return weights;
}

}  // namespace

DecoderWeights dummy_weights(const DecoderSpec& spec, DType dtype, uint64_t seed) {
  return random_weights(spec, dtype, Law::kUniform, seed, 0.02);
}

DecoderWeights initial_weights(const DecoderSpec& spec, DType dtype, uint64_t seed, double sigma) {
  return random_weights(spec, dtype, Law::kNormal, seed, sigma);
}

}  // namespace millrace
