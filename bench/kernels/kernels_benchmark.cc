// Micro-benchmarks of the operations around the matrix products, on shapes of Llama-3.2-1B. A counter says how much
// memory or how many products a second that is; compare with bench_machine_report.
#include <benchmark/benchmark.h>

#include <cmath>
#include <numeric>
#include <vector>

#include "base/random.h"
#include "kernels/cast_rows.h"
#include "kernels/expert_rows.h"
#include "kernels/gemm.h"
#include "kernels/gemm_w8a8.h"
#include "kernels/glu.h"
#include "kernels/kv_write.h"
#include "kernels/norm.h"
#include "kernels/paged_attention.h"
#include "kernels/quantize_rows.h"
#include "kernels/rope.h"
#include "kernels/routing.h"
#include "ops/sampling.h"

namespace millrace {
namespace {

constexpr int64_t C = 2048, F = 8192, H = 32, G = 8, D = 64, V = 128256;

std::vector<float> noise(int64_t n) {
  Random random(1);
  std::vector<float> values(n);
  for (float& x : values) x = random.uniform() - 0.5f;
  return values;
}

void count_bytes(benchmark::State& state, int64_t bytes) {
  state.counters["bytes/s"] =
      benchmark::Counter(static_cast<double>(bytes), benchmark::Counter::kIsIterationInvariantRate);
}

void rms_norm_with_residual(benchmark::State& state) {
  const int64_t T = state.range(0);
  auto x = noise(T * C);
  const auto residual = noise(T * C), w = noise(C);
  std::vector<bf16> y(T * C);
  for (auto _ : state)
    rms_norm({.x = x.data(),
              .residual = residual.data(),
              .w = w.data(),
              .y = y.data(),
              .T = T,
              .C = C,
              .x_stride = C,
              .y_stride = C,
              .eps = 1e-5f,
              .y_dtype = DType::kBf16});
  count_bytes(state, T * C * 14);
}
BENCHMARK(rms_norm_with_residual)->Arg(1)->Arg(16)->Arg(512)->UseRealTime();

// As a W8A8 product takes them.
void rms_norm_to_integers(benchmark::State& state) {
  const int64_t T = state.range(0);
  auto x = noise(T * C);
  const auto w = noise(C);
  std::vector<std::byte> y(T * w8a8_row_bytes(C));
  for (auto _ : state)
    rms_norm({.x = x.data(),
              .residual = nullptr,
              .w = w.data(),
              .b = nullptr,
              .y = y.data(),
              .T = T,
              .C = C,
              .x_stride = C,
              .y_stride = w8a8_row_bytes(C),
              .eps = 1e-5f,
              .y_dtype = DType::kI8});
  count_bytes(state, T * C * 5);
}
BENCHMARK(rms_norm_to_integers)->Arg(1)->Arg(512)->UseRealTime();

void cast_rows_to_bf16(benchmark::State& state) {
  const int64_t T = state.range(0);
  const auto from = noise(T * C);
  std::vector<bf16> to(T * C);
  for (auto _ : state)
    cast_rows({.from = from.data(),
               .to = to.data(),
               .slots = nullptr,
               .n = T,
               .width = C,
               .from_stride = C,
               .to_stride = C,
               .to_dtype = DType::kBf16});
  count_bytes(state, T * C * 6);
}
BENCHMARK(cast_rows_to_bf16)->Arg(1)->Arg(512)->UseRealTime();

void quantize_weights(benchmark::State& state) {
  const auto w = noise(F * C);
  std::vector<int8_t> values(F * C);
  std::vector<float> scales(F);
  for (auto _ : state)
    benchmark::DoNotOptimize(quantize_rows({.w = w.data(),
                                            .values = values.data(),
                                            .scales = scales.data(),
                                            .rows = F,
                                            .K = C,
                                            .w_stride = C,
                                            .dtype = DType::kF32}));
  count_bytes(state, F * C * 5);
}
BENCHMARK(quantize_weights)->UseRealTime();

// Choosing 8 of 256 experts in 8 groups (DeepSeek-V3), sorting tokens by them, and adding up what they gave.
void route_and_combine(benchmark::State& state) {
  constexpr int64_t E = 256, K = 8;
  const int64_t T = state.range(0);
  const auto logits = noise(T * E), bias = noise(E), x = noise(T * K * C);
  std::vector<int32_t> experts(T * K), first_row(E + 1), row_of(T * K), token_of_row(T * K);
  std::vector<float> weights(T * K), y(T * C);
  for (auto _ : state) {
    route({.logits = logits.data(),
           .bias = bias.data(),
           .params = {.score = RouterScore::kSigmoid,
                      .experts_per_token = K,
                      .groups = 8,
                      .groups_per_token = 4,
                      .group_score = RouterGroupScore::kTwoBest,
                      .normalize = true},
           .experts = experts.data(),
           .weights = weights.data(),
           .T = T,
           .E = E,
           .stride = E});
    order_by_expert({.experts = experts.data(),
                     .T = T,
                     .K = K,
                     .E = E,
                     .first_row = first_row.data(),
                     .row_of = row_of.data(),
                     .token_of_row = token_of_row.data()});
    combine_rows({.x = x.data(),
                  .weights = weights.data(),
                  .row_of = row_of.data(),
                  .y = y.data(),
                  .T = T,
                  .K = K,
                  .C = C,
                  .y_stride = C});
  }
  count_bytes(state, T * (E + K * C + C) * 4);
}
BENCHMARK(route_and_combine)->Arg(1)->Arg(512)->UseRealTime();

void rope_halves(benchmark::State& state) {
  const int64_t T = state.range(0), stride = (H + 2 * G) * D;
  auto x = noise(T * stride);
  auto cos = noise(T * D / 2), sin = cos;
  for (size_t i = 0; i < cos.size(); ++i) sin[i] = std::sin(cos[i]), cos[i] = std::cos(cos[i]);  // lengths stay
  for (auto _ : state)
    rope({.x = x.data(),
          .cos = cos.data(),
          .sin = sin.data(),
          .T = T,
          .heads = H + G,
          .head_dim = D,
          .dims = D,
          .token_stride = stride});
  count_bytes(state, T * (H + G) * D * 8);
}
BENCHMARK(rope_halves)->Arg(1)->Arg(512)->UseRealTime();

void silu_gate(benchmark::State& state) {
  const int64_t T = state.range(0);
  const auto x = noise(T * 2 * F);
  std::vector<bf16> y(T * F);
  for (auto _ : state)
    glu({.gate = x.data(),
         .up = x.data() + F,
         .y = y.data(),
         .T = T,
         .F = F,
         .x_stride = 2 * F,
         .y_stride = F,
         .y_dtype = DType::kBf16});
  count_bytes(state, T * F * 10);
}
BENCHMARK(silu_gate)->Arg(1)->Arg(512)->UseRealTime();

// `sequences` of `context` tokens, the last `fresh` of each new; the cache in `dtype`. B/s counts the cache's bytes.
void attention(benchmark::State& state, DType dtype, bool token_scales = false) {
  const int64_t S = state.range(0), context = state.range(1), fresh = state.range(2), T = S * fresh;
  const KvLayout layout{.block_tokens = 16, .kv_heads = G, .head_dim = D, .dtype = dtype, .token_scales = token_scales};
  const std::vector<float> scales(G, 0.01f);
  const bool head_scales = dtype == DType::kI8 && !token_scales;
  const int64_t blocks = (context + 15) / 16;
  std::vector<uint8_t> k(S * blocks * layout.block_bytes(), 0x3c), v(k.size(), 0x3c);
  std::vector<int32_t> start(S + 1), length(S, static_cast<int32_t>(context)), table(S * blocks);
  for (int64_t s = 0; s <= S; ++s) start[s] = static_cast<int32_t>(s * fresh);
  std::iota(table.begin(), table.end(), 0);
  const auto q = noise(T * H * D);
  std::vector<bf16> out(T * H * D);
  const int64_t scratch_bytes = attention_scratch_bytes(H, D, context);
  auto* scratch = static_cast<std::byte*>(std::aligned_alloc(64, (scratch_bytes + 63) / 64 * 64));
  for (auto _ : state)
    paged_attention({.q = q.data(),
                     .k_cache = k.data(),
                     .v_cache = v.data(),
                     .layout = layout,
                     .query_start = start.data(),
                     .context_len = length.data(),
                     .block_table = table.data(),
                     .out = out.data(),
                     .alibi_slopes = nullptr,
                     .scratch = scratch,
                     .scratch_bytes = scratch_bytes,
                     .S = S,
                     .H = H,
                     .max_blocks = blocks,
                     .q_stride = H * D,
                     .out_stride = H * D,
                     .scale = 0.125f,
                     .out_dtype = DType::kBf16,
                     .k_scales = head_scales ? scales.data() : nullptr,
                     .v_scales = head_scales ? scales.data() : nullptr});
  std::free(scratch);
  const double pairs = static_cast<double>(S) * (static_cast<double>(context) * fresh - fresh * (fresh - 1) / 2.0);
  state.counters["FLOP/s"] = benchmark::Counter(4 * pairs * H * D, benchmark::Counter::kIsIterationInvariantRate);
  count_bytes(state, 2 * S * context * layout.block_bytes() / layout.block_tokens);
}
void attention_cases(benchmark::internal::Benchmark* b) {
  for (const auto& shape : {std::vector<int64_t>{1, 512, 512}, {1, 2048, 512}, {1, 512, 1}, {1, 8192, 1}, {16, 512, 1}})
    b->Args(shape);
  b->ArgNames({"sequences", "context", "fresh"})->UseRealTime();
}
BENCHMARK_CAPTURE(attention, f32, DType::kF32)->Apply(attention_cases);
BENCHMARK_CAPTURE(attention, bf16, DType::kBf16)->Apply(attention_cases);
BENCHMARK_CAPTURE(attention, int8, DType::kI8)->Apply(attention_cases);
BENCHMARK_CAPTURE(attention, int8_dynamic, DType::kI8, true)->Apply(attention_cases);

// A step's keys and values into the cache.
void kv_write_rows(benchmark::State& state, DType dtype, bool token_scales = false) {
  const int64_t T = state.range(0);
  const KvLayout layout{.block_tokens = 16, .kv_heads = G, .head_dim = D, .dtype = dtype, .token_scales = token_scales};
  std::vector<uint8_t> k((T + 15) / 16 * layout.block_bytes()), v(k.size());
  const auto x = noise(T * G * D);
  std::vector<int64_t> slots(T);
  std::iota(slots.begin(), slots.end(), 0);
  for (auto _ : state)
    kv_write({.k = x.data(),
              .v = x.data(),
              .slots = slots.data(),
              .k_cache = k.data(),
              .v_cache = v.data(),
              .layout = layout,
              .T = T,
              .stride = G * D});
  count_bytes(state, T * G * D * 2 * (4 + dtype_bytes(dtype)));
}
BENCHMARK_CAPTURE(kv_write_rows, bf16, DType::kBf16)->Arg(1)->Arg(512)->UseRealTime();
BENCHMARK_CAPTURE(kv_write_rows, int8_dynamic, DType::kI8, true)->Arg(1)->Arg(512)->UseRealTime();

void pack_panels(benchmark::State& state) {
  const std::vector<uint8_t> w(F * C * 2, 0x3c);
  std::vector<uint8_t> packed(gemm_packed_bytes(F, C, DType::kBf16));
  for (auto _ : state)
    gemm_pack({.w = w.data(),
               .packed = packed.data(),
               .row_begin = 0,
               .row_end = F,
               .K = C,
               .w_stride = C,
               .from = DType::kBf16,
               .to = DType::kBf16});
  count_bytes(state, F * C * 2);
}
BENCHMARK(pack_panels)->UseRealTime();

void sample(benchmark::State& state, const SampleParams& params) {
  auto logits = noise(V);
  for (float& x : logits) x *= 8;
  SampleScratch scratch;
  std::vector<float> row;
  uint64_t position = 0;
  for (auto _ : state) {
    row = logits;
    benchmark::DoNotOptimize(sample_token(row, params, 1, ++position, scratch));
  }
}
BENCHMARK_CAPTURE(sample, plain, SampleParams{});
BENCHMARK_CAPTURE(sample, top_k_50, SampleParams{.top_k = 50});
BENCHMARK_CAPTURE(sample, top_p_90, SampleParams{.top_p = 0.9f});

void greedy(benchmark::State& state) {
  const auto logits = noise(V);
  for (auto _ : state) benchmark::DoNotOptimize(greedy_token(logits));
}
BENCHMARK(greedy);

void logprobs(benchmark::State& state) {
  const auto logits = noise(V);
  SampleScratch scratch;
  std::vector<RankedToken> top(5);
  for (auto _ : state) benchmark::DoNotOptimize(token_logprobs(logits, 17, top, scratch));
}
BENCHMARK(logprobs);

}  // namespace
}  // namespace millrace
