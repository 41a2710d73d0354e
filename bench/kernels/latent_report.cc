// Time of multi-head latent attention as a fraction of what bounds it: reading the latents and kv_b once, or
// multiplying (decode: the absorbed form's products; prefill: those of the cheaper form).
// Usage: bench_latent_report [f32|bf16|f16] [MODEL] [SEQUENCESxCONTEXT+NEW]
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <numeric>
#include <string>
#include <vector>

#include "base/random.h"
#include "kernels/machine.h"
#include "kernels/parallel.h"
#include "ops/latent_attention.h"

namespace millrace {
namespace {

using Form = LatentAttentionParams::Form;
constexpr int64_t kLatent = 512, kRope = 64, kNope = 128, kValue = 128;

struct Model {
  const char* name;
  int64_t H;
};
constexpr Model kModels[] = {{"DeepSeek-V2-Lite", 16}, {"DeepSeek-V3", 128}};

struct Load {
  int64_t sequences, context, fresh;
};
constexpr Load kLoads[] = {{1, 1024, 1},  {1, 8192, 1},   {8, 1024, 1},   {8, 8192, 1},
                           {1, 512, 512}, {1, 2048, 512}, {1, 8192, 512}, {1, 8192, 32}};

Tensor noise(const Shape& shape, float scale) {
  Tensor values = Tensor::empty(DType::kF32, shape);
  std::vector<float> some(65521);
  Random random(1);
  for (float& x : some) x = scale * random.normal();
  for (int64_t i = 0; i < values.numel(); ++i) values.data<float>()[i] = some[i % 65521];
  return values;
}

// A cache of several layers, so that no cache of the machine keeps latents from one step to the next.
struct Step {
  Step(const Load& load, DType dtype) : load(load), blocks((load.context + 15) / 16) {
    const int64_t layer_bytes = load.sequences * blocks * 16 * (kLatent + kRope) * dtype_bytes(dtype);
    layers = std::clamp<int64_t>((int64_t{1} << 30) / layer_bytes, 1, 64);
    cache = KvCache({.layers = layers,
                     .blocks = load.sequences * blocks,
                     .block_tokens = 16,
                     .kv_heads = 1,
                     .head_dim = kLatent + kRope,
                     .latent_dim = kLatent,
                     .dtype = dtype});
    std::vector<int64_t> slots(load.sequences * load.context);
    for (int64_t i = 0; i < static_cast<int64_t>(slots.size()); ++i)
      slots[i] = i / load.context * blocks * 16 + i % load.context;
    const auto T = static_cast<int64_t>(slots.size());
    const Tensor latent = noise({T, kLatent}, 1), rope = noise({T, kRope}, 1);
    for (int64_t layer = 0; layer < layers; ++layer) cache.write_latents(layer, latent, rope, slots);
    for (int64_t s = 0; s <= load.sequences; ++s) query_start.push_back(static_cast<int32_t>(s * load.fresh));
    context_len.assign(load.sequences, static_cast<int32_t>(load.context));
    block_table.resize(load.sequences * blocks);
    std::iota(block_table.begin(), block_table.end(), 0);
  }
  const Load load;
  const int64_t blocks;
  int64_t layers;
  KvCache cache;
  std::vector<int32_t> query_start, context_len, block_table;
};

template <class Run>
double median_seconds(const Run& run) {
  std::vector<double> times;
  const auto begin = std::chrono::steady_clock::now();
  for (int64_t i = 0; i < 200; ++i) {
    const auto start = std::chrono::steady_clock::now();
    run(i);
    const auto now = std::chrono::steady_clock::now();
    times.push_back(std::chrono::duration<double>(now - start).count());
    if (i >= 4 && std::chrono::duration<double>(now - begin).count() > 0.7) break;
  }
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

double absorbed_flops(const Load& l, int64_t H) {
  const double pairs = static_cast<double>(l.fresh) * (static_cast<double>(l.context) - 0.5 * (l.fresh - 1));
  return 2.0 * l.sequences * H * (pairs * (2 * kLatent + kRope) + l.fresh * kLatent * (kNope + kValue));
}
double expanded_flops(const Load& l, int64_t H) {
  const double pairs = static_cast<double>(l.fresh) * (static_cast<double>(l.context) - 0.5 * (l.fresh - 1));
  return 2.0 * l.sequences * H * (pairs * (kNope + kRope + kValue) + l.context * kLatent * (kNope + kValue));
}

void report(const Model& m, DType dtype, const std::string& only, const MachineCeilings& ceilings) {
  const Tensor kv_b = noise({m.H * (kNope + kValue), kLatent}, 0.02f);
  for (const Load& load : kLoads) {
    const std::string name = fmt::format("{}x{}+{}", load.sequences, load.context, load.fresh);
    if (!only.empty() && only != name) continue;
    Step step(load, dtype);
    const int64_t T = load.sequences * load.fresh;
    const Tensor q = noise({T, m.H, kNope + kRope}, 1);
    Tensor out = Tensor::empty(dtype == DType::kBf16 ? DType::kBf16 : DType::kF32, {T, m.H * kValue});
    const AttentionStep plan{step.query_start, step.context_len, step.block_table, step.blocks};
    for (const Form form : {Form::kAbsorbed, Form::kExpanded}) {
      if (form == Form::kExpanded && load.fresh == 1) continue;
      LatentAttention attention(kv_b,
                                {.heads = m.H,
                                 .latent_dim = kLatent,
                                 .nope_dim = kNope,
                                 .rope_dim = kRope,
                                 .value_dim = kValue,
                                 .scale = 0.07f,
                                 .form = form},
                                dtype);
      Workspace workspace(attention.scratch_bytes(step.cache.config(), T, load.context));
      const double seconds =
          median_seconds([&](int64_t i) { attention.forward(q, step.cache, i % step.layers, plan, out, workspace); });
      const bool absorbed = form == Form::kAbsorbed;
      const double flops = absorbed ? absorbed_flops(load, m.H) : expanded_flops(load, m.H);
      const double bytes = static_cast<double>(dtype_bytes(dtype)) *
                           (load.sequences * load.context * (kLatent + kRope) + m.H * (kNope + kValue) * kLatent);
      const double peak = dtype == DType::kBf16 ? ceilings.bf16_flops() : ceilings.f32_flops;
      const double bound = std::max(bytes / ceilings.read_bytes_per_s,
                                    std::min(absorbed_flops(load, m.H), expanded_flops(load, m.H)) / peak);
      fmt::print("{:16} {:10} {}: {:8.3f} ms {:7.1f} GFLOP/s {:5.1f} GB/s {:4.0f} % of bound\n", m.name, name,
                 absorbed ? "absorbed" : "expanded", seconds * 1e3, flops / seconds / 1e9, bytes / seconds / 1e9,
                 100 * bound / seconds);
    }
  }
}

}  // namespace
}  // namespace millrace

int main(int argc, char** argv) {
  using namespace millrace;
  DType dtype = DType::kBf16;
  std::string model, load;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word == "f32" || word == "bf16" || word == "f16")
      dtype = word == "f32" ? DType::kF32 : word == "f16" ? DType::kF16 : DType::kBf16;
    else
      (word.find('x') == std::string::npos ? model : load) = word;
  }
  const MachineCeilings ceilings = measure_machine();
  fmt::print("{}, {} threads: read {:.1f} GB/s, f32 {:.0f}, bf16 {:.0f} GFLOP/s\n", dtype_name(dtype),
             compute_threads(), ceilings.read_bytes_per_s / 1e9, ceilings.f32_flops / 1e9, ceilings.bf16_flops() / 1e9);
  for (const Model& m : kModels)
    if (model.empty() || model == m.name) report(m, dtype, load, ceilings);
}
