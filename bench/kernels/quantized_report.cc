// Time of quantised matrix products of two real models as fractions of what bounds them (reading the packed weights
// once, or multiplying) and beside the bf16 product of the same shape.
// Usage: bench_quantized_report [w8a16|w4a16|w4a16_g32|w8a8] [shape or model] [rows ...]
#include <fmt/format.h>

#include <cstdlib>
#include <string>

#include "bench/kernels/product_bench.h"
#include "kernels/gemm.h"
#include "kernels/gemm_a16.h"
#include "kernels/gemm_w8a8.h"
#include "kernels/machine.h"
#include "kernels/parallel.h"

namespace millrace {
namespace {

struct Format {
  const char* name;
  int64_t group;         // of int4
  int64_t x_digits = 0;  // of int8
  bool int8() const { return x_digits > 0; }
};
constexpr Format kFormats[] = {{"w8a16", 0, 2}, {"w4a16", 128}, {"w4a16_g32", 32}, {"w8a8", 0, 1}};

// A product of one shape in one format, for several numbers of rows.
struct Product {
  Product(const ProductShape& shape, int64_t M) : shape(shape), M(M), x(M * shape.K * 2), y(M * shape.N * 4) {
    Random random(2);
    fill_bf16(random, x.as<bf16>(), M * shape.K);
  }
  const ProductShape& shape;
  const int64_t M;
  const Pages x, y;
};

int64_t packed_bytes(const ProductShape& shape, const Format& format) {
  if (format.int8()) return gemm_w8a8_packed_bytes(shape.N, shape.K);
  return gemm_a16_packed_bytes(shape.N, shape.K, format.group);
}

void fill_int8(const ProductShape& shape, std::byte* memory) {
  constexpr int64_t kRows = 256;
  std::vector<int8_t> values(kRows * shape.K);
  Random random(1);
  for (auto& q : values) q = static_cast<int8_t>(random() % 256 - 128);
  for (int64_t row = 0; row < shape.N; row += kRows)
    gemm_w8a8_pack({.values = values.data(),
                    .packed = memory,
                    .row_begin = row,
                    .row_end = std::min(shape.N, row + kRows),
                    .N = shape.N,
                    .K = shape.K});
}

void fill_a16(const ProductShape& shape, const Format& format, std::byte* memory) {
  constexpr int64_t kRows = 256;
  const int64_t groups = shape.K / format.group;
  std::vector<uint8_t> values(kRows * shape.K);
  Random random(1);
  for (auto& q : values) q = static_cast<uint8_t>(random() % 16);
  const std::vector<float> scales(kRows * groups, 0.01f);
  for (int64_t row = 0; row < shape.N; row += kRows)
    gemm_a16_pack({.values = values.data(),
                   .scales = scales.data(),
                   .zeros = nullptr,
                   .packed = memory,
                   .row_begin = row,
                   .row_end = std::min(shape.N, row + kRows),
                   .K = shape.K,
                   .group = format.group});
}

double a16_seconds(const Product& p, const Format& format, const LayerCopies& weights) {
  const Pages scratch(gemm_a16_scratch_bytes(p.M, p.shape.K));
  return median_seconds([&](int64_t i) {
    gemm_a16({.x = p.x.data(),
              .w = weights.layer(i),
              .bias = nullptr,
              .y = p.y.as<float>(),
              .scratch = scratch.data(),
              .M = p.M,
              .N = p.shape.N,
              .K = p.shape.K,
              .x_stride = p.shape.K,
              .y_stride = p.shape.N,
              .group = format.group});
  });
}

double int8_seconds(const Product& p, const Format& format, const LayerCopies& weights) {
  const Pages scratch(gemm_w8a8_scratch_bytes(p.M, p.shape.K, format.x_digits));
  const std::vector<float> scales(p.shape.N, 0.01f);
  return median_seconds([&](int64_t i) {
    gemm_w8a8({.x = p.x.data(),
               .w = weights.layer(i),
               .scales = scales.data(),
               .bias = nullptr,
               .y = p.y.as<float>(),
               .scratch = scratch.data(),
               .M = p.M,
               .N = p.shape.N,
               .K = p.shape.K,
               .x_stride = p.shape.K,
               .y_stride = p.shape.N,
               .x_digits = format.x_digits});
  });
}

double bf16_seconds(const Product& p, const LayerCopies& weights) {
  const Pages scratch(gemm_scratch_bytes(p.M, p.shape.N, p.shape.K, DType::kBf16));
  return median_seconds([&](int64_t i) {
    gemm({.x = p.x.data(),
          .w = weights.layer(i),
          .bias = nullptr,
          .y = p.y.as<float>(),
          .scratch = scratch.data(),
          .M = p.M,
          .N = p.shape.N,
          .K = p.shape.K,
          .x_stride = p.shape.K,
          .y_stride = p.shape.N,
          .x_dtype = DType::kBf16,
          .w_dtype = DType::kBf16});
  });
}

void report(const ProductShape& shape, const Format& format, const std::vector<int64_t>& rows,
            const MachineCeilings& ceilings) {
  const int64_t bytes = packed_bytes(shape, format);
  const LayerCopies weights(
      bytes, [&](std::byte* memory) { format.int8() ? fill_int8(shape, memory) : fill_a16(shape, format, memory); });
  const int64_t dense_bytes = gemm_packed_bytes(shape.N, shape.K, DType::kBf16);
  const LayerCopies dense(dense_bytes, [&](std::byte* memory) {
    Random random(3);
    fill_bf16(random, reinterpret_cast<bf16*>(memory), dense_bytes / 2);
  });
  for (const int64_t M : rows) {
    if (M > 64 && shape.N > 100000) continue;  // logits are wanted for few rows
    const Product product(shape, M);
    const double seconds =
        format.int8() ? int8_seconds(product, format, weights) : a16_seconds(product, format, weights);
    const double other = bf16_seconds(product, dense);
    const double ops = 2.0 * static_cast<double>(M * shape.N * shape.K * std::max<int64_t>(1, format.x_digits));
    const double peak = format.int8() ? ceilings.int8_ops() : ceilings.bf16_flops();
    const double reading = static_cast<double>(bytes) / ceilings.read_bytes_per_s, computing = ops / peak;
    fmt::print(
        "{} {:8} {:9} M {:4} {:9.3f} ms {:7.0f} Gop/s {:5.1f} GB/s: {:3.0f} % of {}; bf16 {:9.3f} ms, {:4.2f} x\n",
        shape.model, shape.name, format.name, M, seconds * 1e3, ops / seconds / 1e9,
        static_cast<double>(bytes) / seconds / 1e9, 100 * std::max(reading, computing) / seconds,
        reading > computing ? "reads" : "peak", other * 1e3, other / seconds);
  }
}

}  // namespace
}  // namespace millrace

int main(int argc, char** argv) {
  using namespace millrace;
  std::vector<int64_t> rows;
  std::vector<std::string> formats, shapes;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (const int64_t n = std::atoll(argv[i]); n > 0)
      rows.push_back(n);
    else if (word.starts_with("w4") || word.starts_with("w8"))
      formats.push_back(word);
    else
      shapes.push_back(word);
  }
  if (rows.empty()) rows = {1, 16, 512};
  const auto asked = [](const std::vector<std::string>& words, const std::string& word) {
    return words.empty() || std::find(words.begin(), words.end(), word) != words.end();
  };
  const MachineCeilings ceilings = measure_machine();
  fmt::print("{} threads: read {:.1f} GB/s, bf16 {:.0f}, int8 {:.0f} Gop/s\n", compute_threads(),
             ceilings.read_bytes_per_s / 1e9, ceilings.bf16_flops() / 1e9, ceilings.int8_ops() / 1e9);
  for (const ProductShape& shape : kProductShapes)
    for (const Format& format : kFormats)
      if (asked(formats, format.name) && (asked(shapes, shape.name) || asked(shapes, shape.model)))
        report(shape, format, rows, ceilings);
}
