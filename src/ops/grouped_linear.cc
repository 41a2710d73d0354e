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

// Room for one `Args` per call; filled for the calls whose weights are of `weight`.
template <class Args, class Make>
std::span<Args> products_of(std::span<LinearCall> calls, DType weight, Args* room, const Make& make) {
  size_t n = 0;
  for (LinearCall& call : calls)
    if (call.linear->weight_dtype() == weight && call.x.size(0) > 0) std::construct_at(room + n++, make(call));
  return {room, n};
}

template <class Args>
Args* room_for(size_t calls, Workspace& workspace) {
  return reinterpret_cast<Args*>(workspace.bytes(static_cast<int64_t>(calls * sizeof(Args))));
}

// Integers have no grouped kernel: one after the other.
bool dense(const LinearCall& call) { return call.linear->format() == LinearFormat::kDense; }

constexpr DType kWeights[] = {DType::kF32, DType::kBf16, DType::kF16};

}  // namespace

void forward_grouped(std::span<LinearCall> calls, Workspace& workspace) {
  const auto make = [](LinearCall& call) {
    check_call(call, call.linear->out_features(), false);
    GemmArgs args = call.linear->product(call.x, nullptr);
    args.y = call.y.data<float>();
    args.y_stride = call.y.stride(0);
    return args;
  };
  for (LinearCall& call : calls)
    if (!dense(call) && call.x.size(0) > 0) call.linear->forward(call.x, call.y, workspace);
  const Workspace::Scope scope(workspace);
  auto* const room = room_for<GemmArgs>(calls.size(), workspace);
  for (const DType weight : kWeights) {
    const std::span<GemmArgs> products = products_of(calls, weight, room, make);
    if (products.empty()) continue;
    const Workspace::Scope inner(workspace);
    gemm_grouped({products, workspace.bytes(gemm_grouped_scratch_bytes(products))});
  }
}

void forward_gated_grouped(std::span<LinearCall> calls, GluActivation activation, Workspace& workspace) {
  const auto make = [&](LinearCall& call) {
    check_call(call, call.linear->out_features() / 2, true);
    return GatedGemmArgs{.product = call.linear->product(call.x, nullptr),
                         .activation = activation,
                         .y = call.y.raw(),
                         .y_stride = call.y.stride(0),
                         .y_dtype = call.y.dtype()};
  };
  for (LinearCall& call : calls)
    if (!dense(call) && call.x.size(0) > 0) call.linear->forward_gated(call.x, activation, call.y, workspace);
  const Workspace::Scope scope(workspace);
  auto* const room = room_for<GatedGemmArgs>(calls.size(), workspace);
  for (const DType weight : kWeights) {
    const std::span<GatedGemmArgs> products = products_of(calls, weight, room, make);
    if (products.empty()) continue;
    const Workspace::Scope inner(workspace);
    gemm_gated_grouped({products, workspace.bytes(gemm_gated_grouped_scratch_bytes(products))});
  }
}

int64_t grouped_scratch_bytes(const Linear& like, int64_t max_calls, int64_t max_rows) {
  if (like.format() != LinearFormat::kDense)
    return like.scratch_bytes(max_rows) +
           Workspace::tensor_bytes(DType::kU8, {max_calls * static_cast<int64_t>(sizeof(GemmArgs))});
  return Workspace::tensor_bytes(DType::kU8, {max_calls * static_cast<int64_t>(sizeof(GemmArgs))}) +
         Workspace::tensor_bytes(
             DType::kU8, {gemm_grouped_scratch_bytes(max_calls, max_rows, like.in_features(), like.weight_dtype())});
}

int64_t gated_grouped_scratch_bytes(const Linear& like, int64_t max_calls, int64_t max_rows) {
  if (like.format() != LinearFormat::kDense)
    return like.gated_scratch_bytes(max_rows) +
           Workspace::tensor_bytes(DType::kU8, {max_calls * static_cast<int64_t>(sizeof(GatedGemmArgs))});
  return Workspace::tensor_bytes(DType::kU8, {max_calls * static_cast<int64_t>(sizeof(GatedGemmArgs))}) +
         Workspace::tensor_bytes(
             DType::kU8, {gemm_gated_grouped_scratch_bytes(max_calls, max_rows, like.out_features(), like.in_features(),
                                                           like.weight_dtype())});
}

}  // namespace millrace
