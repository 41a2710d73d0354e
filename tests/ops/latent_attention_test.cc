#include "ops/latent_attention.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "kernels/parallel.h"
#include "tests/ops/testing.h"

namespace millrace {
namespace {

using Form = LatentAttentionParams::Form;

struct Sequence {
  int64_t context, fresh;
};

struct LatentCase {
  int64_t H, latent, nope, rope, value;
  DType dtype;
  std::vector<Sequence> sequences;
};

// A cache with every sequence's latents in it, and the queries of the new tokens.
struct Step {
  explicit Step(const LatentCase& c) : c(c) {
    Random random(31);
    kv_b = random_tensor(random, {c.H * (c.nope + c.value), c.latent}, c.dtype, 0.3f);
    int64_t blocks = 0;
    for (const Sequence& s : c.sequences) max_blocks = std::max(max_blocks, (s.context + 15) / 16);
    for (const Sequence& s : c.sequences) blocks += (s.context + 15) / 16;
    cache = KvCache({.layers = 2,
                     .blocks = blocks,
                     .block_tokens = 16,
                     .kv_heads = 1,
                     .head_dim = c.latent + c.rope,
                     .latent_dim = c.latent,
                     .dtype = c.dtype});
    for (const Sequence& s : c.sequences) {
      query_start.push_back(query_start.back() + static_cast<int32_t>(s.fresh));
      context_len.push_back(static_cast<int32_t>(s.context));
      for (int64_t b = 0; b < max_blocks; ++b)
        block_table.push_back(b * 16 < s.context ? static_cast<int32_t>(--blocks) : -1);
      // Written in the type of the cache, so that the plain computation knows what is there.
      latents.push_back(converted(random_tensor(random, {s.context, c.latent + c.rope}, c.dtype), DType::kF32));
      write(static_cast<int64_t>(latents.size()) - 1);
    }
    q = random_tensor(random, {query_start.back(), c.H, c.nope + c.rope});
  }
  void write(int64_t s) {
    const Tensor& rows = latents[s];
    std::vector<int64_t> slots;
    for (int64_t j = 0; j < rows.size(0); ++j) slots.push_back(block_table[s * max_blocks + j / 16] * 16 + j % 16);
    const Tensor latent(const_cast<float*>(rows.data<float>()), DType::kF32, {rows.size(0), c.latent},
                        {rows.stride(0), 1}, rows.owner());
    const Tensor rope(const_cast<float*>(rows.data<float>()) + c.latent, DType::kF32, {rows.size(0), c.rope},
                      {rows.stride(0), 1}, rows.owner());
    cache.write_latents(1, latent, rope, slots);
  }
  LatentAttention make(Form form) const {
    return {kv_b,
            {.heads = c.H,
             .latent_dim = c.latent,
             .nope_dim = c.nope,
             .rope_dim = c.rope,
             .value_dim = c.value,
             .scale = 0.15f,
             .form = form},
            c.dtype};
  }
  Tensor run(LatentAttention& attention, DType out_dtype = DType::kF32) const {
    return run(attention, {query_start, context_len, block_table, max_blocks}, q, out_dtype);
  }
  Tensor run(LatentAttention& attention, const AttentionStep& step, const Tensor& queries,
             DType out_dtype = DType::kF32) const {
    Tensor out = Tensor::zeros(out_dtype, {queries.size(0), c.H * c.value});
    Workspace workspace(attention.scratch_bytes(cache.config(), queries.size(0), max_blocks * 16));
    attention.forward(queries, cache, 1, step, out, workspace);
    EXPECT_EQ(workspace.used_bytes(), 0);
    return out;
  }
  // Keys and values of head h and position j of sequence s written out, in double.
  double key(int64_t s, int64_t h, int64_t j, int64_t d) const {
    const float* row = latents[s].data<float>() + j * (c.latent + c.rope);
    if (d >= c.nope) return row[c.latent + d - c.nope];
    return product(h * (c.nope + c.value) + d, row);
  }
  double value(int64_t s, int64_t h, int64_t j, int64_t d) const {
    return product(h * (c.nope + c.value) + c.nope + d, latents[s].data<float>() + j * (c.latent + c.rope));
  }
  double product(int64_t row, const float* latent) const {
    double sum = 0;
    for (int64_t r = 0; r < c.latent; ++r)
      sum += static_cast<double>(element_as_float(kv_b, row * c.latent + r)) * latent[r];
    return sum;
  }
  std::vector<double> plain(int64_t s, int64_t t, int64_t h) const {
    const int64_t token = query_start[s] + t, last = c.sequences[s].context - c.sequences[s].fresh + t;
    const float* query = q.data<float>() + (token * c.H + h) * (c.nope + c.rope);
    std::vector<double> weights(last + 1), out(c.value);
    double total = 0, highest = -INFINITY;
    for (int64_t j = 0; j <= last; ++j) {
      for (int64_t d = 0; d < c.nope + c.rope; ++d) weights[j] += 0.15 * query[d] * key(s, h, j, d);
      highest = std::max(highest, weights[j]);
    }
    for (double& weight : weights) total += weight = std::exp(weight - highest);
    for (int64_t j = 0; j <= last; ++j)
      for (int64_t d = 0; d < c.value; ++d) out[d] += weights[j] / total * value(s, h, j, d);
    return out;
  }
  const LatentCase c;
  int64_t max_blocks = 0;
  Tensor kv_b, q;
  KvCache cache;
  std::vector<int32_t> query_start{0}, context_len, block_table;
  std::vector<Tensor> latents;
};

const std::vector<Sequence> kMixed = {{30, 1}, {45, 45}, {21, 1}, {70, 20}, {16, 16}};
const LatentCase kCases[] = {
    {4, 32, 24, 16, 20, DType::kF32, kMixed},       {3, 40, 16, 8, 48, DType::kF32, kMixed},
    {4, 64, 32, 32, 32, DType::kBf16, kMixed},      {4, 32, 24, 16, 20, DType::kBf16, kMixed},
    {4, 32, 24, 16, 20, DType::kF16, kMixed},       {2, 32, 16, 16, 16, DType::kF32, {{530, 2}, {300, 300}}},
    {2, 32, 16, 16, 16, DType::kBf16, {{1090, 90}}}};

// Scores are sums over products; with bf16, queries, absorbed queries, weights and mixed latents are rounded.
double bound(DType dtype) { return dtype == DType::kF32 ? 2e-5 : dtype == DType::kF16 ? 2e-3 : 6e-2; }

TEST(LatentAttention, BothFormsAgreeWithTheDefinitionInDouble) {
  for (const LatentCase& c : kCases)
    for (const Form form : {Form::kAbsorbed, Form::kExpanded, Form::kByCost}) {
      SCOPED_TRACE(testing::Message() << "H " << c.H << " latent " << c.latent << ' ' << dtype_name(c.dtype) << " form "
                                      << static_cast<int>(form));
      const Step step(c);
      LatentAttention attention = step.make(form);
      const Tensor out = step.run(attention);
      for (size_t s = 0; s < c.sequences.size(); ++s)
        for (int64_t t = 0; t < c.sequences[s].fresh; t += 7)
          for (int64_t h = 0; h < c.H; ++h) {
            const auto want = step.plain(static_cast<int64_t>(s), t, h);
            const float* got = out.data<float>() + ((step.query_start[s] + t) * c.H + h) * c.value;
            for (int64_t d = 0; d < c.value; ++d) ASSERT_NEAR(got[d], want[d], bound(c.dtype)) << s << ' ' << t;
          }
    }
}

TEST(LatentAttention, AbsorbedRowsAreBitIdenticalAloneInChunksAndOnEveryNumberOfThreads) {
  const int all = compute_threads();
  for (const LatentCase& c : kCases) {
    SCOPED_TRACE(testing::Message() << "H " << c.H << " latent " << c.latent << ' ' << dtype_name(c.dtype));
    const Step step(c);
    LatentAttention attention = step.make(Form::kAbsorbed);
    const Tensor whole = step.run(attention);
    for (const int threads : {1, all}) {
      set_compute_threads(threads);
      for (size_t s = 0; s < c.sequences.size(); ++s)
        for (const int64_t size : {1, 18, 45}) {  // the last goes head by head
          const auto [context, fresh] = c.sequences[s];
          for (int64_t t = 0; t < fresh; t += size) {
            const int64_t n = std::min(size, fresh - t), token = step.query_start[s] + t;
            const int32_t start[] = {0, static_cast<int32_t>(n)};
            const auto length = static_cast<int32_t>(context - fresh + t + n);
            const AttentionStep alone{start,
                                      {&length, 1},
                                      std::span(step.block_table).subspan(s * step.max_blocks, step.max_blocks),
                                      step.max_blocks};
            const Tensor part = step.run(attention, alone, step.q.rows(token, token + n));
            ASSERT_EQ(0, std::memcmp(part.raw(), whole.rows(token, token + n).raw(), part.bytes())) << s << ' ' << t;
          }
        }
    }
    set_compute_threads(all);
  }
}

TEST(LatentAttention, OutputsMayBeBf16) {
  for (const Form form : {Form::kAbsorbed, Form::kExpanded}) {
    const Step step(kCases[0]);
    LatentAttention attention = step.make(form);
    const Tensor want = step.run(attention), got = step.run(attention, DType::kBf16);
    for (int64_t i = 0; i < got.numel(); ++i)
      ASSERT_EQ(element_as_float(got, i), to_float(to_bf16(want.data<float>()[i])));
  }
}

TEST(LatentAttention, ManyTokensAreAbsorbedInTurns) {
  // 32 MiB of absorbed queries hold 1638 tokens of 128 heads of 40: up to token 26 of sequence 52.
  std::vector<Sequence> sequences(60, {31, 31});
  sequences.push_back({5, 1});
  const Step step({128, 32, 8, 8, 8, DType::kF32, sequences});
  LatentAttention attention = step.make(Form::kAbsorbed);
  const Tensor out = step.run(attention);
  for (const auto& [s, t] : {std::pair<int64_t, int64_t>{0, 0}, {52, 25}, {52, 26}, {53, 0}, {59, 30}, {60, 0}})
    for (const int64_t h : {0, 127}) {
      const auto want = step.plain(s, t, h);
      const float* got = out.data<float>() + ((step.query_start[s] + t) * 128 + h) * 8;
      for (int64_t d = 0; d < 8; ++d) ASSERT_NEAR(got[d], want[d], 2e-5) << s << ' ' << t;
    }
}

TEST(LatentAttention, LongPromptsAreAbsorbedHeadByHead) {
  const Step step({128, 32, 8, 8, 8, DType::kBf16, {{700, 600}, {5, 1}, {90, 40}}});
  LatentAttention attention = step.make(Form::kAbsorbed);
  const Tensor out = step.run(attention);
  for (const auto& [s, t] : {std::pair<int64_t, int64_t>{0, 0}, {0, 127}, {0, 128}, {0, 599}, {1, 0}, {2, 39}})
    for (const int64_t h : {0, 127}) {
      const auto want = step.plain(s, t, h);
      const float* got = out.data<float>() + ((step.query_start[s] + t) * 128 + h) * 8;
      for (int64_t d = 0; d < 8; ++d) ASSERT_NEAR(got[d], want[d], bound(DType::kBf16)) << s << ' ' << t;
    }
}

TEST(LatentAttention, ManyHeadsAreExpandedInTurns) {
  const Step step({128, 32, 8, 8, 8, DType::kF32, {{2300, 40}}});
  LatentAttention attention = step.make(Form::kExpanded);
  const Tensor out = step.run(attention);
  for (const int64_t h : {0, 7, 8, 63, 127}) {
    const auto want = step.plain(0, 39, h);
    const float* got = out.data<float>() + (39 * 128 + h) * 8;
    for (int64_t d = 0; d < 8; ++d) ASSERT_NEAR(got[d], want[d], 2e-5) << h;
  }
}

TEST(KvCache, LatentsTakeOneRowPerTokenAndMoveWithTheirBlock) {
  const KvCache::Config config{.layers = 3,
                               .blocks = 4,
                               .block_tokens = 16,
                               .kv_heads = 1,
                               .head_dim = 576,
                               .latent_dim = 512,
                               .dtype = DType::kBf16};
  EXPECT_EQ(KvCache::bytes_per_block(config), 3 * 16 * 576 * 2);
  LatentCase c = kCases[0];
  c.sequences = {{16, 16}, {16, 1}};
  Step step(c);
  LatentAttention attention = step.make(Form::kAbsorbed);
  const Tensor before = step.run(attention);
  step.cache.copy_block(step.block_table[0], step.block_table[1]);
  const Tensor after = step.run(attention);
  const int64_t row = c.H * c.value * 4;
  EXPECT_EQ(0, std::memcmp(before.raw(), after.raw(), 16 * row));
  EXPECT_NE(0, std::memcmp(before.rows(16, 17).raw(), after.rows(16, 17).raw(), row));
  // Sequence 1 now sees what sequence 0 does.
  const int32_t start[] = {0, 16}, length[] = {16};
  const Tensor again = step.run(attention, {start, length, {&step.block_table[1], 1}, 1}, step.q.rows(0, 16));
  EXPECT_EQ(0, std::memcmp(again.raw(), before.raw(), 16 * row));
}

}  // namespace
}  // namespace millrace
