#include "ops/experts.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "kernels/parallel.h"
#include "tests/ops/testing.h"

namespace millrace {
namespace {

// A layer with random weights of `dtype` in plain tensors, and the plain computation on them.
struct Layer {
  struct Case {
    int64_t C, F, E, K, shared_F;
    bool shared_gate;
    DType dtype;
  };
  explicit Layer(const Case& c) : c(c) {
    Random random(21);
    router = random_tensor(random, {c.E, c.C}, c.dtype, 0.3f);
    for (int64_t e = 0; e <= c.E; ++e) {
      const int64_t F = e < c.E ? c.F : c.shared_F;
      gate.push_back(random_tensor(random, {F, c.C}, c.dtype, 0.2f));
      up.push_back(random_tensor(random, {F, c.C}, c.dtype, 0.2f));
      down.push_back(random_tensor(random, {c.C, F}, c.dtype, 0.2f));
    }
    shared_gate = random_tensor(random, {1, c.C}, c.dtype, 0.2f);
    params = {.experts_per_token = c.K, .normalize = true};
  }
  GatedMlp packed(int64_t e) const {
    const Tensor parts[] = {gate[e], up[e]};
    return {Linear::pack(parts, {}, c.dtype), Linear::pack({&down[e], 1}, {}, c.dtype)};
  }
  Experts make() const {
    Experts::Parts parts{.router = Router(router, Tensor(), params)};
    for (int64_t e = 0; e < c.E; ++e) parts.experts.push_back(packed(e));
    if (c.shared_F > 0) parts.shared = packed(c.E);
    if (c.shared_gate) parts.shared_gate = Linear::pack({&shared_gate, 1}, {}, c.dtype);
    return Experts(std::move(parts));
  }
  static double dot(const Tensor& w, int64_t row, const std::vector<double>& x) {
    double sum = 0;
    for (size_t k = 0; k < x.size(); ++k) sum += element_as_float(w, row * w.size(1) + static_cast<int64_t>(k)) * x[k];
    return sum;
  }
  // As float16 weights meet it: the sum of two bf16.
  double input(double value) const {
    if (c.dtype != DType::kF16) return value;
    const auto x = static_cast<float>(value);
    const float high = to_float(to_bf16(x));
    return high + to_float(to_bf16(x - high));
  }
  // What `down` takes for the hidden row that float16 weights give: near `want`, whose own rounding may end a step
  // away.
  std::vector<double> taken_hidden(int64_t e, const std::vector<double>& x, const std::vector<double>& want) const {
    const GatedMlp mlp = packed(e);
    const auto F = static_cast<int64_t>(want.size());
    Tensor row = Tensor::empty(DType::kF32, {1, c.C}), hidden = Tensor::empty(DType::kF32, {1, F});
    std::copy(x.begin(), x.end(), row.data<float>());
    Workspace workspace(mlp.gate_up.gated_scratch_bytes(1));
    mlp.gate_up.forward_gated(row, GluActivation::kSilu, hidden, workspace);
    std::vector<double> taken;
    for (int64_t f = 0; f < F; ++f) {
      const float found = hidden.data<float>()[f];
      EXPECT_NEAR(found, want[f], 0x1p-18 * (1 + std::abs(want[f]))) << "expert " << e << " hidden " << f;
      taken.push_back(input(found));
    }
    return taken;
  }
  void add_expert(int64_t e, double weight, const std::vector<double>& x, std::vector<double>& y) const {
    std::vector<double> hidden(gate[e].size(0));
    for (size_t f = 0; f < hidden.size(); ++f) {
      const double g = dot(gate[e], static_cast<int64_t>(f), x);
      hidden[f] = g / (1 + std::exp(-g)) * dot(up[e], static_cast<int64_t>(f), x);
    }
    if (c.dtype == DType::kF16) hidden = taken_hidden(e, x, hidden);
    for (int64_t n = 0; n < c.C; ++n) y[n] += weight * dot(down[e], n, hidden);
  }
  // Softmax, the K largest, normalised.
  std::vector<double> plain(const Tensor& rows, int64_t t) const {
    std::vector<double> x(c.C), score(c.E), y(c.C);
    for (int64_t i = 0; i < c.C; ++i) x[i] = element_as_float(rows, t * c.C + i);
    for (int64_t e = 0; e < c.E; ++e) score[e] = std::exp(dot(router, e, x));
    std::vector<int64_t> taken;
    double total = 0;
    for (int64_t k = 0; k < c.K; ++k) {
      int64_t best = -1;
      for (int64_t e = 0; e < c.E; ++e)
        if (std::find(taken.begin(), taken.end(), e) == taken.end() && (best < 0 || score[e] > score[best])) best = e;
      taken.push_back(best);
      total += score[best];
    }
    for (double& value : x) value = input(value);
    for (const int64_t e : taken) add_expert(e, score[e] / total, x, y);
    if (c.shared_F > 0) add_expert(c.E, c.shared_gate ? 1 / (1 + std::exp(-dot(shared_gate, 0, x))) : 1, x, y);
    return y;
  }
  const Case c;
  Tensor router, shared_gate;
  std::vector<Tensor> gate, up, down;  // the last is the shared expert's
  RouterParams params;
};

Tensor run(Experts& experts, const Tensor& x) {
  Tensor y = Tensor::zeros(DType::kF32, x.shape());
  Workspace workspace(experts.scratch_bytes(x.size(0)));
  experts.forward(x, y, workspace);
  EXPECT_EQ(workspace.used_bytes(), 0);
  return y;
}

// Experts of integers: a row is its own whatever is in the batch, and near what the floating weights give.
TEST(Experts, MayBeIntegers) {
  const Layer layer({64, 64, 8, 2, 32, true, DType::kF32});
  for (const LinearFormat format : {LinearFormat::kW8A8, LinearFormat::kW8A16}) {
    Experts::Parts parts{.router = Router(layer.router, Tensor(), layer.params)};
    const auto quantized = [&](int64_t e) {
      const Tensor both[] = {layer.gate[e], layer.up[e]};
      return GatedMlp{std::move(Linear::quantize(both, {}, format).value()),
                      std::move(Linear::quantize({&layer.down[e], 1}, {}, format).value())};
    };
    for (int64_t e = 0; e < 8; ++e) parts.experts.push_back(quantized(e));
    parts.shared = quantized(8);
    parts.shared_gate = Linear::pack({&layer.shared_gate, 1}, {}, DType::kF32);
    Experts experts(std::move(parts));
    Random random(9);
    const Tensor x = random_tensor(random, {40, 64}, experts.input_dtype());
    const Tensor whole = run(experts, x);
    for (const auto& [begin, end] : {std::pair<int64_t, int64_t>{0, 1}, {39, 40}, {5, 23}}) {
      const Tensor part = run(experts, x.rows(begin, end));
      ASSERT_EQ(0, std::memcmp(part.raw(), whole.rows(begin, end).raw(), part.bytes())) << begin << ' ' << end;
    }
    double error = 0, size = 0;
    for (int64_t t = 0; t < 40; ++t) {
      const auto want = layer.plain(x, t);
      for (int64_t i = 0; i < 64; ++i) {
        error += std::pow(whole.data<float>()[t * 64 + i] - want[i], 2);
        size += want[i] * want[i];
      }
    }
    // A row's largest of 64 values has 127 steps: weights and inputs are off by about 1 % each.
    EXPECT_LT(std::sqrt(error / size), 0.03) << static_cast<int>(format);
  }
}

constexpr Layer::Case kCases[] = {{64, 48, 8, 2, 0, false, DType::kF32},   {40, 24, 5, 5, 0, false, DType::kF32},
                                  {64, 16, 16, 4, 96, true, DType::kF32},  {50, 30, 12, 3, 20, false, DType::kF32},
                                  {64, 32, 8, 2, 64, true, DType::kBf16},  {128, 96, 32, 8, 0, false, DType::kBf16},
                                  {64, 40, 6, 2, 24, false, DType::kBf16}, {64, 48, 8, 2, 48, true, DType::kF16}};

TEST(Experts, AgreeWithOneExpertAfterAnotherInDouble) {
  for (const Layer::Case& c : kCases) {
    SCOPED_TRACE(testing::Message() << "C " << c.C << " F " << c.F << " E " << c.E << ' ' << dtype_name(c.dtype));
    const Layer layer(c);
    Experts experts = layer.make();
    for (const int64_t T : {1, 3, 70}) {
      Random random(static_cast<uint64_t>(T));
      const Tensor x = random_tensor(random, {T, c.C}, experts.input_dtype());
      const Tensor y = run(experts, x);
      for (int64_t t = 0; t < T; ++t) {
        const auto want = layer.plain(x, t);
        double squares = 0;
        for (const double value : want) squares += value * value;
        // The hidden row is rounded to bf16 once: each output moves by about 2^-9 of its terms' root sum of squares.
        const double size = std::sqrt(squares / static_cast<double>(c.C));
        const double bound = (c.dtype == DType::kBf16 ? 0x1p-6 : 0x1p-18) * size;
        for (int64_t i = 0; i < c.C; ++i) ASSERT_NEAR(y.data<float>()[t * c.C + i], want[i], bound) << t << ' ' << i;
      }
    }
  }
}

TEST(Experts, ATokenIsBitIdenticalInEveryBatchAndOnEveryNumberOfThreads) {
  const int all = compute_threads();
  for (const Layer::Case& c : kCases) {
    SCOPED_TRACE(testing::Message() << "C " << c.C << " F " << c.F << " E " << c.E << ' ' << dtype_name(c.dtype));
    Experts experts = Layer(c).make();
    Random random(5);
    const Tensor x = random_tensor(random, {300, c.C}, experts.input_dtype());
    const Tensor whole = run(experts, x);
    for (const int threads : {1, all}) {
      set_compute_threads(threads);
      for (const auto& [begin, end] : {std::pair<int64_t, int64_t>{0, 1}, {7, 8}, {299, 300}, {3, 40}, {100, 299}}) {
        const Tensor part = run(experts, x.rows(begin, end));
        ASSERT_EQ(0, std::memcmp(part.raw(), whole.rows(begin, end).raw(), part.bytes())) << begin << ' ' << end;
      }
    }
    set_compute_threads(all);
  }
}

TEST(Experts, RowStridesAreFreeAndNoTokensAreFine) {
  Experts experts = Layer(kCases[2]).make();
  Random random(6);
  const Tensor x = random_tensor(random, {9, 64});
  const Tensor want = run(experts, x);
  Tensor wide = Tensor::zeros(DType::kF32, {9, 100}), out = Tensor::zeros(DType::kF32, {9, 70});
  for (int64_t t = 0; t < 9; ++t) std::memcpy(wide.data<float>() + t * 100, x.data<float>() + t * 64, 64 * 4);
  const Tensor view(wide.raw(), DType::kF32, {9, 64}, {100, 1}, wide.owner());
  Tensor y(out.raw(), DType::kF32, {9, 64}, {70, 1}, out.owner());
  Workspace workspace(experts.scratch_bytes(9));
  experts.forward(view, y, workspace);
  for (int64_t t = 0; t < 9; ++t) {
    EXPECT_EQ(0, std::memcmp(out.data<float>() + t * 70, want.data<float>() + t * 64, 64 * 4));
    for (int64_t i = 64; i < 70; ++i) EXPECT_EQ(out.data<float>()[t * 70 + i], 0);
  }
  Tensor nothing = Tensor::empty(DType::kF32, {0, 64});
  experts.forward(Tensor::empty(DType::kF32, {0, 64}), nothing, workspace);
}

TEST(GroupedLinear, RowsAreThoseOfEachLinearAloneEvenOfMixedFormats) {
  Random random(8);
  std::vector<Linear> linears;
  for (const DType dtype : {DType::kF32, DType::kBf16, DType::kF16, DType::kBf16, DType::kF32}) {
    const int64_t N = 32 * (1 + static_cast<int64_t>(linears.size()));
    const Tensor w = random_tensor(random, {N, 72});
    linears.push_back(Linear::pack({&w, 1}, {}, dtype));
  }
  for (const LinearFormat format : {LinearFormat::kW8A8, LinearFormat::kW8A16}) {
    const Tensor w = random_tensor(random, {64, 72});
    linears.push_back(std::move(Linear::quantize({&w, 1}, {}, format).value()));
  }
  constexpr int64_t kRows[] = {1, 40, 0, 3, 17, 2, 35};
  std::vector<LinearCall> plain, gated;
  std::vector<Tensor> want, want_gated;
  int64_t scratch = 0;
  for (size_t i = 0; i < linears.size(); ++i) {
    const Linear& linear = linears[i];
    const int64_t T = kRows[i], N = linear.out_features();
    const Tensor x = random_tensor(random, {T, 72}, i % 2 ? DType::kBf16 : DType::kF32);
    Workspace workspace(linear.gated_scratch_bytes(T));
    want.push_back(Tensor::empty(DType::kF32, {T, N}));
    want_gated.push_back(Tensor::empty(DType::kBf16, {T, N / 2}));
    linear.forward(x, want.back(), workspace);
    linear.forward_gated(x, GluActivation::kGelu, want_gated.back(), workspace);
    plain.push_back({&linear, x, Tensor::empty(DType::kF32, {T, N})});
    gated.push_back({&linear, x, Tensor::empty(DType::kBf16, {T, N / 2})});
    scratch += gated_grouped_scratch_bytes(linear, 1, T);
  }
  Workspace workspace(scratch);
  forward_grouped(plain, workspace);
  forward_gated_grouped(gated, GluActivation::kGelu, workspace);
  for (size_t i = 0; i < linears.size(); ++i) {
    EXPECT_EQ(0, std::memcmp(plain[i].y.raw(), want[i].raw(), want[i].bytes())) << i;
    EXPECT_EQ(0, std::memcmp(gated[i].y.raw(), want_gated[i].raw(), want_gated[i].bytes())) << i;
  }
}

}  // namespace
}  // namespace millrace
