// What every format's products must hold that leave a gated product's outputs packed for the product that follows.
#pragma once
#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <vector>

#include "base/random.h"
#include "kernels/glu.h"
#include "kernels/parallel.h"

namespace millrace {

// x [M, K] times [2F, K], gated, times [N, F].
struct PackedDraw {
  int64_t i;  // how many draws came before
  int64_t M, K, F, N;
  GluActivation activation;
};

// body(draw, compare) calls compare(run), and run(packed) gives y [M, N] through rows or packed outputs: whose bits
// must agree, on one thread, on all, and on more, which have few columns each.
template <class Body>
void expect_packed_as_rows(uint64_t most_rows, uint64_t most_k, const Body& body) {
  Random random(3);
  const int all = compute_threads(), most = all + 3;
  for (int64_t i = 0; i < 24; ++i) {
    set_compute_threads(most);  // scratch is for so many
    const auto below = [&](uint64_t n) { return static_cast<int64_t>(random() % n); };
    const PackedDraw draw{.i = i,
                          .M = 33 + below(i % 4 ? 100 : most_rows),
                          .K = 1 + below(i % 2 ? 300 : most_k),
                          .F = 16 * (1 + below(i % 3 ? 12 : 80)),
                          .N = 1 + below(70),
                          .activation = static_cast<GluActivation>(i % 4)};
    SCOPED_TRACE(testing::Message() << draw.M << " rows, " << draw.K << " to " << draw.F << " to " << draw.N);
    body(draw, [&](const auto& run) {
      const std::vector<float> want = run(/*packed=*/false);
      for (const int threads : {1, all, most}) {
        set_compute_threads(threads);
        const std::vector<float> got = run(/*packed=*/true);
        ASSERT_EQ(got.size(), want.size());
        ASSERT_EQ(0, std::memcmp(got.data(), want.data(), want.size() * sizeof(float))) << threads << " threads";
      }
    });
    set_compute_threads(all);
    if (testing::Test::HasFatalFailure()) return;
  }
}

}  // namespace millrace
