// What the kernel tests share: random operands and comparing.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "base/dtype.h"
#include "base/random.h"

namespace millrace {

// Zeroed memory on a cache line's boundary.
struct Aligned {
  explicit Aligned(int64_t bytes) : size(static_cast<size_t>((bytes + 127) / 64 * 64)) {
    data = static_cast<std::byte*>(std::aligned_alloc(64, size));
    std::memset(data, 0, size);
  }
  ~Aligned() { std::free(data); }
  Aligned(const Aligned&) = delete;
  Aligned& operator=(const Aligned&) = delete;
  size_t size;
  std::byte* data;
};

inline std::vector<float> random_floats(Random& random, int64_t n, float scale = 1) {
  std::vector<float> values(n);
  for (float& x : values) x = scale * random.normal();
  return values;
}

// `values` as bytes of `dtype` (kF32, kBf16 or kF16).
inline std::vector<uint8_t> as_dtype(const std::vector<float>& values, DType dtype) {
  std::vector<uint8_t> bytes(values.size() * dtype_bytes(dtype));
  for (size_t i = 0; i < values.size(); ++i) {
    if (dtype == DType::kF32)
      reinterpret_cast<float*>(bytes.data())[i] = values[i];
    else if (dtype == DType::kBf16)
      reinterpret_cast<bf16*>(bytes.data())[i] = to_bf16(values[i]);
    else
      reinterpret_cast<f16*>(bytes.data())[i] = to_f16(values[i]);
  }
  return bytes;
}

inline float value_at(const std::vector<uint8_t>& bytes, DType dtype, int64_t i) {
  if (dtype == DType::kF32) return reinterpret_cast<const float*>(bytes.data())[i];
  if (dtype == DType::kBf16) return to_float(reinterpret_cast<const bf16*>(bytes.data())[i]);
  return to_float(reinterpret_cast<const f16*>(bytes.data())[i]);
}

// Distance of one step at `x` in `dtype`.
inline float step_of(float x, DType dtype) {
  const float relative = dtype == DType::kF32 ? 0x1p-23f : dtype == DType::kBf16 ? 0x1p-7f : 0x1p-10f;
  return relative * std::abs(x) + 1e-30f;
}

// Whether `found` is a bf16 nearest to some value whose relative distance from x is at most `relative`.
inline bool rounds_nearly(float found, float x, float relative) {
  const float towards = to_float(to_bf16(x * (1 - relative))), away = to_float(to_bf16(x * (1 + relative)));
  return std::min(towards, away) <= found && found <= std::max(towards, away);
}

// Any number of rows below 50 against the same rows of 50: tiles are made for each number apart.
// product.run(gemm, first, rows): rows of N + 1 values.
template <class Product, class Gemm>
void expect_few_rows_as_of_many(const Product& product, Gemm* gemm) {
  const std::vector<float> whole = product.run(gemm, 0, 50);
  for (int64_t rows = 1; rows < 50; ++rows) {
    const std::vector<float> part = product.run(gemm, 0, rows);
    ASSERT_EQ(0, std::memcmp(part.data(), whole.data(), part.size() * sizeof(float))) << rows << " rows";
  }
}

}  // namespace millrace
