// The implementations of gemm_a16, for the list in kernels/gemm_a16.cc, and the layout they share.
#pragma once
#include <bit>

#include "kernels/gemm_a16.h"

namespace millrace {

// How many threads a product is worth: small ones stay on the caller.
inline int gemm_a16_threads(const GemmA16Args& a) { return a.M * a.N * a.K <= (1 << 18) ? 1 : INT32_MAX; }

// Memory of a thread's own where panels are multiplied without tiles: a stretch of two panels, sums of 512 rows.
constexpr int64_t kA16OwnBytes = (16 << 10) + 2 * 512 * 16 * 4;

// What x as integers of sixteen bits takes: with a sum for each scale of a chunk, and a scale for each row.
constexpr int64_t a16_words_bytes(int64_t rows, int64_t K) {
  return (rows * (a16_padded_k(K) * 2 + a16_padded_k(K) / kA16ChunkK * 4 * 4 + 4) + 63) / 64 * 64;
}

// The nibbles of a chunk with its sixteen columns beside each other. A dword is two words of a column.
constexpr int64_t kA16ChunkDwords = kA16ChunkK / 8;
struct alignas(64) TurnedChunk {
  uint32_t dwords[kA16ChunkDwords][16];
};

// Where a panel's chunks lie.
struct A16Layout {
  explicit A16Layout(const GemmA16Args& a)
      : padded_k(a16_padded_k(a.K)),
        chunk_bytes(a16_chunk_bytes(a.group, a.K)),
        panel_bytes(padded_k / kA16ChunkK * chunk_bytes),
        panels((a.N + 15) / 16),
        chunk_scales(a16_chunk_scales(a.group, a.K)) {}
  int64_t padded_k, chunk_bytes, panel_bytes, panels, chunk_scales;
};

// A scale with its zero.
constexpr uint32_t kZeroMask = 0xff;
inline float int4_scale(uint32_t word) { return std::bit_cast<float>(word & ~kZeroMask); }
inline int int4_zero(uint32_t word) { return static_cast<int>(word & kZeroMask); }

// The best product into scratch, then the unit on it: what gemm_gated_a16 means.
void gemm_a16_then_glu(const GatedGemmA16Args&);

namespace portable {
void gemm_a16(const GemmA16Args&);
// The factor of x[m,k] in y[m,n].
float a16_weight(const GemmA16Args&, const A16Layout&, int64_t n, int64_t k);
}  // namespace portable
namespace avx2 {
void gemm_a16(const GemmA16Args&);
}
namespace avx512 {
void gemm_a16(const GemmA16Args&);
}  // namespace avx512
namespace amx {
void gemm_a16(const GemmA16Args&);
void gemm_gated_a16(const GatedGemmA16Args&);
int64_t gemm_a16_scratch_bytes(int64_t max_rows, int64_t K);
// Memory of each thread's own in products of many rows, or of many products.
int64_t gemm_a16_own_bytes();
bool gemm_gated_a16_packs(int64_t M, int64_t N);
int64_t gemm_a16_packed_x_bytes(int64_t M, int64_t K);
}  // namespace amx

}  // namespace millrace
