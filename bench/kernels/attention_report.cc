// Time of paged attention as a fraction of what bounds it: bf16 tile products, or reading keys and values once.
// Usage: bench_attention_report [SEQUENCESxCONTEXT+NEW]
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <vector>

#include "bench/kernels/product_bench.h"
#include "kernels/kv_write.h"
#include "kernels/machine.h"
#include "kernels/paged_attention.h"
#include "kernels/parallel.h"

namespace millrace {
namespace {

struct Model {
  const char* name;
  int64_t H, G, D;
};
constexpr Model kModels[] = {{"Llama-3.2-1B", 32, 8, 64}, {"Qwen2.5-0.5B", 14, 2, 64}, {"Llama-3-8B", 32, 8, 128}};

// Sequences of `context` tokens, the last `fresh` of which are new.
struct Load {
  int64_t sequences, context, fresh;
};
constexpr Load kLoads[] = {{1, 512, 512}, {1, 2560, 512}, {1, 2048, 2048}, {1, 8192, 1}, {32, 512, 1}, {32, 2048, 1}};

// A step over a cache of several layers, so that no cache of the machine keeps it from one step to the next.
class Step {
 public:
  Step(const Model& model, const Load& load, DType dtype)
      : model_(model),
        load_(load),
        layout_{.kv_heads = model.G, .head_dim = model.D, .dtype = dtype, .token_scales = dtype == DType::kI8},
        blocks_((load.context + layout_.block_tokens - 1) / layout_.block_tokens),
        layer_bytes_(load.sequences * blocks_ * layout_.block_bytes()),
        layers_(std::clamp<int64_t>((int64_t{1} << 28) / layer_bytes_, 1, 32)),
        keys_(layers_ * layer_bytes_),
        values_(layers_ * layer_bytes_),
        scratch_(attention_scratch_bytes(model.H, model.D, load.context)),
        table_(load.sequences * blocks_),
        context_(load.sequences, static_cast<int32_t>(load.context)),
        q_(noise(load.sequences * load.fresh * model.H * model.D)),
        out_(q_.size()) {
    std::iota(table_.begin(), table_.end(), 0);
    for (int64_t s = 0; s <= load.sequences; ++s) start_.push_back(static_cast<int32_t>(s * load.fresh));
    fill();
  }
  void run(int64_t step) {
    const int64_t at = step % layers_ * layer_bytes_, width = model_.H * model_.D;
    paged_attention({.q = q_.data(),
                     .k_cache = keys_.data() + at,
                     .v_cache = values_.data() + at,
                     .layout = layout_,
                     .query_start = start_.data(),
                     .context_len = context_.data(),
                     .block_table = table_.data(),
                     .out = out_.data(),
                     .alibi_slopes = nullptr,
                     .q_factors = nullptr,
                     .scratch = scratch_.data(),
                     .scratch_bytes = attention_scratch_bytes(model_.H, model_.D, load_.context),
                     .S = load_.sequences,
                     .H = model_.H,
                     .max_blocks = blocks_,
                     .q_stride = width,
                     .out_stride = width,
                     .scale = 1 / std::sqrt(static_cast<float>(model_.D)),
                     .out_dtype = DType::kBf16});
  }
  double bytes() const { return 2.0 * static_cast<double>(layer_bytes_); }
  double flops() const {
    const auto fresh = static_cast<double>(load_.fresh), context = static_cast<double>(load_.context);
    return 4.0 * static_cast<double>(load_.sequences * model_.H * model_.D) * fresh * (context - 0.5 * (fresh - 1));
  }

 private:
  static std::vector<float> noise(int64_t n) {
    std::vector<float> values(n);
    Random random(1);
    for (float& x : values) x = random.normal();
    return values;
  }
  void fill() {
    const int64_t T = load_.context, stride = model_.G * model_.D;
    const std::vector<float> rows = noise(T * stride);
    std::vector<int64_t> slots(T);
    for (int64_t piece = 0; piece < layers_ * load_.sequences; ++piece) {
      const int64_t at = piece / load_.sequences * layer_bytes_;
      std::iota(slots.begin(), slots.end(), piece % load_.sequences * blocks_ * layout_.block_tokens);
      kv_write({.k = rows.data(),
                .v = rows.data(),
                .slots = slots.data(),
                .k_cache = keys_.data() + at,
                .v_cache = values_.data() + at,
                .layout = layout_,
                .T = T,
                .stride = stride});
    }
  }

  const Model model_;
  const Load load_;
  const KvLayout layout_;
  const int64_t blocks_, layer_bytes_, layers_;
  const Pages keys_, values_, scratch_;
  std::vector<int32_t> table_, context_, start_;
  const std::vector<float> q_;
  std::vector<bf16> out_;
};

void report(const Model& m, const Load& load, DType dtype, const MachineCeilings& ceilings) {
  Step step(m, load, dtype);
  const double seconds = median_seconds([&](int64_t i) { step.run(i); });
  const double peak = ceilings.product_flops(DType::kBf16);
  const double reading = step.bytes() / ceilings.read_bytes_per_s, products = step.flops() / peak;
  fmt::print("{:13} {:12} {:8}: {:9.3f} ms {:7.1f} GFLOP/s {:5.1f} GB/s {:4.0f} % of {}\n", m.name,
             fmt::format("{}x{}+{}", load.sequences, load.context - load.fresh, load.fresh), dtype_name(dtype),
             seconds * 1e3, step.flops() / seconds / 1e9, step.bytes() / seconds / 1e9,
             100 * std::max(reading, products) / seconds, reading > products ? "reading" : "products");
}

}  // namespace
}  // namespace millrace

int main(int argc, char** argv) {
  using namespace millrace;
  const std::string only = argc > 1 ? argv[1] : "";
  const MachineCeilings ceilings = measure_machine();
  fmt::print("{} threads: read {:.1f} GB/s, f32 {:.0f}, bf16 {:.0f} GFLOP/s\n", compute_threads(),
             ceilings.read_bytes_per_s / 1e9, ceilings.f32_flops / 1e9, ceilings.bf16_flops() / 1e9);
  for (const Model& m : kModels)
    for (const Load& load : kLoads)
      for (const DType dtype : {DType::kBf16, DType::kI8})
        if (only.empty() || only == fmt::format("{}x{}+{}", load.sequences, load.context - load.fresh, load.fresh))
          report(m, load, dtype, ceilings);
}
