#include "ops/experts.h"

#include "kernels/expert_rows.h"

namespace millrace {
namespace {

template <class Item>
std::span<Item> take(Workspace& workspace, int64_t n) {
  return {reinterpret_cast<Item*>(workspace.bytes(n * static_cast<int64_t>(sizeof(Item)))), static_cast<size_t>(n)};
}
int64_t words(int64_t n) { return Workspace::tensor_bytes(DType::kF32, {n}); }

// A product's bytes from the workspace for rows [T, width].
int64_t rows_bytes(const Linear& takes, int64_t T, int64_t width) {
  return Workspace::tensor_bytes(takes.input_dtype(), {T, width});
}

}  // namespace

Router::Router(const Tensor& weight, const Tensor& correction_bias, const RouterParams& params)
    : weight_(Linear::pack({&weight, 1}, {}, DType::kF32)), params_(params) {
  const bool has_bias = correction_bias.raw() != nullptr && correction_bias.numel() > 0;
  MR_CHECK(!has_bias || correction_bias.numel() == experts(), "a correction bias of {} for {} experts",
           correction_bias.numel(), experts());
  if (has_bias) bias_ = converted(correction_bias, DType::kF32);
}

int64_t Router::scratch_bytes(int64_t max_tokens) const {
  return words(max_tokens * experts()) + weight_.scratch_bytes(max_tokens);
}

void Router::forward(const Tensor& x, std::span<int32_t> experts_of, std::span<float> weights,
                     Workspace& workspace) const {
  const int64_t T = x.size(0), E = experts();
  MR_CHECK(
      static_cast<int64_t>(experts_of.size()) == T * params_.experts_per_token && weights.size() == experts_of.size(),
      "{} places for {} tokens", experts_of.size(), T);
  const Workspace::Scope scope(workspace);
  Tensor logits = workspace.tensor(DType::kF32, {T, E});
  weight_.forward(x, logits, workspace);
  millrace::route({.logits = logits.data<float>(),
                   .bias = bias_.data<float>(),
                   .params = params_,
                   .experts = experts_of.data(),
                   .weights = weights.data(),
                   .T = T,
                   .E = E,
                   .stride = E});
}

Experts::Experts(Parts parts) : parts_(std::move(parts)) {
  MR_CHECK(static_cast<int64_t>(parts_.experts.size()) == parts_.router.experts(), "{} experts, the router knows {}",
           parts_.experts.size(), parts_.router.experts());
  for (const GatedMlp& mlp : parts_.experts)
    MR_CHECK(mlp.hidden() == expert().hidden() && mlp.gate_up.in_features() == hidden_size() &&
                 mlp.down.in_features() == mlp.hidden() && mlp.down.out_features() == hidden_size(),
             "an expert of [{}, {}]", mlp.gate_up.out_features(), mlp.gate_up.in_features());
  MR_CHECK(has_shared() || !parts_.shared_gate.defined(), "a gate of {}, no shared expert",
           parts_.shared_gate.out_features());
  calls_.reserve(parts_.experts.size() + 1);
}

// What lies between x and y. Rows of the experts are those of kernels/expert_rows.h, R = T * K of them.
struct Experts::Step {
  int64_t T, K;
  std::span<int32_t> experts, first_row, row_of, token_of_row;
  std::span<float> weights;
  Tensor hidden, shared_hidden;  // [R, F] and [T, shared F], in the type that down takes
  Tensor rows;                   // [R, C] kF32
};

Experts::Step Experts::plan(const Tensor& x, Workspace& workspace) const {
  const int64_t T = x.size(0), K = parts_.router.experts_per_token(), E = parts_.router.experts(), R = T * K;
  Step step{T,
            K,
            take<int32_t>(workspace, R),
            take<int32_t>(workspace, E + 1),
            take<int32_t>(workspace, R),
            take<int32_t>(workspace, R),
            take<float>(workspace, R)};
  step.hidden = workspace.tensor(expert().down.input_dtype(), {R, expert().hidden()});
  if (has_shared())
    step.shared_hidden = workspace.tensor(parts_.shared.down.input_dtype(), {T, parts_.shared.hidden()});
  step.rows = workspace.tensor(DType::kF32, {R, hidden_size()});
  parts_.router.forward(x, step.experts, step.weights, workspace);
  order_by_expert({.experts = step.experts.data(),
                   .T = T,
                   .K = K,
                   .E = E,
                   .first_row = step.first_row.data(),
                   .row_of = step.row_of.data(),
                   .token_of_row = step.token_of_row.data()});
  return step;
}

void Experts::call_gate_up(const Tensor& x, Step& step, Workspace& workspace) {
  const Workspace::Scope scope(workspace);
  const bool alone = step.T == 1;  // every row is the one row of x
  Tensor sorted = alone ? x : workspace.tensor(x.dtype(), {step.T * step.K, x.size(1)});
  if (!alone)
    gather_rows({.from = x.raw(),
                 .to = sorted.raw(),
                 .rows = step.token_of_row.data(),
                 .n = step.T * step.K,
                 .row_bytes = x.size(1) * dtype_bytes(x.dtype()),
                 .from_stride = x.stride(0) * dtype_bytes(x.dtype()),
                 .to_stride = x.size(1) * dtype_bytes(x.dtype())});
  calls_.clear();
  for (size_t e = 0; e < parts_.experts.size(); ++e) {
    const int64_t begin = step.first_row[e], end = step.first_row[e + 1];
    if (begin < end)
      calls_.push_back({&parts_.experts[e].gate_up, alone ? x : sorted.rows(begin, end), step.hidden.rows(begin, end)});
  }
  if (has_shared()) calls_.push_back({&parts_.shared.gate_up, x, step.shared_hidden});
  forward_gated_grouped(calls_, parts_.activation, workspace);
}

// Experts into their rows, the shared one into y.
void Experts::call_down(Step& step, Tensor& y, Workspace& workspace) {
  calls_.clear();
  for (size_t e = 0; e < parts_.experts.size(); ++e) {
    const int64_t begin = step.first_row[e], end = step.first_row[e + 1];
    if (begin < end)
      calls_.push_back({&parts_.experts[e].down, step.hidden.rows(begin, end), step.rows.rows(begin, end)});
  }
  if (has_shared()) calls_.push_back({&parts_.shared.down, step.shared_hidden, y});
  forward_grouped(calls_, workspace);
}

void Experts::combine(const Tensor& x, const Step& step, Tensor& y, Workspace& workspace) const {
  const Workspace::Scope scope(workspace);
  Tensor gate;
  if (parts_.shared_gate.defined()) {
    gate = workspace.tensor(DType::kF32, {step.T, 1});
    parts_.shared_gate.forward(x, gate, workspace);
  }
  combine_rows({.x = step.rows.data<float>(),
                .weights = step.weights.data(),
                .row_of = step.row_of.data(),
                .y = y.data<float>(),
                .T = step.T,
                .K = step.K,
                .C = hidden_size(),
                .y_stride = y.stride(0),
                .adds = has_shared(),
                .gate = gate.data<float>()});
}

void Experts::forward(const Tensor& x, Tensor& y, Workspace& workspace) {
  MR_CHECK(x.rank() == 2 && x.size(1) == hidden_size() && y.shape() == x.shape() && y.dtype() == DType::kF32,
           "x {}, y {}, experts of [{}]", x.shape().to_string(), y.shape().to_string(), hidden_size());
  if (x.size(0) == 0) return;
  const Workspace::Scope scope(workspace);
  Step step = plan(x, workspace);
  call_gate_up(x, step, workspace);
  call_down(step, y, workspace);
  combine(x, step, y, workspace);
}

// Experts that `rows` rows may go to.
int64_t Experts::most_experts(int64_t rows) const {
  return std::min(rows, static_cast<int64_t>(parts_.experts.size()));
}

int64_t Experts::scratch_bytes(int64_t max_tokens) const {
  const int64_t T = max_tokens, R = T * parts_.router.experts_per_token(), C = hidden_size(), calls = most_experts(R);
  const Linear &gate_up = expert().gate_up, &down = expert().down;
  const int64_t step = 4 * words(R) + words(static_cast<int64_t>(parts_.experts.size()) + 1) +
                       rows_bytes(down, R, expert().hidden()) + Workspace::tensor_bytes(DType::kF32, {R, C});
  int64_t up_bytes = Workspace::tensor_bytes(DType::kF32, {R, C}) + gated_grouped_scratch_bytes(gate_up, calls, R);
  int64_t down_bytes = grouped_scratch_bytes(down, calls, R), shared = 0, gate = 0;
  if (has_shared()) {
    shared = rows_bytes(parts_.shared.down, T, parts_.shared.hidden());
    up_bytes += gated_grouped_scratch_bytes(parts_.shared.gate_up, 1, T);
    down_bytes += grouped_scratch_bytes(parts_.shared.down, 1, T);
  }
  if (parts_.shared_gate.defined()) gate = words(T) + parts_.shared_gate.scratch_bytes(T);
  return step + shared + std::max({parts_.router.scratch_bytes(T), up_bytes, down_bytes, gate});
}

int64_t Experts::weight_bytes() const {
  int64_t bytes = parts_.router.weight_bytes();
  if (has_shared()) bytes += parts_.shared.gate_up.weight_bytes() + parts_.shared.down.weight_bytes();
  if (parts_.shared_gate.defined()) bytes += parts_.shared_gate.weight_bytes();
  for (const GatedMlp& mlp : parts_.experts) bytes += mlp.gate_up.weight_bytes() + mlp.down.weight_bytes();
  return bytes;
}

}  // namespace millrace
