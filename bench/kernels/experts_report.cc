// Time of a mixture-of-experts layer as a fraction of what bounds it: reading the weights of the experts that the
// step's tokens choose, or multiplying. Usage: bench_experts_report [f32|bf16|f16|w8a16|w8a8|w4a16] [tokens ...]
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <set>
#include <string>
#include <vector>

#include "base/random.h"
#include "kernels/machine.h"
#include "kernels/parallel.h"
#include "ops/experts.h"

namespace millrace {
namespace {

struct Model {
  const char* name;
  int64_t C, F, E, K;
};
constexpr Model kModels[] = {{"Qwen3-30B-A3B", 2048, 768, 128, 8}, {"Mixtral-8x7B", 4096, 14336, 4, 2}};

constexpr int64_t kInt4Group = 128;

Tensor noise(int64_t rows, int64_t columns, float scale) {
  Tensor values = Tensor::empty(DType::kBf16, {rows, columns});
  std::vector<bf16> some(65521);
  Random random(1);
  for (bf16& x : some) x = to_bf16(scale * random.normal());
  for (int64_t i = 0; i < values.numel(); ++i) values.data<bf16>()[i] = some[i % 65521];
  return values;
}

// Four bits in groups of 128, each with a scale and a zero point.
Linear random_int4(int64_t rows, int64_t columns) {
  QuantizedMatrix matrix{
      .scheme = QuantizedMatrix::Scheme::kInt4, .rows = rows, .columns = columns, .group = kInt4Group};
  matrix.scales = Tensor::empty(DType::kF32, {rows, matrix.groups()});
  matrix.zeros = Tensor::empty(DType::kU8, {rows, matrix.groups()});
  Random random(5);
  for (int64_t i = 0; i < rows * matrix.groups(); ++i) {
    matrix.scales.data<float>()[i] = 0.003f + 0.001f * static_cast<float>(random.below(4));
    matrix.zeros.data<uint8_t>()[i] = static_cast<uint8_t>(6 + random.below(5));
  }
  matrix.unpack = [columns](int64_t begin, int64_t end, uint8_t* values) {
    for (int64_t i = begin * columns; i < end * columns; ++i)
      *values++ = static_cast<uint8_t>(static_cast<uint64_t>(i) * 0x9E3779B97F4A7C15u >> 60);
  };
  return Linear::pack({&matrix, 1}, {});
}

// How the experts' weights are kept; `dtype` where they are dense.
struct Weights {
  DType dtype = DType::kBf16;
  LinearFormat format = LinearFormat::kDense;
  DType input() const { return dtype == DType::kBf16 ? DType::kBf16 : DType::kF32; }
  // Of a weight, scales included.
  double bytes() const {
    if (format == LinearFormat::kW4A16) return 0.5 + 4.0 / kInt4Group;
    return format == LinearFormat::kDense ? static_cast<double>(dtype_bytes(dtype)) : 1;
  }
  Linear pack(const Tensor& w) const {
    if (format == LinearFormat::kW4A16) return random_int4(w.size(0), w.size(1));
    if (format == LinearFormat::kDense) return Linear::pack({&w, 1}, {}, dtype);
    return std::move(Linear::quantize({&w, 1}, {}, format).value());
  }
};

Experts make_experts(const Model& m, const Weights& weights) {
  const RouterParams params{.experts_per_token = m.K, .normalize = true};
  Experts::Parts parts{.router = Router(noise(m.E, m.C, 0.1f), Tensor(), params)};
  const Tensor gate_up = noise(2 * m.F, m.C, 0.02f), down = noise(m.C, m.F, 0.02f);
  for (int64_t e = 0; e < m.E; ++e) parts.experts.push_back({weights.pack(gate_up), weights.pack(down)});
  return Experts(std::move(parts));
}

// Steps of T tokens each, and how many experts each of them reads.
struct Steps {
  Steps(const Model& m, const Weights& format, int64_t T) : count(std::max<int64_t>(2, 64 / T)) {
    Random random(3);
    Tensor values = Tensor::empty(DType::kF32, {count * T, m.C});
    for (int64_t i = 0; i < values.numel(); ++i) values.data<float>()[i] = random.normal();
    x = converted(values, format.input());
    const Router router(noise(m.E, m.C, 0.1f), Tensor(), {.experts_per_token = m.K, .normalize = true});
    Workspace workspace(router.scratch_bytes(T));
    std::vector<int32_t> experts(T * m.K);
    std::vector<float> weights(T * m.K);
    for (int64_t i = 0; i < count; ++i) {
      router.forward(x.rows(i * T, (i + 1) * T), experts, weights, workspace);
      read += std::set<int32_t>(experts.begin(), experts.end()).size();
    }
  }
  double experts_per_step() const { return static_cast<double>(read) / static_cast<double>(count); }
  const int64_t count;
  Tensor x;
  size_t read = 0;
};

template <class Run>
double median_seconds(const Run& run) {
  std::vector<double> times;
  const auto begin = std::chrono::steady_clock::now();
  for (int64_t i = 0; i < 300; ++i) {
    const auto start = std::chrono::steady_clock::now();
    run(i);
    const auto now = std::chrono::steady_clock::now();
    times.push_back(std::chrono::duration<double>(now - start).count());
    if (i >= 8 && std::chrono::duration<double>(now - begin).count() > 2) break;
  }
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

void report(const Model& m, const Weights& weights, const std::vector<int64_t>& tokens,
            const MachineCeilings& ceilings) {
  Experts experts = make_experts(m, weights);
  for (const int64_t T : tokens) {
    const Steps steps(m, weights, T);
    Tensor y = Tensor::empty(DType::kF32, {T, m.C});
    Workspace workspace(experts.scratch_bytes(T));
    const double seconds = median_seconds([&](int64_t i) {
      const int64_t step = i % steps.count;
      experts.forward(steps.x.rows(step * T, (step + 1) * T), y, workspace);
    });
    const double per_expert = static_cast<double>(3 * m.C * m.F);
    const double bytes = steps.experts_per_step() * per_expert * weights.bytes() + static_cast<double>(m.E * m.C * 4);
    const double flops = 2 * per_expert * static_cast<double>(T * m.K);
    const bool integers = weights.format == LinearFormat::kW8A8;
    const double peak = integers ? ceilings.int8_ops() : ceilings.product_flops(weights.dtype);
    const double bound = std::max(bytes / ceilings.read_bytes_per_s, flops / peak);
    fmt::print("{} (E {}) T {:4}: {:5.1f} experts read, {:9.3f} ms {:7.1f} GFLOP/s {:5.1f} GB/s {:4.0f} % of bound\n",
               m.name, m.E, T, steps.experts_per_step(), seconds * 1e3, flops / seconds / 1e9, bytes / seconds / 1e9,
               100 * bound / seconds);
  }
}

}  // namespace
}  // namespace millrace

int main(int argc, char** argv) {
  using namespace millrace;
  Weights weights;
  std::vector<int64_t> tokens;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word == "f32" || word == "bf16" || word == "f16")
      weights.dtype = word == "f32" ? DType::kF32 : word == "f16" ? DType::kF16 : DType::kBf16;
    else if (word == "w8a16" || word == "w8a8")
      weights.format = word == "w8a8" ? LinearFormat::kW8A8 : LinearFormat::kW8A16;
    else if (word == "w4a16")
      weights.format = LinearFormat::kW4A16;
    else if (const int64_t n = std::atoll(argv[i]); n > 0)
      tokens.push_back(n);
  }
  if (tokens.empty()) tokens = {1, 8, 64, 512};
  const MachineCeilings ceilings = measure_machine();
  fmt::print("{}{}, {} threads: read {:.1f} GB/s, f32 {:.0f}, bf16 {:.0f} GFLOP/s\n",
             weights.format == LinearFormat::kDense ? "" : "integers in ", dtype_name(weights.dtype), compute_threads(),
             ceilings.read_bytes_per_s / 1e9, ceilings.f32_flops / 1e9, ceilings.bf16_flops() / 1e9);
  for (const Model& model : kModels) report(model, weights, tokens, ceilings);
}
