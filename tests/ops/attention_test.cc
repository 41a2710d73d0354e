#include "ops/attention.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "ops/norm.h"
#include "ops/rows.h"
#include "tests/ops/testing.h"

namespace millrace {
namespace {

// Enough for normal numbers; heads differ, and layer 0 is not like the others.
KvScales head_scales(int64_t heads) {
  KvScales scales;
  for (int64_t i = 0; i < heads; ++i) {
    scales.keys.push_back(i < heads / 2 ? 1e-6f : 0.035f + 0.005f * static_cast<float>(i % 2));
    scales.values.push_back(i < heads / 2 ? 1e-6f : 0.04f - 0.005f * static_cast<float>(i % 2));
  }
  return scales;
}

// One token after another through a fused qkv row, against softmax(q k) v written out.
TEST(PagedAttention, AgreesWithTheFormulaThroughTheCache) {
  constexpr int64_t H = 4, G = 2, D = 20, T = 40, kWidth = (H + 2 * G) * D;
  Random random(8);
  for (const KvType type :
       {KvType(DType::kF32), KvType(DType::kBf16), KvType(DType::kF16), KvType(DType::kI8), KvType(DType::kI8, true)}) {
    const DType dtype = type.dtype;
    Tensor qkv = random_tensor(random, {T, kWidth});
    const auto heads = [&](int64_t at, int64_t n) {
      return Tensor(qkv.data<float>() + at * D, DType::kF32, {T, n, D}, {kWidth, D, 1}, qkv.owner());
    };
    const Tensor q = heads(0, H), k = heads(H, G), v = heads(H + G, G);
    const KvCache::Config config = {.layers = 2,
                                    .blocks = 5,
                                    .block_tokens = 16,
                                    .kv_heads = G,
                                    .head_dim = D,
                                    .dtype = dtype,
                                    .token_scales = type.token_scales};
    KvCache cache(config, config.has_head_scales() ? head_scales(2 * G) : KvScales{});
    const int32_t query_start[] = {0, T}, context_len[] = {T}, block_table[] = {4, 0, 2};
    const AttentionStep step{query_start, context_len, block_table, 3};
    std::vector<int64_t> slots(T);
    kv_slots(step, 16, slots);
    cache.write(1, k, v, slots);
    Tensor out = Tensor::empty(DType::kF32, {T, H * D});
    Workspace workspace(attention_scratch_bytes(H, cache.config(), 48));
    const float scale = 1 / std::sqrt(static_cast<float>(D));
    paged_attention(q, cache, 1, step, {.scale = scale}, out, workspace);
    const double bound = dtype == DType::kF32 ? 1e-5 : dtype == DType::kF16 ? 4e-3 : dtype == DType::kI8 ? 6e-2 : 3e-2;
    for (int64_t t = 0; t < T; ++t)
      for (int64_t h = 0; h < H; ++h) {
        std::vector<double> weights(t + 1), sums(D);
        double total = 0;
        for (int64_t j = 0; j <= t; ++j) {
          for (int64_t d = 0; d < D; ++d)
            weights[j] += static_cast<double>(q.data<float>()[t * kWidth + h * D + d]) *
                          k.data<float>()[j * kWidth + h / 2 * D + d] * scale;
          total += weights[j] = std::exp(weights[j]);
        }
        for (int64_t d = 0; d < D; ++d) {
          for (int64_t j = 0; j <= t; ++j) sums[d] += weights[j] / total * v.data<float>()[j * kWidth + h / 2 * D + d];
          ASSERT_NEAR(out.data<float>()[t * H * D + h * D + d], sums[d], bound) << dtype_name(dtype) << ' ' << t;
        }
      }
  }
}

TEST(KvCache, ACopiedBlockReadsLikeItsSource) {
  constexpr int64_t G = 1, D = 16, T = 10;
  Random random(9);
  for (const KvType type : {KvType(DType::kF32), KvType(DType::kI8, true)}) {
    KvCache cache({.layers = 3,
                   .blocks = 4,
                   .kv_heads = G,
                   .head_dim = D,
                   .dtype = type.dtype,
                   .token_scales = type.token_scales});
    const Tensor k = random_tensor(random, {T, G, D}), v = random_tensor(random, {T, G, D}),
                 q = random_tensor(random, {1, G, D});
    std::vector<int64_t> slots(T);
    for (int64_t t = 0; t < T; ++t) slots[t] = 16 + t;
    cache.write(2, k, v, slots);
    cache.copy_block(1, 3);
    Workspace workspace(attention_scratch_bytes(G, cache.config(), 16) + 64);
    const auto read = [&](int32_t block) {
      const int32_t query_start[] = {0, 1}, context_len[] = {T};
      Tensor out = Tensor::empty(DType::kF32, {1, D});
      paged_attention(q, cache, 2, {query_start, context_len, {&block, 1}, 1}, {}, out, workspace);
      return std::vector<float>(out.data<float>(), out.data<float>() + D);
    };
    EXPECT_EQ(read(1), read(3));
    EXPECT_NE(read(1), std::vector<float>(D, 0.0f));
  }
}

TEST(KvCache, BytesPerBlockCountKeysAndValuesOfAllLayers) {
  EXPECT_EQ(KvCache::bytes_per_block(
                {.layers = 16, .blocks = 9, .block_tokens = 16, .kv_heads = 8, .head_dim = 64, .dtype = DType::kBf16}),
            16 * 2 * (16 * 8 * 64 * 2 + 64));  // whole pages are a line longer
  KvCache::Config int8 = {.layers = 16, .blocks = 9, .kv_heads = 8, .head_dim = 64, .dtype = DType::kI8};
  EXPECT_EQ(KvCache::bytes_per_block(int8), 16 * 2 * (16 * 8 * 64 + 64));
  int8.token_scales = true;
  EXPECT_EQ(KvCache::bytes_per_block(int8), 16 * 2 * 16 * 8 * (64 + 4));
}

TEST(Norm, AddsTheResidualBeforeItNorms) {
  Random random(10);
  const Tensor w = random_tensor(random, {30}, DType::kBf16);
  const Norm norm(Norm::Kind::kRms, w, Tensor(), 1e-5);
  Tensor h = random_tensor(random, {4, 30}), y = Tensor::empty(DType::kF32, {4, 30}),
         expected = Tensor::empty(DType::kF32, {4, 30});
  const Tensor residual = random_tensor(random, {4, 30});
  Tensor sum = Tensor::empty(DType::kF32, {4, 30});
  std::memcpy(sum.raw(), h.raw(), h.bytes());
  add_scaled(sum, residual, 2.0f);
  norm(sum, expected);
  norm.add(h, residual, 2.0f, y);
  for (int64_t i = 0; i < h.numel(); ++i) {
    EXPECT_NEAR(h.data<float>()[i], sum.data<float>()[i], 1e-6f);
    EXPECT_NEAR(y.data<float>()[i], expected.data<float>()[i], 1e-5f);
  }
}

TEST(Rows, SoftCapStaysBelowTheCap) {
  Tensor x = Tensor::empty(DType::kF32, {3});
  x.data<float>()[0] = 1e6f, x.data<float>()[1] = -1e6f, x.data<float>()[2] = 0.01f;
  soft_cap(x, 30.0f);
  EXPECT_EQ(x.data<float>()[0], 30.0f);
  EXPECT_EQ(x.data<float>()[1], -30.0f);
  EXPECT_NEAR(x.data<float>()[2], 0.01f, 1e-7f);
}

}  // namespace
}  // namespace millrace
