#include "ops/grouped_linear.h"

#include <memory>

#include "kernels/gemm_grouped.h"

namespace millrace {
namespace {

void check_call(const LinearCall& call, int64_t width, bool rounded_too) {
  MR_CHECK(call.y.rank() == 2 && call.y.size(0) == call.x.size(0) && call.y.size(1) == width &&
               (call.y.dtype() == DType::kF32 || (rounded_too && call.y.dtype() == DType::kBf16)),
           "x {}, y {} {}, weights [{}, {}]", call.x.shape().to_string(), dtype_name(call.y.dtype()),
           call.y.shape().to_string(), call.linear->out_features(), call.linear->in_features());
}

// Room for one `Args` per call; filled for the calls whose weights are `wanted`.
template <class Args, class Wanted, class Make>
std::span<Args> products_of(std::span<LinearCall> calls, const Wanted& wanted, Args* room, const Make& make) {
  size_t n = 0;
  for (LinearCall& call : calls)
    if (wanted(*call.linear) && call.x.size(0) > 0) std::construct_at(room + n++, make(call));
  return {room, n};
}

template <class Args>
Args* room_for(size_t calls, Workspace& workspace) {
  return reinterpret_cast<Args*>(workspace.bytes(static_cast<int64_t>(calls * sizeof(Args))));
}

bool int8(const Linear& linear) {
  return linear.format() == LinearFormat::kW8A8 || linear.format() == LinearFormat::kW8A16;
}
// W4A16 has no grouped kernel: one after the other.
bool grouped(const Linear& linear) { return linear.format() == LinearFormat::kDense || int8(linear); }
auto of(LinearFormat format) {
  return [format](const Linear& linear) { return linear.format() == format; };
}
auto dense(DType weight) {
  return [weight](const Linear& linear) { return linear.weight_dtype() == weight; };
}

constexpr DType kWeights[] = {DType::kF32, DType::kBf16, DType::kF16};
constexpr LinearFormat kIntegers[] = {LinearFormat::kW8A8, LinearFormat::kW8A16};

// For every call a place among dense products and one among integers.
template <class Dense, class Integers>
int64_t rooms_bytes(int64_t calls) {
  return Workspace::tensor_bytes(DType::kU8, {calls * static_cast<int64_t>(sizeof(Dense))}) +
         Workspace::tensor_bytes(DType::kU8, {calls * static_cast<int64_t>(sizeof(Integers))});
}

}  // namespace

void forward_grouped(std::span<LinearCall> calls, Workspace& workspace) {
  const auto into_y = [](LinearCall& call, auto args) {
    check_call(call, call.linear->out_features(), false);
    args.y = call.y.data<float>();
    args.y_stride = call.y.stride(0);
    return args;
  };
  for (LinearCall& call : calls)
    if (!grouped(*call.linear) && call.x.size(0) > 0) call.linear->forward(call.x, call.y, workspace);
  const Workspace::Scope scope(workspace);
  auto* const room = room_for<GemmArgs>(calls.size(), workspace);
  for (const DType weight : kWeights) {
    const auto products = products_of(calls, dense(weight), room, [&](LinearCall& call) {
      return into_y(call, call.linear->product(call.x, nullptr));
    });
    if (products.empty()) continue;
    const Workspace::Scope inner(workspace);
    gemm_grouped({products, workspace.bytes(gemm_grouped_scratch_bytes(products))});
  }
  auto* const integers = room_for<GemmW8A8Args>(calls.size(), workspace);
  for (const LinearFormat format : kIntegers) {
    const auto products = products_of(calls, of(format), integers, [&](LinearCall& call) {
      return into_y(call, call.linear->w8a8(call.x, nullptr));
    });
    if (products.empty()) continue;
    const Workspace::Scope inner(workspace);
    gemm_w8a8_grouped({products, workspace.bytes(gemm_w8a8_grouped_scratch_bytes(products))});
  }
}

void forward_gated_grouped(std::span<LinearCall> calls, GluActivation activation, Workspace& workspace) {
  const auto into_y = [&](LinearCall& call, auto gated) {
    check_call(call, call.linear->out_features() / 2, true);
    gated.activation = activation;
    gated.y = call.y.raw();
    gated.y_stride = call.y.stride(0);
    gated.y_dtype = call.y.dtype();
    return gated;
  };
  for (LinearCall& call : calls)
    if (!grouped(*call.linear) && call.x.size(0) > 0) call.linear->forward_gated(call.x, activation, call.y, workspace);
  const Workspace::Scope scope(workspace);
  auto* const room = room_for<GatedGemmArgs>(calls.size(), workspace);
  for (const DType weight : kWeights) {
    const auto products = products_of(calls, dense(weight), room, [&](LinearCall& call) {
      return into_y(call, GatedGemmArgs{.product = call.linear->product(call.x, nullptr)});
    });
    if (products.empty()) continue;
    const Workspace::Scope inner(workspace);
    gemm_gated_grouped({products, workspace.bytes(gemm_gated_grouped_scratch_bytes(products))});
  }
  auto* const integers = room_for<GatedGemmW8A8Args>(calls.size(), workspace);
  for (const LinearFormat format : kIntegers) {
    const auto products = products_of(calls, of(format), integers, [&](LinearCall& call) {
      return into_y(call, GatedGemmW8A8Args{.product = call.linear->w8a8(call.x, nullptr)});
    });
    if (products.empty()) continue;
    const Workspace::Scope inner(workspace);
    gemm_gated_w8a8_grouped({products, workspace.bytes(gemm_gated_w8a8_grouped_scratch_bytes(products))});
  }
}

int64_t grouped_scratch_bytes(const Linear& like, int64_t max_calls, int64_t max_rows) {
  const int64_t rooms = rooms_bytes<GemmArgs, GemmW8A8Args>(max_calls), K = like.in_features();
  if (!grouped(like)) return rooms + like.scratch_bytes(max_rows);
  const int64_t bytes = int8(like) ? gemm_w8a8_grouped_scratch_bytes(max_calls, max_rows, K, like.input_digits())
                                   : gemm_grouped_scratch_bytes(max_calls, max_rows, K, like.weight_dtype());
  return rooms + Workspace::tensor_bytes(DType::kU8, {bytes});
}

int64_t gated_grouped_scratch_bytes(const Linear& like, int64_t max_calls, int64_t max_rows) {
  const int64_t rooms = rooms_bytes<GatedGemmArgs, GatedGemmW8A8Args>(max_calls);
  const int64_t N = like.out_features(), K = like.in_features();
  if (!grouped(like)) return rooms + like.gated_scratch_bytes(max_rows);
  const int64_t bytes = int8(like)
                            ? gemm_gated_w8a8_grouped_scratch_bytes(max_calls, max_rows, N, K, like.input_digits())
                            : gemm_gated_grouped_scratch_bytes(max_calls, max_rows, N, K, like.weight_dtype());
  return rooms + Workspace::tensor_bytes(DType::kU8, {bytes});
}

}  // namespace millrace
