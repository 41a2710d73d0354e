#include "kernels/paged_attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <numeric>

#include "kernels/kv_write.h"
#include "kernels/parallel.h"
#include "tests/kernels/testing.h"

namespace millrace {
namespace {

struct Heads {
  int64_t H, G, D;
  DType kv = DType::kF32;
  int64_t window = 0;
  float soft_cap = 0;
  bool alibi = false, alibi_bf16 = false;
  bool factors = false;  // of queries, by position
  int64_t block_tokens = 16;
  bool token_scales = false;
};

// Sequences with all their keys and values in a paged cache whose blocks lie in random order; unused positions hold
// NaN, which nothing may let through.
class Model {
 public:
  Model(const Heads& heads, std::vector<int64_t> lengths, uint64_t seed)
      : heads_(heads), lengths_(std::move(lengths)), random_(seed) {
    layout_ = {.block_tokens = heads.block_tokens,
               .kv_heads = heads.G,
               .head_dim = heads.D,
               .dtype = heads.kv,
               .token_scales = heads.token_scales};
    if (heads.kv == DType::kI8 && !heads.token_scales)
      for (std::vector<float>* scales : {&k_scales_, &v_scales_})
        for (int64_t g = 0; g < heads.G; ++g) scales->push_back(0.02f + 0.01f * static_cast<float>(random_.below(3)));
    int64_t blocks = 1;
    for (const int64_t n : lengths_) blocks += (n + layout_.block_tokens - 1) / layout_.block_tokens;
    std::vector<int32_t> order(blocks);
    std::iota(order.begin(), order.end(), 0);
    for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random_.below(static_cast<uint32_t>(i))]);
    k_ = poisoned(blocks), v_ = poisoned(blocks);
    for (const int64_t n : lengths_) add_sequence(n, order);
    if (heads.alibi) slopes_ = random_floats(random_, heads.H, 0.1f);
    if (heads.alibi_bf16)
      for (float& slope : slopes_) slope = to_float(to_bf16(slope));
  }

  struct Query {
    size_t sequence;
    int64_t begin, end;  // positions
  };
  // Makes queries bf16 values.
  void round_queries() {
    for (std::vector<float>& rows : q_)
      for (float& x : rows) x = to_float(to_bf16(x));
  }
  // Output rows of the queries, computed in one step. kBf16 as q_dtype: queries as kernels/rotated_heads.h has them.
  std::vector<std::vector<float>> run(AttentionFn* attention, const std::vector<Query>& queries, DType out_dtype,
                                      DType q_dtype = DType::kF32) {
    const int64_t width = heads_.H * heads_.D;
    std::vector<int32_t> start = {0}, context, table;
    std::vector<float> q, factors;
    int64_t max_blocks = 1;
    for (const Query& query : queries)
      max_blocks = std::max(max_blocks, static_cast<int64_t>(tables_[query.sequence].size()));
    for (const Query& query : queries) {
      start.push_back(start.back() + static_cast<int32_t>(query.end - query.begin));
      context.push_back(static_cast<int32_t>(query.end));
      const auto& blocks = tables_[query.sequence];
      table.insert(table.end(), blocks.begin(), blocks.end());
      table.resize(context.size() * max_blocks, -1);
      const auto& all = q_[query.sequence];
      q.insert(q.end(), all.begin() + query.begin * (width + 5), all.begin() + query.end * (width + 5));
      for (int64_t position = query.begin; position < query.end; ++position)
        factors.push_back(1 + static_cast<float>(position) / 1000);
    }
    const std::vector<bf16> placed = in_places(q, start.back());
    std::vector<uint8_t> out(start.back() * width * dtype_bytes(out_dtype));
    std::vector<std::byte> scratch(attention_scratch_bytes(heads_.H, heads_.D, max_blocks * layout_.block_tokens) + 64);
    auto* aligned = reinterpret_cast<std::byte*>((reinterpret_cast<uintptr_t>(scratch.data()) + 63) / 64 * 64);
    attention({.q = q_dtype == DType::kBf16 ? static_cast<const void*>(placed.data()) : q.data(),
               .k_cache = k_.data(),
               .v_cache = v_.data(),
               .layout = layout_,
               .query_start = start.data(),
               .context_len = context.data(),
               .block_table = table.data(),
               .out = out.data(),
               .alibi_slopes = heads_.alibi ? slopes_.data() : nullptr,
               .q_factors = heads_.factors ? factors.data() : nullptr,
               .scratch = aligned,
               .scratch_bytes = static_cast<int64_t>(scratch.size()) - 64,
               .S = static_cast<int64_t>(context.size()),
               .H = heads_.H,
               .max_blocks = max_blocks,
               .q_stride = width + 5,
               .out_stride = width,
               .scale = 1.0f / std::sqrt(static_cast<float>(heads_.D)),
               .soft_cap = heads_.soft_cap,
               .window = heads_.window,
               .alibi_bf16 = heads_.alibi_bf16,
               .q_dtype = q_dtype,
               .out_dtype = out_dtype,
               .k_scales = scales_or_null(k_scales_),
               .v_scales = scales_or_null(v_scales_)});
    std::vector<std::vector<float>> rows;
    for (int64_t t = 0; t < start.back(); ++t) {
      rows.emplace_back();
      for (int64_t i = 0; i < width; ++i) rows.back().push_back(value_at(out, out_dtype, t * width + i));
    }
    return rows;
  }

