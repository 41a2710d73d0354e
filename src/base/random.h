// Counter-based random numbers: the value is a pure function of (seed, counter), so nothing that runs beside a request
// can shift its stream. Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
#pragma once
#include <array>
#include <cmath>
#include <cstdint>
#include <numbers>

namespace millrace {

constexpr std::array<uint32_t, 4> philox(uint64_t key, uint64_t counter_low, uint64_t counter_high = 0) {
  auto k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
  std::array<uint32_t, 4> x = {static_cast<uint32_t>(counter_low), static_cast<uint32_t>(counter_low >> 32),
                               static_cast<uint32_t>(counter_high), static_cast<uint32_t>(counter_high >> 32)};
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53u} * x[0], p1 = uint64_t{0xCD9E8D57u} * x[2];
    x = {static_cast<uint32_t>(p1 >> 32) ^ x[1] ^ k0, static_cast<uint32_t>(p1),
         static_cast<uint32_t>(p0 >> 32) ^ x[3] ^ k1, static_cast<uint32_t>(p0)};
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return x;
}

// Uniform in the open interval (0, 1).
constexpr float uniform_open(uint32_t bits) { return (static_cast<float>(bits >> 9) + 0.5f) * 0x1p-23f; }

// A stream of numbers from one seed, for tests, initial weights and synthetic data. Satisfies
// UniformRandomBitGenerator.
class Random {
 public:
  using result_type = uint32_t;
  explicit Random(uint64_t seed) : seed_(seed) {}
  static constexpr uint32_t min() { return 0; }
  static constexpr uint32_t max() { return UINT32_MAX; }
  uint32_t operator()() {
    if (used_ == 4) {
      block_ = philox(seed_, counter_++);
      used_ = 0;
    }
    return block_[used_++];
  }
  float uniform() { return uniform_open((*this)()); }
  // Uniform integer in [0, bound); bound > 0.
  uint32_t below(uint32_t bound) { return static_cast<uint32_t>((uint64_t{(*this)()} * bound) >> 32); }
  // Standard normal (Box and Muller).
  float normal() {
    const double radius = std::sqrt(-2.0 * std::log(static_cast<double>(uniform())));
    return static_cast<float>(radius * std::cos(2.0 * std::numbers::pi * static_cast<double>(uniform())));
  }

 private:
  uint64_t seed_, counter_ = 0;
  std::array<uint32_t, 4> block_{};
  int used_ = 4;
};

}  // namespace millrace
