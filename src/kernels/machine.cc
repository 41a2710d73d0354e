#include "kernels/machine.h"

#include <sys/mman.h>

#include <chrono>
#include <vector>

#include "base/check.h"
#include "base/cpu.h"
#include "kernels/cpu/machine_loops.h"
#include "kernels/parallel.h"

namespace millrace {
namespace {

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

MachineLoops loops_here() {
  if (!cpu_has(Isa::kAvx2)) return portable::machine_loops();
  MachineLoops loops = cpu_has(Isa::kAvx512) ? avx512::machine_loops() : avx2::machine_loops();
  if (cpu_has(Isa::kAvx512Bf16)) loops.multiply_bf16 = avx512::multiply_bf16_pairs;
  if (cpu_has(Isa::kAmx)) {
    loops.multiply_bf16_tiles = amx::multiply_bf16_tiles;
    loops.multiply_int8_tiles = amx::multiply_int8_tiles;
  }
  return loops;
}

// The best of some rounds of work(member) on `threads` threads, in units of work per second. work returns its units.
template <class Work>
double best_rate(int threads, int rounds, const Work& work) {
  double best = 0;
  for (int round = 0; round < rounds; ++round) {
    std::atomic<int64_t> units = 0;
    const auto start = std::chrono::steady_clock::now();
    parallel_team([&](const TeamMember& me) { units += work(me); }, threads);
    best = std::max(best, static_cast<double>(units) / seconds_since(start));
  }
  return best;
}

// Memory that is larger than what the caches keep, every page of it touched.
class ReadBuffer {
 public:
  static constexpr int64_t kBytes = int64_t{512} << 20;
  ReadBuffer() {
    void* memory = ::mmap(nullptr, kBytes + kSlack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    MR_CHECK(memory != MAP_FAILED, "no memory for {} bytes", kBytes);
    ::madvise(memory, kBytes + kSlack, MADV_HUGEPAGE);
    data_ = static_cast<std::byte*>(memory);
    parallel_ranges(kBytes, 1 << 21, [&](int64_t begin, int64_t end) { std::fill(data_ + begin, data_ + end, kByte); });
  }
  ~ReadBuffer() { ::munmap(data_, kBytes + kSlack); }
  ReadBuffer(const ReadBuffer&) = delete;
  ReadBuffer& operator=(const ReadBuffer&) = delete;
  const std::byte* data() const { return data_; }

 private:
  static constexpr int64_t kSlack = 1 << 16;  // prefetches look ahead
  static constexpr std::byte kByte{1};
  std::byte* data_;
};

double read_rate(const MachineLoops& loops, const ReadBuffer& buffer, int threads) {
  std::atomic<uint64_t> seen = 0;
  const double rate = best_rate(threads, 8, [&](const TeamMember& me) {
    const int64_t share = ReadBuffer::kBytes / me.size / 1024 * 1024;
    seen += loops.read(buffer.data() + me.index * share, share);
    return share;
  });
  MR_CHECK(seen.load() != 0, "the buffer reads as zeros");
  return rate;
}

double compute_rate(int64_t (*loop)(int64_t), int64_t rounds, int threads) {
  return loop ? best_rate(threads, 6, [&](const TeamMember&) { return loop(rounds); }) : 0;
}

double region_us(int threads) {
  constexpr int kRegions = 1000;
  double best = 1e9;
  for (int round = 0; round < 4; ++round) {
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < kRegions; ++i) parallel_team([](const TeamMember&) {}, threads);
    best = std::min(best, seconds_since(start) * 1e6 / kRegions);
  }
  return best;
}

}  // namespace

MachineCeilings measure_machine() {
  const MachineLoops loops = loops_here();
  const int threads = compute_threads();
  const ReadBuffer buffer;
  return {.read_bytes_per_s_one = read_rate(loops, buffer, 1),
          .read_bytes_per_s = read_rate(loops, buffer, threads),
          .f32_flops = compute_rate(loops.multiply_f32, 3000000, threads),
          .bf16_vector_flops = compute_rate(loops.multiply_bf16, 3000000, threads),
          .int8_vector_ops = compute_rate(loops.multiply_int8, 3000000, threads),
          .bf16_tile_flops = compute_rate(loops.multiply_bf16_tiles, 500000, threads),
          .int8_tile_ops = compute_rate(loops.multiply_int8_tiles, 500000, threads),
          .region_us = region_us(threads)};
}

}  // namespace millrace
