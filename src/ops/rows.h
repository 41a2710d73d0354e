// Operations on the rows of the residual stream and of the feed-forward part.
#pragma once
#include <cstdint>
#include <span>

#include "kernels/glu.h"
#include "tensor/tensor.h"

namespace millrace {

// y[t,f] = act(gate_up[t,f]) * gate_up[t,F+f]. gate_up [T, 2F] kF32, y [T, F] kF32 or kBf16; row strides free.
void glu(const Tensor& gate_up, GluActivation activation, Tensor& y);
// y[t,f] = act(x[t,f]). x [T, F] kF32, y [T, F] kF32 or kBf16; row strides free.
void activate(const Tensor& x, GluActivation activation, Tensor& y);
// y += scale * x; both kF32, contiguous, of one shape.
void add_scaled(Tensor& y, const Tensor& x, float scale);
// x *= scale; kF32, contiguous.
void scale_values(Tensor& x, float scale);
// x = cap * tanh(x / cap); kF32, contiguous.
void soft_cap(Tensor& x, float cap);
// y[t] = scale * table[tokens[t]]. table [V, C] kF32, kBf16 or kF16, contiguous; y [T, C] kF32, contiguous; every
// token in [0, V).
void embedding(std::span<const int32_t> tokens, const Tensor& table, float scale, Tensor& y);
// to = from, rounded to nearest even: kF32, kBf16 and kF16 in any direction; contiguous, of one shape.
void convert(const Tensor& from, Tensor& to);

}  // namespace millrace
