// Tiles in ordinary memory, their products by AVX-512: for running the tile kernels' tests where there are no tiles
// (MILLRACE_EMULATE_TILES; never in a release). What the instructions refuse ends the process: tiles that are not
// configured, and products of shapes that do not fit. Products of bf16 differ from real ones in their last bits.
#pragma once
#include <immintrin.h>

#include <bit>
#include <cstdint>
#include <cstring>

#include "base/check.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")
namespace millrace::amx {
namespace emulated {

// What ldtilecfg reads.
struct Shapes {
  uint8_t palette, start_row, reserved[14];
  uint16_t row_bytes[16];
  uint8_t rows[16];
};
struct Registers {
  Shapes shapes;
  alignas(64) std::byte tiles[8][16][64];
};
inline thread_local Registers registers{};

inline void configure(const Shapes& shapes) {
  std::memset(&registers, 0, sizeof registers);
  registers.shapes = shapes;
  MR_CHECK(registers.shapes.palette == 1, "tiles of palette {}", registers.shapes.palette);
  for (int i = 0; i < 8; ++i)
    MR_CHECK(registers.shapes.rows[i] <= 16 && registers.shapes.row_bytes[i] <= 64, "a shape of tile {}", i);
}
inline void release() { std::memset(&registers, 0, sizeof registers); }

// Rows of a tile; those beyond are zero after every write.
inline int rows_of(int tile) {
  const int rows = registers.shapes.rows[tile];
  MR_CHECK(registers.shapes.palette == 1 && rows > 0 && registers.shapes.row_bytes[tile] > 0, "tile {} has no shape",
           tile);
  return rows;
}
inline void zero(int tile) {
  rows_of(tile);
  std::memset(registers.tiles[tile], 0, sizeof registers.tiles[tile]);
}
inline void load(int tile, const void* at, int64_t stride) {
  zero(tile);
  for (int r = 0; r < rows_of(tile); ++r)
    std::memcpy(registers.tiles[tile][r], static_cast<const char*>(at) + r * stride, registers.shapes.row_bytes[tile]);
}
inline void store(int tile, void* at, int64_t stride) {
  for (int r = 0; r < rows_of(tile); ++r)
    std::memcpy(static_cast<char*>(at) + r * stride, registers.tiles[tile][r], registers.shapes.row_bytes[tile]);
}

// sum[m] = add(sum[m], dword k of a[m] everywhere, b[k]) for each m and k. Rows of whole tiles are 64 bytes; shorter
// ones end in zeros.
template <class Add>
void multiply(int sum, int a, int b, const Add& add) {
  const Shapes& shapes = registers.shapes;
  const int rows = rows_of(sum), depth = rows_of(b);
  MR_CHECK(rows_of(a) == rows && shapes.row_bytes[a] == depth * 4 && shapes.row_bytes[b] == shapes.row_bytes[sum],
           "tiles {} += {} * {} do not fit", sum, a, b);
  for (int m = 0; m < rows; ++m) {
    __m512i acc = _mm512_load_si512(registers.tiles[sum][m]);
    for (int k = 0; k < depth; ++k) {
      int32_t dword;
      std::memcpy(&dword, registers.tiles[a][m] + k * 4, 4);
      acc = add(acc, _mm512_set1_epi32(dword), _mm512_load_si512(registers.tiles[b][k]));
    }
    _mm512_store_si512(registers.tiles[sum][m], acc);
  }
}
inline void multiply_bf16(int sum, int a, int b) {
  multiply(sum, a, b, [](__m512i acc, __m512i x, __m512i y) {
    return _mm512_castps_si512(
        _mm512_dpbf16_ps(_mm512_castsi512_ps(acc), reinterpret_cast<__m512bh>(x), reinterpret_cast<__m512bh>(y)));
  });
}
inline void multiply_uint8(int sum, int a, int b) {
  multiply(sum, a, b, [](__m512i acc, __m512i x, __m512i y) { return _mm512_dpbusd_epi32(acc, x, y); });
}
inline void multiply_int8(int sum, int a, int b) {
  const __m512i top = _mm512_set1_epi8(static_cast<char>(0x80));  // x + 128 is not negative
  multiply(sum, a, b, [&](__m512i acc, __m512i x, __m512i y) {
    const __m512i more = _mm512_dpbusd_epi32(_mm512_setzero_si512(), top, y);
    return _mm512_sub_epi32(_mm512_dpbusd_epi32(acc, _mm512_xor_si512(x, top), y), more);
  });
}

}  // namespace emulated

template <class TileShapes>
void tile_configure(const TileShapes& shapes) {
  static_assert(sizeof shapes == sizeof(emulated::Shapes));
  emulated::configure(std::bit_cast<emulated::Shapes>(shapes));
}
inline void tile_release() { emulated::release(); }
template <int kTile>
void tile_zero() {
  emulated::zero(kTile);
}
template <int kTile>
void tile_load(const void* at, int64_t stride) {
  emulated::load(kTile, at, stride);
}
template <int kTile>
void tile_load_passing(const void* at, int64_t stride) {
  emulated::load(kTile, at, stride);
}
template <int kTile>
void tile_store(void* at, int64_t stride) {
  emulated::store(kTile, at, stride);
}
template <int kSum, int kA, int kB>
void tile_multiply() {
  emulated::multiply_bf16(kSum, kA, kB);
}
template <int kSum, int kA, int kB>
void tile_multiply_int8() {
  emulated::multiply_int8(kSum, kA, kB);
}
template <int kSum, int kA, int kB>
void tile_multiply_uint8() {
  emulated::multiply_uint8(kSum, kA, kB);
}

}  // namespace millrace::amx
#pragma GCC pop_options
