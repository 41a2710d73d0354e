// Time of every matrix product of two real models, ours and oneDNN's, as fractions of what bounds it: reading the
// weights once, or multiplying. Usage: bench_gemm_report [f32|bf16|f16] [rows ...]
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <string>
#include <vector>

#include "base/random.h"
#include "bench/kernels/onednn_matmul.h"
#include "bench/kernels/product_bench.h"
#include "kernels/gemm.h"
#include "kernels/machine.h"
#include "kernels/parallel.h"

namespace millrace {
namespace {

// Noise of sixteen bits each, in weights of any type.
void fill_weights(std::byte* memory, int64_t bytes, DType dtype) {
  Random random(1);
  std::vector<uint16_t> noise(65521);
  for (auto& x : noise)
    x = dtype == DType::kF16 ? to_f16(random.normal() * 0.1f).bits : to_bf16(random.normal() * 0.1f).bits;
  auto* out = reinterpret_cast<uint16_t*>(memory);
  for (int64_t i = 0; i < bytes / 2; ++i) out[i] = noise[i % 65521];
}

void report(const ProductShape& shape, DType dtype, const std::vector<int64_t>& rows, const MachineCeilings& ceilings) {
  const int64_t bytes = gemm_packed_bytes(shape.N, shape.K, dtype);
  const LayerCopies layers(bytes, [&](std::byte* memory) { fill_weights(memory, bytes, dtype); });
  for (const int64_t M : rows) {
    if (M > 64 && shape.N > 100000) continue;  // logits are wanted for few rows
    const Pages x_pages(M * shape.K * 4), y_pages(M * shape.N * 4),
        scratch(gemm_scratch_bytes(M, shape.N, shape.K, dtype));
    std::byte* const x = x_pages.data();
    auto* const y = y_pages.as<float>();
    Random random(2);
    const DType x_dtype = dtype == DType::kBf16 ? DType::kBf16 : DType::kF32;
    for (int64_t i = 0; i < M * shape.K; ++i) {
      if (x_dtype == DType::kBf16)
        reinterpret_cast<bf16*>(x)[i] = to_bf16(random.normal());
      else
        reinterpret_cast<float*>(x)[i] = random.normal();
    }
    const auto ours = [&](int64_t i) {
      gemm({.x = x,
            .w = layers.layer(i),
            .bias = nullptr,
            .y = y,
            .scratch = scratch.data(),
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
    const double bound =
        std::max(static_cast<double>(bytes) / ceilings.read_bytes_per_s, flops / ceilings.product_flops(dtype));
    std::string peer;
    if (dtype != DType::kF16) {
      const auto theirs = [&](int64_t i) {
        onednn_matmul({.x = x, .w = layers.layer(i), .y = y, .M = M, .N = shape.N, .K = shape.K, .dtype = dtype});
      };
      const double other = median_seconds(theirs);
      peer = fmt::format("oneDNN {:9.3f} ms, {:5.2f} x ours", other * 1e3, other / seconds);
    }
    fmt::print("{} {:8} M {:4} {:9.3f} ms {:7.1f} GFLOP/s {:5.1f} GB/s {:4.0f} % of bound; {}\n", shape.model,
               shape.name, M, seconds * 1e3, flops / seconds / 1e9, static_cast<double>(bytes) / seconds / 1e9,
               100 * bound / seconds, peer);
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
  fmt::print("{}, {} threads: read {:.1f} GB/s, f32 {:.0f}, bf16 {:.0f} GFLOP/s\n", dtype_name(dtype),
             compute_threads(), ceilings.read_bytes_per_s / 1e9, ceilings.f32_flops / 1e9, ceilings.bf16_flops() / 1e9);
  for (const ProductShape& shape : kProductShapes)
    if (only.empty() || only == shape.name || only == shape.model) report(shape, dtype, rows, ceilings);
}