 private:
  // Rows of queries, width + 5 apart, as bf16 in their places.
  std::vector<bf16> in_places(const std::vector<float>& q, int64_t rows) const {
    const int64_t D = heads_.D, width = heads_.H * D;
    std::vector<bf16> placed(q.size());
    for (int64_t t = 0; t < rows && D % 32 == 0; ++t)
      for (int64_t i = 0; i < width; ++i)
        placed[t * (width + 5) + i / D * D + query_place(i % D, D)] = to_bf16(q[t * (width + 5) + i]);
    return placed;
  }
  static const float* scales_or_null(const std::vector<float>& scales) {
    return scales.empty() ? nullptr : scales.data();
  }
  std::vector<uint8_t> poisoned(int64_t blocks) {
    const int64_t n = blocks * layout_.block_elements();
    if (layout_.dtype == DType::kI8) return std::vector<uint8_t>(n, 0xff);  // scales of NaN, where there are any
    std::vector<float> values(n, NAN);
    if (layout_.head_dim != layout_.padded_dim()) std::fill(values.begin(), values.end(), 0.0f);  // padding is zero
    return as_dtype(values, layout_.dtype);
  }
  void add_sequence(int64_t n, const std::vector<int32_t>& order) {
    auto& table = tables_.emplace_back();
    for (int64_t i = 0; i < n; i += layout_.block_tokens) table.push_back(order[used_++]);
    const int64_t width = heads_.G * heads_.D;
    const auto k = random_floats(random_, n * width), v = random_floats(random_, n * width);
    std::vector<int64_t> slots;
    for (int64_t p = 0; p < n; ++p)
      slots.push_back(table[p / layout_.block_tokens] * layout_.block_tokens + p % layout_.block_tokens);
    kv_write({.k = k.data(),
              .v = v.data(),
              .slots = slots.data(),
              .k_cache = k_.data(),
              .v_cache = v_.data(),
              .layout = layout_,
              .T = n,
              .stride = width,
              .k_scales = scales_or_null(k_scales_),
              .v_scales = scales_or_null(v_scales_)});
    q_.push_back(random_floats(random_, n * (heads_.H * heads_.D + 5), 1.5f));
  }

  const Heads heads_;
  const std::vector<int64_t> lengths_;
  Random random_;
  KvLayout layout_;
  size_t used_ = 0;
  std::vector<uint8_t> k_, v_;
  std::vector<std::vector<int32_t>> tables_;
  std::vector<std::vector<float>> q_;
  std::vector<float> slopes_, k_scales_, v_scales_;
};

