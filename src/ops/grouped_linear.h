// Many linears at once, each on rows of its own: threads work on all of them together (kernels/gemm_grouped.h), so that
// a token's few experts are read as fast as one large matrix. Every row is bit-identical to Linear::forward's.
#pragma once
#include <cstdint>
#include <span>

#include "ops/linear.h"

namespace millrace {

// y = linear(x), with what Linear::forward (or forward_gated) demands of x and y. T may be 0. Borrowed for the call.
struct LinearCall {
  const Linear* linear = nullptr;
  Tensor x, y;
};
// The outputs must not overlap.
void forward_grouped(std::span<LinearCall> calls, Workspace& workspace);
void forward_gated_grouped(std::span<LinearCall> calls, GluActivation activation, Workspace& workspace);

// What these take from the workspace for up to max_calls linears of the size and format of `like` with up to max_rows
// rows in all. Where linears of several kinds are called together, the sum over the kinds.
int64_t grouped_scratch_bytes(const Linear& like, int64_t max_calls, int64_t max_rows);
int64_t gated_grouped_scratch_bytes(const Linear& like, int64_t max_calls, int64_t max_rows);

}  // namespace millrace
