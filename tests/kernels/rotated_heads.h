// What every format's products must hold whose outputs are heads of queries, keys and values.
#pragma once
#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <vector>

#include "base/random.h"
#include "kernels/parallel.h"
#include "kernels/rope.h"
#include "kernels/rotated_heads.h"
#include "tests/kernels/testing.h"

namespace millrace {

// x [M, K] to q_heads heads of queries, kv_heads of keys and of values.
struct HeadsDraw {
  int64_t i;  // how many draws came before
  int64_t M, K, head_dim, q_heads, kv_heads;
  int64_t columns() const { return (q_heads + 2 * kv_heads) * head_dim; }
  int64_t q_width() const { return q_heads * head_dim; }
  int64_t kv_width() const { return 2 * kv_heads * head_dim; }
};

constexpr int64_t kHeadsPadding = 3;  // elements between rows, which nobody writes

// Both in the rows that RotatedHeads has.
struct HeadRows {
  std::vector<bf16> q;
  std::vector<float> kv;
};

// Rows y [M, columns + 1] of a plain product as the heads they must become.
inline HeadRows heads_of_rows(const HeadsDraw& draw, std::vector<float> y, const std::vector<float>& cos,
                              const std::vector<float>& sin) {
  const int64_t stride = draw.columns() + 1, q_stride = draw.q_width() + kHeadsPadding,
                kv_stride = draw.kv_width() + kHeadsPadding;
  rope({.x = y.data(),
        .cos = cos.data(),
        .sin = sin.data(),
        .T = draw.M,
        .heads = draw.q_heads + draw.kv_heads,
        .head_dim = draw.head_dim,
        .dims = draw.head_dim,
        .token_stride = stride});
  HeadRows rows{std::vector<bf16>(draw.M * q_stride, to_bf16(7)), std::vector<float>(draw.M * kv_stride, 7)};
  for (int64_t m = 0; m < draw.M; ++m) {
    const float* const row = y.data() + m * stride;
    for (int64_t i = 0; i < draw.q_width(); ++i)
      rows.q[m * q_stride + i / draw.head_dim * draw.head_dim + query_place(i % draw.head_dim, draw.head_dim)] =
          to_bf16(row[i]);
    std::copy(row + draw.q_width(), row + draw.columns(), rows.kv.begin() + m * kv_stride);
  }
  return rows;
}

// body(draw, compare) calls compare(run), and run(heads, y) gives a product's outputs as rows y [M, columns + 1] where
// heads is null: whose bits, rotated, heads must have on one thread, on all, and on more.
template <class Body>
void expect_heads_as_rows(const Body& body) {
  if (!gemm_rotates(33, 32)) GTEST_SKIP() << "products rotate heads on AMX tiles alone";
  Random random(9);
  const int all = compute_threads(), most = all + 3;
  for (int64_t i = 0; i < 16; ++i) {
    set_compute_threads(most);  // scratch is for so many
    const auto below = [&](uint64_t n) { return static_cast<int64_t>(random() % n); };
    const HeadsDraw draw{.i = i,
                         .M = 33 + below(i % 4 ? 100 : 600),
                         .K = 1 + below(i % 3 ? 300 : 3000),
                         .head_dim = 32 * (1 + below(i % 2 ? 4 : 2)),
                         .q_heads = 1 + below(9),
                         .kv_heads = 1 + below(3)};
    SCOPED_TRACE(testing::Message() << draw.M << " rows, " << draw.K << " to " << draw.q_heads << " + 2 x "
                                    << draw.kv_heads << " heads of " << draw.head_dim);
    const auto cos = random_floats(random, draw.M * draw.head_dim / 2), sin = random_floats(random, cos.size());
    body(draw, [&](const auto& run) {
      std::vector<float> y(draw.M * (draw.columns() + 1));
      run(nullptr, y.data());
      const HeadRows want = heads_of_rows(draw, y, cos, sin);
      for (const int threads : {1, all, most}) {
        set_compute_threads(threads);
        HeadRows got{std::vector<bf16>(want.q.size(), to_bf16(7)), std::vector<float>(want.kv.size(), 7)};
        const RotatedHeads heads{.cos = cos.data(),
                                 .sin = sin.data(),
                                 .head_dim = draw.head_dim,
                                 .q_heads = draw.q_heads,
                                 .kv_heads = draw.kv_heads,
                                 .q = got.q.data(),
                                 .kv = got.kv.data(),
                                 .q_stride = draw.q_width() + kHeadsPadding,
                                 .kv_stride = draw.kv_width() + kHeadsPadding};
        run(&heads, nullptr);
        ASSERT_EQ(0, std::memcmp(got.q.data(), want.q.data(), want.q.size() * 2)) << threads << " threads";
        ASSERT_EQ(0, std::memcmp(got.kv.data(), want.kv.data(), want.kv.size() * 4)) << threads << " threads";
      }
    });
    set_compute_threads(all);
    if (testing::Test::HasFatalFailure()) return;
  }
}

}  // namespace millrace
