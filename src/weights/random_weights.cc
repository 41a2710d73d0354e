#include "weights/random_weights.h"

#include <algorithm>
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

// Eight elements from the eight 16-bit halves of one Philox block.
template <class T>
void fill_uniform(Tensor& tensor, uint64_t seed, uint64_t stream, float half_width) {
  const float step = half_width / 32768.0f;
  in_runs<T>(tensor, [=](T* to, uint64_t run, int count) {
    const auto words = philox(seed, run, stream);
    for (int i = 0; i < count; ++i) {
      const uint32_t bits = (words[i / 2] >> (16 * (i % 2))) & 0xffff;
      put(to + i, (static_cast<float>(bits) - 32767.5f) * step);
    }
  });
}

// Box and Muller: two elements from two words.
template <class T>
void fill_normal(Tensor& tensor, uint64_t seed, uint64_t stream, float sigma) {
  in_runs<T>(tensor, [=](T* to, uint64_t run, int count) {
    for (int half = 0; 4 * half < count; ++half) {
      const auto words = philox(seed, 2 * run + half, stream);
      for (int i = 0; i < 4 && 4 * half + i < count; ++i) {
        const float radius = sigma * std::sqrt(-2.0f * std::log(uniform_open(words[i / 2 * 2])));
        const float angle = 2.0f * std::numbers::pi_v<float> * uniform_open(words[i / 2 * 2 + 1]);
        put(to + 4 * half + i, radius * (i % 2 == 0 ? std::cos(angle) : std::sin(angle)));
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
