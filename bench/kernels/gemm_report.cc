// Time of every matrix product of two real models, ours and oneDNN's, as fractions of what bounds it: reading the
// weights once, or multiplying. Usage: bench_gemm_report [f32|bf16|f16] [rows ...]
#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <string>
#include <vector>

#include "base/random.h"
#include "bench/kernels/onednn_matmul.h"
#include "kernels/gemm.h"
#include "kernels/machine.h"
#include "kernels/parallel.h"

namespace millrace {
namespace {

struct Shape {
  const char* model;
  const char* name;
  int64_t N, K;
};
constexpr Shape kShapes[] = {
    {"Llama-3.2-1B", "qkv", 3072, 2048},       {"Llama-3.2-1B", "out", 2048, 2048},
    {"Llama-3.2-1B", "gate_up", 16384, 2048},  {"Llama-3.2-1B", "down", 2048, 8192},
    {"Llama-3.2-1B", "lm_head", 128256, 2048}, {"Qwen2.5-0.5B", "qkv", 1152, 896},
    {"Qwen2.5-0.5B", "out", 896, 896},         {"Qwen2.5-0.5B", "gate_up", 9728, 896},
    {"Qwen2.5-0.5B", "down", 896, 4864},
};

std::byte* pages(int64_t bytes) {
  void* memory = ::mmap(nullptr, bytes + (1 << 21), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ::madvise(memory, bytes + (1 << 21), MADV_HUGEPAGE);
  return static_cast<std::byte*>(memory);
}

// Weights of several layers of one shape, so that no cache keeps them from one product to the next.
class Layers {
 public:
  Layers(const Shape& shape, DType dtype)
      : bytes_(gemm_packed_bytes(shape.N, shape.K, dtype)),
        count_(std::max<int64_t>(1, (int64_t{512} << 20) / bytes_)) {
    memory_ = pages(bytes_ * count_);
    Random random(1);
    const int64_t words = bytes_ * count_ / 2;
    auto* out = reinterpret_cast<uint16_t*>(memory_);
    std::vector<uint16_t> noise(1 << 16);
    for (auto& x : noise)
      x = dtype == DType::kF16 ? to_f16(random.normal() * 0.1f).bits : to_bf16(random.normal() * 0.1f).bits;
    for (int64_t i = 0; i < words; ++i) out[i] = noise[i % 65521];
  }
  ~Layers() { ::munmap(memory_, bytes_ * count_ + (1 << 21)); }
  const std::byte* layer(int64_t i) const { return memory_ + i % count_ * bytes_; }
  int64_t bytes() const { return bytes_; }

 private:
  const int64_t bytes_, count_;
  std::byte* memory_;
};

template <class Run>
double median_seconds(const Run& run) {
  std::vector<double> times;
  const auto begin = std::chrono::steady_clock::now();
  for (int i = 0; i < 60; ++i) {
    const auto start = std::chrono::steady_clock::now();
    run(i);
    const auto now = std::chrono::steady_clock::now();
    times.push_back(std::chrono::duration<double>(now - start).count());
    if (i >= 4 && std::chrono::duration<double>(now - begin).count() > 0.4) break;
  }
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

void report(const Shape& shape, DType dtype, const std::vector<int64_t>& rows, const MachineCeilings& ceilings) {
  const Layers layers(shape, dtype);
  for (const int64_t M : rows) {
    if (M > 64 && shape.N > 100000) continue;  // logits are wanted for few rows
    std::byte* x = pages(M * shape.K * 4);
    Random random(2);
    const DType x_dtype = dtype == DType::kBf16 ? DType::kBf16 : DType::kF32;
    for (int64_t i = 0; i < M * shape.K; ++i) {
      if (x_dtype == DType::kBf16)
        reinterpret_cast<bf16*>(x)[i] = to_bf16(random.normal());
      else
        reinterpret_cast<float*>(x)[i] = random.normal();
    }
    auto* y = reinterpret_cast<float*>(pages(M * shape.N * 4));
    std::byte* scratch = pages(gemm_scratch_bytes(M, shape.N, shape.K, dtype));
    const auto ours = [&](int64_t i) {
      gemm({.x = x,
            .w = layers.layer(i),
            .bias = nullptr,
            .y = y,
            .scratch = scratch,
            .M = M,
            .N = shape.N,
            .K = shape.K,
            .x_stride = shape.K,
            .y_stride = shape.N,
            .x_dtype = x_dtype,
            .w_dtype = dtype});
    };
    const double seconds = median_seconds(ours);
    const double flops = 2.0 * static_cast<double>(M * shape.N * shape.K);
    const double peak =
        dtype == DType::kBf16 && ceilings.bf16_tile_flops > 0 ? ceilings.bf16_tile_flops : ceilings.f32_flops;
    const double bound = std::max(static_cast<double>(layers.bytes()) / ceilings.read_bytes_per_s, flops / peak);
    std::string peer;
    if (dtype != DType::kF16) {
      const auto theirs = [&](int64_t i) {
        onednn_matmul({.x = x, .w = layers.layer(i), .y = y, .M = M, .N = shape.N, .K = shape.K, .dtype = dtype});
      };
      const double other = median_seconds(theirs);
      peer = fmt::format("oneDNN {:9.3f} ms, {:5.2f} x ours", other * 1e3, other / seconds);
    }
    fmt::print("{} {:8} M {:4} {:9.3f} ms {:7.1f} GFLOP/s {:5.1f} GB/s {:4.0f} % of bound; {}\n", shape.model,
               shape.name, M, seconds * 1e3, flops / seconds / 1e9, static_cast<double>(layers.bytes()) / seconds / 1e9,
               100 * bound / seconds, peer);
    ::munmap(x, M * shape.K * 4 + (1 << 21));
    ::munmap(y, M * shape.N * 4 + (1 << 21));
    ::munmap(scratch, gemm_scratch_bytes(M, shape.N, shape.K, dtype) + (1 << 21));
  }
}

}  // namespace
}  // namespace millrace

int main(int argc, char** argv) {
  using namespace millrace;
  DType dtype = DType::kBf16;
  std::vector<int64_t> rows;
  std::string only;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word == "f32" || word == "bf16" || word == "f16")
      dtype = word == "f32" ? DType::kF32 : word == "f16" ? DType::kF16 : DType::kBf16;
    else if (const int64_t n = std::atoll(argv[i]); n > 0)
      rows.push_back(n);
    else
      only = word;
  }
  if (rows.empty()) rows = {1, 16, 128, 512};
  const MachineCeilings ceilings = measure_machine();
  fmt::print("{}, {} threads: read {:.1f} GB/s, f32 {:.0f}, bf16 tiles {:.0f} GFLOP/s\n", dtype_name(dtype),
             compute_threads(), ceilings.read_bytes_per_s / 1e9, ceilings.f32_flops / 1e9,
             ceilings.bf16_tile_flops / 1e9);
  for (const Shape& shape : kShapes)
    if (only.empty() || only == shape.name || only == shape.model) report(shape, dtype, rows, ceilings);
}