constexpr Heads kHeads[] = {
    {.H = 1, .G = 1, .D = 1},
    {.H = 5, .G = 5, .D = 16},
    {.H = 8, .G = 2, .D = 12},
    {.H = 6, .G = 2, .D = 20, .window = 24},
    {.H = 32, .G = 8, .D = 64},
    {.H = 14, .G = 2, .D = 64, .kv = DType::kBf16},
    {.H = 4, .G = 2, .D = 33, .kv = DType::kBf16, .window = 7},
    {.H = 3, .G = 1, .D = 128, .kv = DType::kF16, .soft_cap = 5},
    {.H = 2, .G = 1, .D = 256, .kv = DType::kBf16, .soft_cap = 20, .block_tokens = 32},
    {.H = 40, .G = 1, .D = 24, .alibi = true, .block_tokens = 48},
    {.H = 7, .G = 1, .D = 80, .kv = DType::kF16, .window = 100, .alibi = true},
    {.H = 6, .G = 3, .D = 16, .alibi = true, .alibi_bf16 = true},
    {.H = 4, .G = 1, .D = 64, .kv = DType::kBf16, .alibi = true, .alibi_bf16 = true},
    {.H = 8, .G = 4, .D = 80, .kv = DType::kBf16},
    {.H = 40, .G = 1, .D = 96, .kv = DType::kBf16, .window = 100, .alibi = true, .block_tokens = 48},
    {.H = 9, .G = 9, .D = 128, .kv = DType::kBf16, .window = 40, .soft_cap = 5},
    {.H = 6, .G = 2, .D = 32, .factors = true},
    {.H = 14, .G = 2, .D = 64, .kv = DType::kBf16, .factors = true},
    {.H = 1, .G = 1, .D = 1, .kv = DType::kI8},
    {.H = 1, .G = 1, .D = 2, .kv = DType::kI8, .token_scales = true},
    {.H = 14, .G = 2, .D = 64, .kv = DType::kI8},
    {.H = 14, .G = 2, .D = 64, .kv = DType::kI8, .token_scales = true},
    {.H = 4, .G = 2, .D = 33, .kv = DType::kI8, .window = 7, .token_scales = true},
    {.H = 3, .G = 1, .D = 128, .kv = DType::kI8, .soft_cap = 5, .token_scales = true},
    {.H = 2, .G = 1, .D = 256, .kv = DType::kI8, .soft_cap = 20, .block_tokens = 32},
    {.H = 40, .G = 1, .D = 24, .kv = DType::kI8, .alibi = true, .block_tokens = 48, .token_scales = true},
    {.H = 7, .G = 1, .D = 80, .kv = DType::kI8, .window = 100, .alibi = true},
    {.H = 4, .G = 1, .D = 96, .kv = DType::kI8, .alibi = true, .alibi_bf16 = true, .token_scales = true},
    {.H = 14, .G = 2, .D = 64, .kv = DType::kI8, .factors = true, .block_tokens = 64, .token_scales = true},
};

// Products of bf16 pairs and tiles round queries and weights: for a bf16 cache to bf16, 2^-9 of scores and of weights;
// products of integers for an int8 one to sixteen bits, with tiles queries to fifteen.
float rounding_error(Isa isa, DType kv) {
  if (kv == DType::kBf16) return isa >= Isa::kAvx512Bf16 ? 0.03f : 0.0f;
  if (kv != DType::kI8 || isa < Isa::kAvx512) return 0;
  return isa == Isa::kAmx ? 1e-3f : 2e-4f;
}

TEST(PagedAttention, EveryImplementationAgreesWithPortable) {
  for (size_t i = 0; i < std::size(kHeads); ++i) {
    Model model(kHeads[i], {1, 17, 70, 130, 600}, /*seed=*/i);
    const std::vector<Model::Query> queries = {{0, 0, 1}, {1, 0, 17}, {2, 69, 70}, {3, 60, 130}, {4, 508, 518}};
    const auto want = model.run(paged_attention_impls().back().run, queries, DType::kF32);
    for (const auto& impl : paged_attention_impls()) {
      if (!cpu_has(impl.needs)) continue;
      const float bound = 1e-5f + rounding_error(impl.needs, kHeads[i].kv);
      for (const DType out : {DType::kF32, DType::kBf16}) {
        const auto got = model.run(impl.run, queries, out);
        for (size_t t = 0; t < want.size(); ++t)
          for (size_t j = 0; j < want[t].size(); ++j)
            ASSERT_NEAR(got[t][j], want[t][j], bound + step_of(want[t][j], out))
                << impl.name << " heads " << i << " row " << t << " element " << j;
      }
    }
  }
}

