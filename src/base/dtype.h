// Element types of tensors, and the conversions that are pure bit work.
#pragma once
#include <bit>
#include <cstdint>
#include <optional>
#include <string_view>

namespace millrace {

enum class DType : uint8_t { kF32, kBf16, kF16, kF64, kI64, kI32, kI16, kI8, kU8, kBool };

// Bytes per element.
constexpr int64_t dtype_bytes(DType dtype) {
  switch (dtype) {
    case DType::kF64:
    case DType::kI64:
      return 8;
    case DType::kF32:
    case DType::kI32:
      return 4;
    case DType::kBf16:
    case DType::kF16:
    case DType::kI16:
      return 2;
    case DType::kI8:
    case DType::kU8:
    case DType::kBool:
      return 1;
  }
  return 0;
}
constexpr bool is_floating(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kBf16 || dtype == DType::kF16 || dtype == DType::kF64;
}
// "float32", "bfloat16", "float16", "int8", ... as torch and vLLM spell them.
std::string_view dtype_name(DType dtype);
// Accepts torch names ("float32", "torch.bfloat16"), vLLM's "half" and "float". Nothing if unknown.
std::optional<DType> dtype_from_name(std::string_view name);

struct bf16 {
  uint16_t bits;
};
struct f16 {
  uint16_t bits;
};

inline float to_float(bf16 x) { return std::bit_cast<float>(static_cast<uint32_t>(x.bits) << 16); }
// Round to nearest even; NaN stays NaN.
inline bf16 to_bf16(float x) {
  const uint32_t u = std::bit_cast<uint32_t>(x);
  if ((u & 0x7fffffffu) > 0x7f800000u) return {static_cast<uint16_t>((u >> 16) | 0x40)};
  return {static_cast<uint16_t>((u + 0x7fffu + ((u >> 16) & 1)) >> 16)};
}
float to_float(f16 x);
// Round to nearest even; overflow becomes infinity.
f16 to_f16(float x);
inline float to_float(float x) { return x; }

}  // namespace millrace
