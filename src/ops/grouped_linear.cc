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
auto of(LinearFormat format) {
  return [format](const Linear& linear) { return linear.format() == format; };
}
auto dense(DType weight) {
  return [weight](const Linear& linear) { return linear.weight_dtype() == weight; };
}

constexpr DType kWeights[] = {DType::kF32, DType::kBf16, DType::kF16};
constexpr LinearFormat kIntegers[] = {LinearFormat::kW8A8, LinearFormat::kW8A16};
constexpr int64_t kInt4Scales[] = {1, 2, 4};  // of a chunk (kernels/gemm_a16.h)

// For every call a place among products of each kind.
template <class... Args>
int64_t rooms_bytes(int64_t calls) {
  return (Workspace::tensor_bytes(DType::kU8, {calls * static_cast<int64_t>(sizeof(Args))}) + ...);
}

}  // namespace

void forward_grouped(std::span<LinearCall> calls, Workspace& workspace) {
  const auto into_y = [](LinearCall& call, auto args) {
    check_call(call, call.linear->out_features(), false);
    args.y = call.y.data<float>();
    args.y_stride = call.y.stride(0);
    return args;
  };
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
  auto* const int4 = room_for<GemmA16Args>(calls.size(), workspace);
  for (const int64_t scales : kInt4Scales) {
    const Workspace::Scope inner(workspace);
    const auto wanted = [scales](const Linear& linear) { return linear.chunk_scales() == scales; };
    const auto products = products_of(calls, wanted, int4, [&](LinearCall& call) {
      return into_y(call, call.linear->ordered_a16(call.x, workspace));
    });
    if (!products.empty()) gemm_a16_grouped({products, workspace.bytes(gemm_a16_grouped_scratch_bytes(products))});
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
  auto* const int4 = room_for<GatedGemmA16Args>(calls.size(), workspace);
  for (const int64_t scales : kInt4Scales) {
    const Workspace::Scope inner(workspace);
    const auto wanted = [scales](const Linear& linear) { return linear.chunk_scales() == scales; };
    const auto products = products_of(calls, wanted, int4, [&](LinearCall& call) {
      return into_y(call, GatedGemmA16Args{.product = call.linear->ordered_a16(call.x, workspace)});
    });
    if (!products.empty())
      gemm_gated_a16_grouped({products, workspace.bytes(gemm_gated_a16_grouped_scratch_bytes(products))});
  }
}

namespace {

int64_t kernel_bytes(const Linear& like, int64_t max_calls, int64_t max_rows) {
  const int64_t K = like.in_features();
  if (like.format() == LinearFormat::kW4A16) return gemm_a16_grouped_scratch_bytes(max_calls, max_rows, K);
  if (int8(like)) return gemm_w8a8_grouped_scratch_bytes(max_calls, max_rows, K, like.input_digits());
  return gemm_grouped_scratch_bytes(max_calls, max_rows, K, like.weight_dtype());
}

int64_t gated_kernel_bytes(const Linear& like, int64_t max_calls, int64_t max_rows) {
  const int64_t N = like.out_features(), K = like.in_features();
  if (like.format() == LinearFormat::kW4A16) return gemm_gated_a16_grouped_scratch_bytes(max_calls, max_rows, N, K);
  if (int8(like)) return gemm_gated_w8a8_grouped_scratch_bytes(max_calls, max_rows, N, K, like.input_digits());
  return gemm_gated_grouped_scratch_bytes(max_calls, max_rows, N, K, like.weight_dtype());
}

}  // namespace

int64_t grouped_scratch_bytes(const Linear& like, int64_t max_calls, int64_t max_rows) {
  return rooms_bytes<GemmArgs, GemmW8A8Args, GemmA16Args>(max_calls) + like.ordered_bytes(max_rows, max_calls) +
         Workspace::tensor_bytes(DType::kU8, {kernel_bytes(like, max_calls, max_rows)});
}

int64_t gated_grouped_scratch_bytes(const Linear& like, int64_t max_calls, int64_t max_rows) {
  return rooms_bytes<GatedGemmArgs, GatedGemmW8A8Args, GatedGemmA16Args>(max_calls) +
         like.ordered_bytes(max_rows, max_calls) +
         Workspace::tensor_bytes(DType::kU8, {gated_kernel_bytes(like, max_calls, max_rows)});
}

}  // namespace millrace