TEST(PagedAttention, ARowIsBitIdenticalAloneInABatchAndInAnyChunks) {
  const int all = compute_threads();
  for (size_t i = 0; i < std::size(kHeads); ++i) {
    Model model(kHeads[i], {600, 40, 100}, /*seed=*/100 + i);
    for (const auto& impl : paged_attention_impls()) {
      if (!cpu_has(impl.needs) || impl.needs == Isa::kPortable) continue;
      SCOPED_TRACE(testing::Message() << impl.name << " heads " << i);
      const auto whole = model.run(impl.run, {{0, 0, 600}, {1, 0, 40}, {2, 0, 100}}, DType::kF32);
      for (const int threads : {1, all}) {
        set_compute_threads(threads);
        for (const int64_t p : {0, 1, 15, 63, 64, 511, 512, 599}) {
          const auto alone = model.run(impl.run, {{0, p, p + 1}}, DType::kF32);
          ASSERT_EQ(alone[0], whole[p]) << "position " << p;
        }
        for (const auto& [first, chunk] : {std::pair<int64_t, int64_t>{490, 7}, {0, 64}, {0, 333}})
          for (int64_t p = first; p < 600; p += chunk) {
            const int64_t end = std::min<int64_t>(600, p + chunk);
            const auto part = model.run(impl.run, {{2, 99, 100}, {0, p, end}}, DType::kF32);
            for (int64_t t = p; t < end; ++t) ASSERT_EQ(part[1 + t - p], whole[t]) << "position " << t;
            ASSERT_EQ(part[0], whole.back());
          }
      }
      set_compute_threads(all);
    }
  }
}

TEST(PagedAttention, RoundedQueriesInTheirPlacesGiveTheBitsOfTheirValues) {
  for (size_t i = 0; i < std::size(kHeads); ++i) {
    if (kHeads[i].D % 32 != 0) continue;
    Model model(kHeads[i], {17, 130, 600}, /*seed=*/300 + i);
    model.round_queries();
    const std::vector<Model::Query> queries = {{0, 16, 17}, {1, 0, 130}, {2, 508, 518}};
    for (const auto& impl : paged_attention_impls()) {
      if (!cpu_has(impl.needs)) continue;
      ASSERT_EQ(model.run(impl.run, queries, DType::kF32, DType::kBf16), model.run(impl.run, queries, DType::kF32))
          << impl.name << " heads " << i;
    }
  }
}

TEST(PagedAttention, ARowIsBitIdenticalAmongManySequences) {
  const std::vector<int64_t> lengths = {3, 70, 129, 64, 500, 530, 16, 17, 33, 1, 90, 200};
  for (size_t i = 0; i < std::size(kHeads); ++i) {
    Model model(kHeads[i], lengths, /*seed=*/200 + i);
    std::vector<Model::Query> queries;  // one, two or three tokens of each
    for (size_t s = 0; s < lengths.size(); ++s)
      queries.push_back({s, std::max<int64_t>(0, lengths[s] - 1 - static_cast<int64_t>(s % 3)), lengths[s]});
    for (const auto& impl : paged_attention_impls()) {
      if (!cpu_has(impl.needs) || impl.needs == Isa::kPortable) continue;
      const auto together = model.run(impl.run, queries, DType::kF32);
      size_t row = 0;
      for (const Model::Query& query : queries)
        for (const std::vector<float>& alone : model.run(impl.run, {query}, DType::kF32))
          ASSERT_EQ(alone, together[row++]) << impl.name << " heads " << i << " sequence " << query.sequence;
    }
  }
}

