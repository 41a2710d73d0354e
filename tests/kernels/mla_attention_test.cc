#include "kernels/mla_attention.h"

#include <gtest/gtest.h>

#include <cstring>
#include <numeric>

#include "kernels/parallel.h"
#include "tests/kernels/testing.h"

namespace millrace {
namespace {

constexpr DType kDTypes[] = {DType::kF32, DType::kBf16, DType::kF16};

struct Sequence {
  int64_t context, fresh;  // tokens in all, of them new
};

struct MlaCase {
  const char* name;
  std::vector<Sequence> sequences;
  int64_t H, G, key_dim, value_dim;
  bool shared;  // values are the first elements of the keys
  int64_t block_tokens = 16;
};

// Rows, queries and tables of a step; blocks are dealt in a scrambled order and unused ones are negative.
struct Step {
  Step(const MlaCase& c, DType dtype, uint64_t seed = 5) : c(c), dtype(dtype) {
    Random random(seed);
    for (const Sequence& s : c.sequences)
      max_blocks = std::max(max_blocks, (s.context + c.block_tokens - 1) / c.block_tokens + 1);
    int64_t used = 0;
    for (const Sequence& s : c.sequences) {
      start.push_back(start.back() + static_cast<int32_t>(s.fresh));
      context.push_back(static_cast<int32_t>(s.context));
      for (int64_t b = 0; b < max_blocks; ++b)
        table.push_back(b * c.block_tokens < s.context ? static_cast<int32_t>(used++) : -1);
    }
    for (int32_t& b : table)
      if (b >= 0) b = static_cast<int32_t>((b * 7 + 3) % coprime(used));
    const int64_t blocks = coprime(used);
    keys = rows(random, blocks * c.block_tokens * c.G, c.key_dim);
    if (!c.shared) values = rows(random, blocks * c.block_tokens * c.G, c.value_dim);
    q = random_floats(random, start.back() * (c.H * c.key_dim + 5));
  }
  static int64_t coprime(int64_t n) { return n % 7 == 0 ? n + 1 : n; }
  std::vector<uint8_t> rows(Random& random, int64_t n, int64_t dim) const {
    auto x = random_floats(random, n * mla_padded(dim), 0.7f);
    for (int64_t i = 0; i < n; ++i)
      std::fill(x.begin() + i * mla_padded(dim) + dim, x.begin() + (i + 1) * mla_padded(dim), 0.0f);
    return as_dtype(x, dtype);
  }
  MlaRows layout(const std::vector<uint8_t>& data, int64_t dim) const {
    const int64_t width = mla_padded(dim);
    return {data.data(), c.block_tokens * c.G * width, c.G * width, width};
  }
  // Tokens [first, end) of each sequence's new ones that are asked for, in a step of their own.
  std::vector<float> run(MlaAttentionFn* attention, int64_t scratch_bytes) const {
    return run(attention, scratch_bytes, start, context, q.data());
  }
  std::vector<float> run(MlaAttentionFn* attention, int64_t scratch_bytes, const std::vector<int32_t>& begins,
                         const std::vector<int32_t>& contexts, const float* queries, int64_t first_sequence = 0) const {
    const Aligned scratch(scratch_bytes);
    std::memset(scratch.data, 0xff, static_cast<size_t>(scratch_bytes));  // NaN everywhere
    const int64_t width = c.H * c.value_dim + 3;
    std::vector<float> out(begins.back() * width, 9.0f);
    attention({.q = queries,
               .keys = layout(keys, c.key_dim),
               .values = c.shared ? layout(keys, c.key_dim) : layout(values, c.value_dim),
               .dtype = dtype,
               .query_start = begins.data(),
               .context_len = contexts.data(),
               .block_table = table.data() + first_sequence * max_blocks,
               .out = out.data(),
               .scratch = scratch.data,
               .S = static_cast<int64_t>(contexts.size()),
               .H = c.H,
               .G = c.G,
               .key_dim = c.key_dim,
               .value_dim = c.value_dim,
               .block_tokens = c.block_tokens,
               .max_blocks = max_blocks,
               .q_stride = c.H * c.key_dim + 5,
               .out_stride = width,
               .scale = 0.2f});
    return out;
  }
  int64_t scratch() const { return mla_attention_scratch_bytes(c.key_dim, c.value_dim); }

