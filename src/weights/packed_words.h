// Small integers packed into 32-bit words, unpacked to a byte each: rows [begin, end) of a matrix [N, K], K apart. Any
// thread.
#pragma once
#include <cstdint>

namespace millrace {

// AWQ: words [K, N/8]; eight columns share a word, the even ones in its low half. N is a multiple of 8.
void unpack_awq_words(const uint32_t* words, int64_t N, int64_t K, int64_t begin, int64_t end, uint8_t* values);
uint8_t awq_value(const uint32_t* words, int64_t N, int64_t k, int64_t n);

// GPTQ: words [K * bits / 32, N], neighbouring k in a word, lowest bits first; bits is 4, or 8 with 128 taken off. K is
// a multiple of 32 / bits.
void unpack_gptq_words(const uint32_t* words, int bits, int64_t N, int64_t K, int64_t begin, int64_t end,
                       uint8_t* values);

// compressed-tensors: words [N, width], neighbouring k in a word, lowest bits first; bits is 4, or 8 with 128 taken
// off.
void unpack_row_words(const uint32_t* words, int bits, int64_t width, int64_t K, int64_t begin, int64_t end,
                      uint8_t* values);

}  // namespace millrace