// One sequence whose keys are zeros but for some first elements, for queries that are 200 in theirs: a score is 25
// times the key's element. Values are random.
class FirstElements {
 public:
  static constexpr int64_t kLength = 200, H = 8, D = 64;
  explicit FirstElements(const std::vector<std::pair<int64_t, float>>& keys) : q_(kLength * H * D), k_(kLength * D) {
    Random random(9);
    v_ = random_floats(random, kLength * D);
    for (float& x : v_) x = to_float(to_bf16(x));
    for (size_t i = 0; i < q_.size(); i += D) q_[i] = 200;
    for (const auto& [position, key] : keys) k_[position * D] = key;
    std::iota(table_.begin(), table_.end(), 0);
    std::vector<int64_t> slots(kLength);
    std::iota(slots.begin(), slots.end(), 0);
    kv_write({.k = k_.data(),
              .v = v_.data(),
              .slots = slots.data(),
              .k_cache = k_cache_.data(),
              .v_cache = v_cache_.data(),
              .layout = kLayout,
              .T = kLength,
              .stride = D});
  }
  // Rows of the last `fresh` of `context` positions.
  std::vector<float> run(AttentionFn* attention, int32_t context, int32_t fresh) const {
    const int32_t start[] = {0, fresh};
    std::vector<float> out(fresh * H * D);
    attention({.q = q_.data(),
               .k_cache = k_cache_.data(),
               .v_cache = v_cache_.data(),
               .layout = kLayout,
               .query_start = start,
               .context_len = &context,
               .block_table = table_.data(),
               .out = out.data(),
               .alibi_slopes = nullptr,
               .q_factors = nullptr,
               .scratch = nullptr,
               .scratch_bytes = 0,
               .S = 1,
               .H = H,
               .max_blocks = static_cast<int64_t>(table_.size()),
               .q_stride = H * D,
               .out_stride = H * D,
               .scale = 0.125f});
    return out;
  }
  // What all heads of position t have, in float64.
  std::vector<double> row(int64_t t) const {
    std::vector<double> sums(D);
    double top = -INFINITY, total = 0;
    for (int64_t j = 0; j <= t; ++j) top = std::max<double>(top, 25 * k_[j * D]);
    for (int64_t j = 0; j <= t; ++j) {
      const double weight = std::exp(25.0 * k_[j * D] - top);
      total += weight;
      for (int64_t d = 0; d < D; ++d) sums[d] += weight * v_[j * D + d];
    }
    for (double& sum : sums) sum /= total;
    return sums;
  }
  void expect_rows(AttentionFn* attention, int32_t fresh) const {
    const std::vector<float> got = run(attention, kLength, fresh);
    for (int64_t t = 0; t < fresh; ++t) {
      const auto want = row(kLength - fresh + t);
      for (int64_t i = 0; i < H * D; ++i) ASSERT_NEAR(got[t * H * D + i], want[i % D], 1e-4) << "row " << t;
    }
  }

 private:
  static constexpr KvLayout kLayout{.block_tokens = 16, .kv_heads = 1, .head_dim = D, .dtype = DType::kBf16};
  std::vector<float> q_, k_, v_;
  std::vector<int32_t> table_ = std::vector<int32_t>((kLength + 15) / 16);
  std::vector<uint8_t> k_cache_ = std::vector<uint8_t>(table_.size() * kLayout.block_bytes()), v_cache_ = k_cache_;
};

// Each row's output is the value of the last of two high scores that it sees, or the mean of all. The exponent of 400
// is rounded to 2^-15. Rows that see neither are those of a sequence without.
TEST(PagedAttention, ScoresMayRiseBeyondFloat32WithinAPartition) {
  const FirstElements model({{90, 8}, {150, 16}});
  for (const auto& impl : paged_attention_impls()) {
    if (!cpu_has(impl.needs)) continue;
    SCOPED_TRACE(impl.name);
    model.expect_rows(impl.run, model.kLength);
    model.expect_rows(impl.run, 1);
    const auto alone = model.run(impl.run, 90, 90);
    auto together = model.run(impl.run, model.kLength, model.kLength);
    together.resize(alone.size());
    EXPECT_EQ(together, alone);
  }
}

// Of any size below, and in a tile that all rows see or only some.
TEST(PagedAttention, ScoresMayLieFarBelowTheTop) {
  for (const float key : {-1.0f, -3.0f, -900.0f, -1100.0f, -3000.0f, -1e30f, -INFINITY}) {
    const FirstElements model({{5, key}, {70, key}, {195, key}});
    for (const auto& impl : paged_attention_impls()) {
      if (!cpu_has(impl.needs)) continue;
      SCOPED_TRACE(testing::Message() << impl.name << " key " << key);
      model.expect_rows(impl.run, model.kLength);
      model.expect_rows(impl.run, 2);
    }
  }
}

TEST(PagedAttention, AKeyOfNanMakesNanOfTheRowsThatSeeIt) {
  constexpr int64_t kRow = FirstElements::H * FirstElements::D;
  const FirstElements sane({});
  for (const auto& impl : paged_attention_impls()) {
    if (!cpu_has(impl.needs)) continue;
    const auto want = sane.run(impl.run, sane.kLength, sane.kLength);
    for (const float key : {NAN, -NAN})
      for (const int64_t position : {3, 170}) {
        SCOPED_TRACE(testing::Message() << impl.name << " key " << key << " at " << position);
        const FirstElements model({{position, key}});
        const auto got = model.run(impl.run, model.kLength, model.kLength);
        const auto first = got.begin() + position * kRow;
        EXPECT_TRUE(std::equal(got.begin(), first, want.begin()));
        EXPECT_TRUE(std::all_of(first, got.end(), [](float x) { return std::isnan(x); }));
      }
  }
}

