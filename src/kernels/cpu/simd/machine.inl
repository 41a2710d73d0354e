// Loops that do nothing but use the machine, on Vec.

inline uint64_t read_memory(const std::byte* at, int64_t bytes) {
  Vec sums[4] = {Vec::zero(), Vec::zero(), Vec::zero(), Vec::zero()};
  for (int64_t i = 0; i < bytes; i += 256)
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const std::byte* line = at + i + 64 * j;
      _mm_prefetch(reinterpret_cast<const char*>(line + 8192), _MM_HINT_T1);
      sums[j] = sums[j] + Vec::load(reinterpret_cast<const float*>(line));
    }
  const float all = ((sums[0] + sums[1]) + (sums[2] + sums[3])).sum();
  return static_cast<uint64_t>(all != 0);
}

inline int64_t multiply_f32(int64_t rounds) {
  constexpr int kChains = kFmaChains;
  Vec sums[kChains];
  for (Vec& sum : sums) sum = Vec::zero();
  const Vec a = Vec::set(0.5f), b = Vec::set(1.0f);
  for (int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 16
    for (int j = 0; j < kChains; ++j) sums[j] = Vec::fma(sums[j], a, b);
  }
  float all = 0;
  for (const Vec& sum : sums) all += sum.sum();
  return rounds * kChains * 32 + (all < 0);  // the sums are positive; using them keeps the loop
}
