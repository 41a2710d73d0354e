// Fast parts of quantising and packing integers; what they compute is the plain code in quantize_rows.cc, gemm_w8a8.cc
// and gemm_a16_pack.cc, bit for bit.
#pragma once
#include <cstddef>
#include <cstdint>

#include "base/dtype.h"

namespace millrace::avx512 {

// Bits of the largest |w[k]|, as a float's, over the K elements of a row.
uint32_t largest_magnitude(const void* w, DType dtype, int64_t K);
// values[k] = round(w[k] * factor) for k below the result, a multiple of 16; |w[k] * factor| is at most 127.
int64_t scale_to_int8(const void* w, DType dtype, int64_t K, float factor, int8_t* values);

// Sixteen rows of values, K apart, into a panel of W8A8 and its sums, for k below the result, a multiple of 64.
int64_t pack_w8a8_panel(const int8_t* values, int64_t K, std::byte* panel, int32_t* sums);
// A chunk of W4A16 without its scales: 128 values of a row.
void pack_int4_chunk(const uint8_t* values, std::byte* to);

}  // namespace millrace::avx512