TEST(KvQuantize, EveryImplementationIsThePortableOne) {
  Random random(5);
  KvQuantizeFn* const portable = kv_quantize_impls().back().run;
  for (const auto& impl : kv_quantize_impls()) {
    if (!cpu_has(impl.needs)) continue;
    for (const int64_t n : {1, 3, 15, 16, 17, 64, 80, 255, 256})
      for (const float given : {0.0f, 0.03f})
        for (const float odd : {1.0f, 0.0f, 1e-35f, 1e30f, INFINITY, NAN}) {
          auto x = random_floats(random, n);
          if (std::abs(odd) < 1) std::fill(x.begin(), x.end(), odd);
          x[random.below(static_cast<uint32_t>(n))] = odd;
          std::vector<int8_t> got(n + 16, 99), want(n + 16, 99);
          const float scale = impl.run(x.data(), n, given, got.data());
          const float expected = portable(x.data(), n, given, want.data());
          EXPECT_EQ(std::memcmp(&scale, &expected, 4), 0) << impl.name << ' ' << n << ' ' << odd;
          EXPECT_EQ(got, want) << impl.name << ' ' << n << ' ' << odd;
        }
  }
}

TEST(KvQuantize, AnElementIsAtMostHalfAStepAway) {
  Random random(6);
  std::vector<int8_t> q(64);
  for (const float size : {1e-3f, 1.0f, 1e4f}) {
    const auto x = random_floats(random, 64, size);
    const float scale = kv_quantize_impls().front().run(x.data(), 64, 0, q.data());
    int largest = 0;
    for (int d = 0; d < 64; ++d) {
      EXPECT_NEAR(x[d], scale * q[d], 0.5001f * scale);
      largest = std::max(largest, std::abs(static_cast<int>(q[d])));
    }
    EXPECT_EQ(largest, 127);
  }
}

TEST(KvQuantize, WhatAScaleDoesNotReachIsClamped) {
  const float x[] = {1.0f, -1.0f, 0.015f, 0.005f, NAN, INFINITY};
  int8_t q[6];
  for (const auto& impl : kv_quantize_impls()) {
    if (!cpu_has(impl.needs)) continue;
    EXPECT_EQ(impl.run(x, 6, 0.0078125f / 2, q), 0.0078125f / 2);
    EXPECT_EQ(std::vector<int8_t>(q, q + 6), (std::vector<int8_t>{127, -127, 4, 1, -127, 127})) << impl.name;
  }
}

struct WrittenCache {
  std::vector<bf16> keys, values;
  bool operator==(const WrittenCache& other) const {
    const auto same = [](const std::vector<bf16>& a, const std::vector<bf16>& b) {
      return std::memcmp(a.data(), b.data(), a.size() * sizeof(bf16)) == 0;
    };
    return same(keys, other.keys) && same(values, other.values);
  }
};

// Tokens go to `slots`, `at_once` of them with a call; k and v [T, G, D] are 5 floats further apart.
WrittenCache written(const KvLayout& layout, const std::vector<float>& k, const std::vector<float>& v,
                     const std::vector<int64_t>& slots, int64_t at_once) {
  const auto T = static_cast<int64_t>(slots.size());
  const int64_t stride = layout.kv_heads * layout.head_dim + 5;
  WrittenCache cache{std::vector<bf16>(4 * layout.block_elements()), std::vector<bf16>(4 * layout.block_elements())};
  for (int64_t t = 0; t < T; t += at_once)
    kv_write({.k = k.data() + t * stride,
              .v = v.data() + t * stride,
              .slots = slots.data() + t,
              .k_cache = cache.keys.data(),
              .v_cache = cache.values.data(),
              .layout = layout,
              .T = std::min(at_once, T - t),
              .stride = stride});
  return cache;
}