  const MlaCase c;
  const DType dtype;
  int64_t max_blocks = 0;
  std::vector<int32_t> start{0}, context, table;
  std::vector<uint8_t> keys, values;
  std::vector<float> q;
};

const MlaCase kCases[] = {
    {"one_token", {{1, 1}}, 1, 1, 5, 3, true},
    {"golden_sized", {{40, 9}, {17, 1}}, 4, 1, 48, 32, true},
    {"decode_many_heads", {{700, 1}, {33, 1}, {512, 1}}, 128, 1, 576, 512, true},
    {"ragged_heads", {{530, 3}, {90, 90}}, 20, 1, 72, 40, true, 32},
    {"expanded", {{200, 200}, {600, 70}}, 6, 6, 40, 20, false},
    {"expanded_wide", {{150, 150}}, 2, 2, 192, 128, false},
    {"several_groups", {{66, 5}}, 8, 2, 33, 64, false},
    {"chunk_behind_context", {{1100, 40}}, 16, 1, 96, 64, true},
};

TEST(MlaAttention, EveryImplementationAgreesWithPortable) {
  for (const DType dtype : kDTypes)
    for (const MlaCase& c : kCases) {
      const Step step(c, dtype);
      const auto want = step.run(mla_attention_impls().back().run, step.scratch());
      for (const auto& impl : mla_attention_impls()) {
        if (!cpu_has(impl.needs) || impl.needs == Isa::kPortable) continue;
        SCOPED_TRACE(testing::Message() << c.name << ' ' << dtype_name(dtype) << ' ' << impl.name);
        const auto got = step.run(impl.run, step.scratch());
        // Tiles round queries and weights to bf16: scores move by 2^-9 of their terms' root sum of squares.
        const float bound = impl.needs == Isa::kAmx && dtype == DType::kBf16 ? 0.02f : 2e-5f;
        for (size_t i = 0; i < want.size(); ++i) ASSERT_NEAR(got[i], want[i], bound) << i;
      }
    }
}

TEST(MlaAttention, ARowIsBitIdenticalAloneInChunksAndOnEveryNumberOfThreads) {
  const int all = compute_threads();
  for (const DType dtype : kDTypes)
    for (const MlaCase& c : kCases) {
      const Step step(c, dtype);
      const int64_t width = c.H * c.value_dim + 3, q_stride = c.H * c.key_dim + 5;
      for (const auto& impl : mla_attention_impls()) {
        if (!cpu_has(impl.needs) || impl.needs == Isa::kPortable) continue;
        SCOPED_TRACE(testing::Message() << c.name << ' ' << dtype_name(dtype) << ' ' << impl.name);
        const auto whole = step.run(impl.run, step.scratch());
        for (const int threads : {1, all, 16}) {
          set_compute_threads(threads);
          for (size_t s = 0; s < c.sequences.size(); ++s)
            for (const int64_t size : {1, 37}) {
              const int64_t fresh = c.sequences[s].fresh;
              for (int64_t t = 0; t < fresh; t += std::max<int64_t>(size, fresh / 3)) {
                const int64_t n = std::min(size, fresh - t), token = step.start[s] + t;
                const auto context = static_cast<int32_t>(c.sequences[s].context - fresh + t + n);
                const auto part = step.run(impl.run, step.scratch(), {0, static_cast<int32_t>(n)}, {context},
                                           step.q.data() + token * q_stride, static_cast<int64_t>(s));
                ASSERT_EQ(0, std::memcmp(part.data(), whole.data() + token * width, part.size() * sizeof(float)))
                    << "sequence " << s << " tokens " << t << " to " << t + n << " on " << threads << " threads";
              }
            }
          set_compute_threads(all);
        }
      }
    }
}

TEST(MlaAttention, OutputsMayBeBf16) {
  const Step step(kCases[1], DType::kF32);
  const auto want = step.run(mla_attention, step.scratch());
  const int64_t T = step.start.back(), width = 4 * 32;
  std::vector<bf16> out(T * width);
  const Aligned scratch(step.scratch());
  mla_attention({.q = step.q.data(),
                 .keys = step.layout(step.keys, 48),
                 .values = step.layout(step.keys, 48),
                 .query_start = step.start.data(),
                 .context_len = step.context.data(),
                 .block_table = step.table.data(),
                 .out = out.data(),
                 .scratch = scratch.data,
                 .S = 2,
                 .H = 4,
                 .G = 1,
                 .key_dim = 48,
                 .value_dim = 32,
                 .block_tokens = 16,
                 .max_blocks = step.max_blocks,
                 .q_stride = 4 * 48 + 5,
                 .out_stride = width,
                 .scale = 0.2f,
                 .out_dtype = DType::kBf16});
  for (int64_t t = 0; t < T; ++t)
    for (int64_t i = 0; i < width; ++i)
      ASSERT_EQ(to_float(out[t * width + i]), to_float(to_bf16(want[t * (width + 3) + i])));
}

}  // namespace
}  // namespace millrace