TEST(KvWrite, TokensWrittenTogetherLieAsThoseWrittenAlone) {
  Random random(3);
  const float odd[] = {NAN, -NAN, INFINITY, -INFINITY, 1e-40f, -3e38f, -0.0f, 3.4e38f};
  for (const int64_t D : {1, 16, 37, 64, 80, 96, 128})
    for (const int64_t block_tokens : {16, 32}) {
      SCOPED_TRACE(testing::Message() << "heads of " << D << ", blocks of " << block_tokens);
      const KvLayout layout{.block_tokens = block_tokens, .kv_heads = 3, .head_dim = D, .dtype = DType::kBf16};
      std::vector<int64_t> slots;  // whole sixteens, a gap, a piece that begins within, one that ends within
      for (int64_t slot = 16; slot < 64; ++slot)
        if (slot < 35 || slot > 37) slots.push_back(slot);
      for (int64_t slot = 5; slot < 12; ++slot) slots.push_back(slot);
      const auto T = static_cast<int64_t>(slots.size());
      std::vector<float> k = random_floats(random, T * (3 * D + 5)), v = random_floats(random, T * (3 * D + 5));
      for (size_t i = 0; i < k.size(); i += 11) k[i] = odd[i % 8], v[i + 1 < v.size() ? i + 1 : i] = odd[(i + 3) % 8];
      EXPECT_TRUE(written(layout, k, v, slots, T) == written(layout, k, v, slots, 1));
    }
}

// Two tokens of H heads that share values of 16 elements, all ones but one NaN of the second token.
void expect_nan_of_the_second_token(const Impl<AttentionFn>& impl, const KvLayout& layout, int64_t H) {
  SCOPED_TRACE(testing::Message() << impl.name << ' ' << dtype_name(layout.dtype) << ", heads " << H);
  std::vector<uint8_t> keys(layout.block_bytes()), values(layout.block_bytes());
  std::vector<float> k(32, 1.0f), v(32, 1.0f), q(2 * H * 16, 1.0f), out(2 * H * 16);
  v[20] = NAN;
  const int64_t slots[] = {0, 1};
  kv_write({.k = k.data(),
            .v = v.data(),
            .slots = slots,
            .k_cache = keys.data(),
            .v_cache = values.data(),
            .layout = layout,
            .T = 2,
            .stride = 16});
  const int32_t start[] = {0, 2}, context[] = {2}, table[] = {0};
  impl.run({.q = q.data(),
            .k_cache = keys.data(),
            .v_cache = values.data(),
            .layout = layout,
            .query_start = start,
            .context_len = context,
            .block_table = table,
            .out = out.data(),
            .alibi_slopes = nullptr,
            .q_factors = nullptr,
            .scratch = nullptr,
            .scratch_bytes = 0,
            .S = 1,
            .H = H,
            .max_blocks = 1,
            .q_stride = H * 16,
            .out_stride = H * 16,
            .scale = 1});
  for (int64_t i = 0; i < H * 16; ++i) EXPECT_NEAR(out[i], 1.0f, 0.01f) << i;
  for (int64_t h = H; h < 2 * H; ++h) EXPECT_TRUE(std::isnan(out[h * 16 + 4]));
}

TEST(PagedAttention, AHeadThatIsNotFiniteIsSeenInAnInt8Cache) {
  for (const auto& impl : paged_attention_impls())
    if (cpu_has(impl.needs))
      expect_nan_of_the_second_token(impl, {.kv_heads = 1, .head_dim = 16, .dtype = DType::kI8, .token_scales = true},
                                     1);
}

// Whichever rows share a tile. AMX tiles multiply what is not finite by zeros.
TEST(PagedAttention, AValueThatIsNotFiniteIsForRowsThatSeeIt) {
  for (const auto& impl : paged_attention_impls())
    for (const DType kv : {DType::kF32, DType::kF16, DType::kBf16})
      for (const int64_t H : {1, 2, 3, 5, 14})
        if (cpu_has(impl.needs) && impl.needs != Isa::kAmx)
          expect_nan_of_the_second_token(impl, {.kv_heads = 1, .head_dim = 16, .dtype = kv}, H);
}

TEST(KvSlots, FollowTheBlockTable) {
  const int32_t query_start[] = {0, 1, 4}, context_len[] = {18, 3}, block_table[] = {5, 9, 2, -1};
  int64_t slots[4];
  kv_slots({.query_start = query_start,
            .context_len = context_len,
            .block_table = block_table,
            .S = 2,
            .max_blocks = 2,
            .block_tokens = 16,
            .slots = slots});
  EXPECT_EQ(std::vector<int64_t>(slots, slots + 4), (std::vector<int64_t>{9 * 16 + 1, 32, 33, 34}));
}

}  // namespace
}  // namespace millrace
