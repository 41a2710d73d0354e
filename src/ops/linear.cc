#include "ops/linear.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <vector>

#include "kernels/gemm.h"
#include "kernels/parallel.h"
#include "kernels/quantize_rows.h"

namespace millrace {
namespace {

int64_t total_rows(std::span<const Tensor> parts) {
  int64_t rows = 0;
  for (const Tensor& part : parts) {
    MR_CHECK(part.rank() == 2 && part.size(1) == parts[0].size(1) && (part.size(1) == 1 || part.stride(1) == 1),
             "a part of shape {}, the first is {}", part.shape().to_string(), parts[0].shape().to_string());
    rows += part.size(0);
  }
  return rows;
}

std::vector<int64_t> rows_of(std::span<const Tensor> parts) {
  std::vector<int64_t> rows;
  for (const Tensor& part : parts) rows.push_back(part.size(0));
  return rows;
}

Tensor stack_biases(const std::vector<int64_t>& rows, std::span<const Tensor> biases) {
  if (biases.empty()) return {};
  MR_CHECK(biases.size() == rows.size(), "{} biases for {} parts", biases.size(), rows.size());
  Tensor all = Tensor::zeros(DType::kF32, {std::accumulate(rows.begin(), rows.end(), int64_t{0})});
  int64_t row = 0;
  for (size_t i = 0; i < rows.size(); ++i) {
    const int64_t n = biases[i].raw() ? biases[i].numel() : 0;
    MR_CHECK(n == 0 || n == rows[i], "bias of {} for {} rows", n, rows[i]);
    const Tensor bias = n > 0 ? biases[i].to_contiguous() : Tensor();
    for (int64_t j = 0; j < n; ++j) all.data<float>()[row + j] = element_as_float(bias, j);
    row += rows[i];
  }
  return all;
}

bool same_order(const Tensor& a, const Tensor& b) {
  if (!a.raw() || !b.raw()) return a.raw() == b.raw();
  return a.numel() == b.numel() && std::memcmp(a.raw(), b.raw(), static_cast<size_t>(a.bytes())) == 0;
}

LinearFormat format_of(const QuantizedMatrix& part) {
  if (part.scheme == QuantizedMatrix::Scheme::kInt4) return LinearFormat::kW4A16;
  return part.scheme == QuantizedMatrix::Scheme::kInt8 ? LinearFormat::kW8A16 : LinearFormat::kW8A8;
}

// K that share a scale.
int64_t scale_length(const QuantizedMatrix& part) { return part.groups() == 1 ? part.columns : part.group; }

constexpr int64_t kRowsAtOnce = 128;                 // of a thread, that are bytes beside their packed form
constexpr int64_t kPieceBytes = int64_t{16} << 20;   // between two pauses
constexpr int64_t kStretchBytes = int64_t{2} << 20;  // float32: a huge page of packed weights

// Rows that one thread packs: those of a part from `from` on, which are those of the stack from `at` on.
struct Stretch {
  Tensor rows;
  int64_t from, at;
};

// All rows of all parts, at most `most` at a time.
std::vector<Stretch> stretches_of(std::span<const Tensor> parts, int64_t most) {
  std::vector<Stretch> stretches;
  int64_t row = 0;
  for (const Tensor& part : parts) {
    for (int64_t from = 0; from < part.size(0); from += most)
      stretches.push_back({part.rows(from, std::min(part.size(0), from + most)), from, row + from});
    row += part.size(0);
  }
  return stretches;
}

// Whole panels that take kStretchBytes.
int64_t stretch_rows(const Tensor& part) {
  const int64_t row_bytes = std::max<int64_t>(1, part.stride(0) * dtype_bytes(part.dtype()));
  return std::max<int64_t>(16, kStretchBytes / row_bytes / 16 * 16);
}

// work(stretch, thread) for all of them, whoever is free takes the next. The calling thread calls `pause` (or none)
// whenever some kPieceBytes were read.
template <class Work>
void for_stretches(const std::vector<Stretch>& stretches, const std::function<void()>& pause, const Work& work) {
  WorkQueue queue(std::ssize(stretches));
  parallel_team([&](const TeamMember& me) {
    int64_t since_pause = 0;
    for (int64_t i = queue.next(); i >= 0; i = queue.next()) {
      work(stretches[i], me.index);
      since_pause += stretches[i].rows.bytes() * me.size;
      if (!pause || me.index != 0 || since_pause < kPieceBytes) continue;
      since_pause = 0;
      pause();
    }
  });
}

// Formats that are of kernels/gemm_w8a8.h.
bool is_int8(LinearFormat format) { return format == LinearFormat::kW8A8 || format == LinearFormat::kW8A16; }

// Rows of values in an order of columns of their own, `order`, as they meet x.
void undo_order(const Tensor& order, int64_t K, std::span<uint8_t> rows) {
  const auto* const at = order.data<int32_t>();
  std::vector<uint8_t> row(K);
  for (size_t from = 0; from < rows.size(); from += row.size()) {
    for (int64_t k = 0; k < K; ++k) row[at[k]] = rows[from + k];
    std::copy(row.begin(), row.end(), rows.begin() + static_cast<std::ptrdiff_t>(from));
  }
}

}  // namespace

Linear Linear::pack(std::span<const Tensor> parts, std::span<const Tensor> biases, DType compute,
                    const std::function<void()>& pause) {
  MR_CHECK(!parts.empty(), "no parts");
  Linear linear;
  linear.dtype_ = compute;
  linear.in_features_ = parts[0].size(1);
  linear.out_features_ = total_rows(parts);
  linear.packed_ = page_zeros(DType::kU8, {gemm_packed_bytes(linear.out_features_, linear.in_features_, compute)});
  linear.bias_ = stack_biases(rows_of(parts), biases);
  for_stretches(stretches_of(parts, stretch_rows(parts[0])), pause, [&](const Stretch& stretch, int) {
    gemm_pack({.w = stretch.rows.raw(),
               .packed = linear.packed_.raw(),
               .row_begin = stretch.at,
               .row_end = stretch.at + stretch.rows.size(0),
               .K = linear.in_features_,
               .w_stride = stretch.rows.stride(0),
               .from = stretch.rows.dtype(),
               .to = compute});
  });
  return linear;
}

Status Linear::check_parts(std::span<const QuantizedMatrix> parts) {
  MR_CHECK(!parts.empty(), "no parts");
  const QuantizedMatrix& first = parts.front();
  const LinearFormat format = format_of(first);
  for (const QuantizedMatrix& part : parts) {
    if (format_of(part) != format || part.columns != first.columns || scale_length(part) != scale_length(first))
      return unimplemented("layers that share an input are quantised differently");
    if (!same_order(part.order, first.order))
      return unimplemented("layers that share an input have different orders of its columns (g_idx)");
    if ((part.input_scale.raw() == nullptr) != (first.input_scale.raw() == nullptr))
      return unimplemented("of layers that share an input some have a static scale for it and some have not");
  }
  if (format == LinearFormat::kW4A16 && !is_int4_group(scale_length(first), first.columns))
    return unimplemented("4 bits with a scale for every {} inputs; groups of 32, 64 and multiples of 128 have kernels",
                         first.group);
  if (format != LinearFormat::kW4A16 && first.groups() > 1)
    return unimplemented("8 bits with a scale for every {} inputs; one scale for an output has kernels", first.group);
  if (is_int8(format) && first.columns > kMostW8A8K)
    return unimplemented("8 bits with {} inputs; up to {} have kernels", first.columns, kMostW8A8K);
  return {};
}

Linear Linear::unpacked(LinearFormat format, int64_t rows, int64_t K, int64_t group) {
  Linear linear;
  linear.format_ = format;
  linear.dtype_ = DType::kI8;
  linear.out_features_ = rows;
  linear.in_features_ = K;
  linear.group_ = group;
  const int64_t bytes = is_int8(format) ? gemm_w8a8_packed_bytes(rows, K) : gemm_a16_packed_bytes(rows, K, group);
  linear.packed_ = page_zeros(DType::kU8, {bytes});
  if (is_int8(format)) linear.scales_ = Tensor::zeros(DType::kF32, {rows});
  return linear;
}

void Linear::pack_rows(const Rows& rows) {
  auto* const packed = packed_.data<std::byte>();
  if (is_int8(format_))
    gemm_w8a8_pack({.values = reinterpret_cast<const int8_t*>(rows.values),
                    .packed = packed,
                    .row_begin = rows.begin,
                    .row_end = rows.end,
                    .N = out_features_,
                    .K = in_features_});
  else
    gemm_a16_pack({.values = rows.values,
                   .scales = rows.scales,
                   .zeros = rows.zeros,
                   .packed = packed,
                   .row_begin = rows.begin,
                   .row_end = rows.end,
                   .K = in_features_,
                   .group = group_});
  if (is_int8(format_))
    std::memcpy(scales_.data<float>() + rows.begin, rows.scales,
                static_cast<size_t>(rows.end - rows.begin) * sizeof(float));
}

void Linear::pack_part(const QuantizedMatrix& part, int64_t row) {
  const int64_t groups = part.groups();
  MR_CHECK(part.scales.dtype() == DType::kF32 && part.scales.contiguous() && part.scales.numel() == part.rows * groups,
           "scales {} for {} rows of {} groups", part.scales.shape().to_string(), part.rows, groups);
  const int64_t room = std::min(kRowsAtOnce, part.rows) * in_features_;  // of a thread
  Tensor values = Tensor::empty(DType::kU8, {compute_threads(), room});
  WorkQueue queue((part.rows + kRowsAtOnce - 1) / kRowsAtOnce);
  parallel_team([&](const TeamMember& me) {
    uint8_t* const own = values.data<uint8_t>() + me.index * room;
    for (int64_t i = queue.next(); i >= 0; i = queue.next()) {
      const int64_t from = i * kRowsAtOnce, end = std::min(part.rows, from + kRowsAtOnce);
      part.unpack(from, end, own);
      if (is_int8(format_) && part.order.raw())
        undo_order(part.order, in_features_, {own, static_cast<size_t>((end - from) * in_features_)});
      pack_rows({.values = own,
                 .scales = part.scales.data<float>() + from * groups,
                 .zeros = part.zeros.raw() ? part.zeros.data<uint8_t>() + from * groups : nullptr,
                 .begin = row + from,
                 .end = row + end});
    }
  });
}

Linear Linear::pack(std::span<const QuantizedMatrix> parts, std::span<const Tensor> biases) {
  const Status fits = check_parts(parts);
  MR_CHECK(fits.ok(), "{}", fits.message());
  std::vector<int64_t> rows;
  for (const QuantizedMatrix& part : parts) rows.push_back(part.rows);
  const QuantizedMatrix& first = parts.front();
  Linear linear = unpacked(format_of(first), std::accumulate(rows.begin(), rows.end(), int64_t{0}), first.columns,
                           scale_length(first));
  if (!is_int8(linear.format_)) linear.order_ = first.order;
  linear.bias_ = stack_biases(rows, biases);
  int64_t row = 0;
  for (const QuantizedMatrix& part : parts) {
    linear.pack_part(part, row);
    if (part.input_scale.raw()) linear.input_scale_ = std::max(linear.input_scale_, *part.input_scale.data<float>());
    row += part.rows;
  }
  return linear;
}

Result<Linear> Linear::quantize(std::span<const Tensor> parts, std::span<const Tensor> biases, LinearFormat format,
                                const std::function<void()>& pause) {
  MR_CHECK(!parts.empty() && is_int8(format), "{} parts", parts.size());
  const int64_t K = parts[0].size(1);
  if (K > kMostW8A8K) return unimplemented("8 bits with {} inputs; up to {} have kernels", K, kMostW8A8K);
  Linear linear = unpacked(format, total_rows(parts), K, K);
  linear.bias_ = stack_biases(rows_of(parts), biases);
  std::vector<int8_t> values(compute_threads() * kRowsAtOnce * K);
  std::vector<float> scales(compute_threads() * kRowsAtOnce);
  const std::vector<Stretch> stretches = stretches_of(parts, kRowsAtOnce);
  std::vector<int64_t> bad(stretches.size(), -1);  // of each stretch, a row of its part
  for_stretches(stretches, pause, [&](const Stretch& stretch, int thread) {
    const Tensor& rows = stretch.rows;
    int8_t* const own = values.data() + thread * kRowsAtOnce * K;
    float* const own_scales = scales.data() + thread * kRowsAtOnce;
    const int64_t found = quantize_rows({.w = rows.raw(),
                                         .values = own,
                                         .scales = own_scales,
                                         .rows = rows.size(0),
                                         .K = K,
                                         .w_stride = rows.stride(0),
                                         .dtype = rows.dtype()});
    if (found >= 0) bad[&stretch - stretches.data()] = stretch.from + found;
    linear.pack_rows({.values = reinterpret_cast<const uint8_t*>(own),
                      .scales = own_scales,
                      .zeros = nullptr,
                      .begin = stretch.at,
                      .end = stretch.at + rows.size(0)});
  });
  for (const int64_t row : bad)
    if (row >= 0) return data_loss("row {} of the weights is not finite and cannot be quantised", row);
  return linear;
}

Linear::Packed Linear::packed() const {
  return {.format = format_,
          .dtype = dtype_,
          .rows = out_features_,
          .columns = in_features_,
          .group = group_,
          .input_scale = input_scale_,
          .weights = packed_,
          .scales = scales_,
          .order = order_,
          .bias = bias_};
}

namespace {

// Far above any model; products of two stay far below 2^63.
constexpr int64_t kMostFeatures = int64_t{1} << 28;

Status check_sizes(const Linear::Packed& p) {
  const auto in_range = [](int64_t n) { return n >= 1 && n <= kMostFeatures; };
  if (!in_range(p.rows) || !in_range(p.columns)) return data_loss("a matrix of [{}, {}]", p.rows, p.columns);
  if (p.format == LinearFormat::kDense) {
    if (p.dtype == DType::kF32 || p.dtype == DType::kBf16 || p.dtype == DType::kF16) return {};
    return data_loss("dense weights of {}", dtype_name(p.dtype));
  }
  if (p.dtype != DType::kI8) return data_loss("integers of {}", dtype_name(p.dtype));
  if (!in_range(p.group)) return data_loss("groups of {}", p.group);
  if (p.format == LinearFormat::kW4A16 && !is_int4_group(p.group, p.columns))
    return data_loss("groups of {} of {} columns", p.group, p.columns);
  if (is_int8(p.format) && p.columns > kMostW8A8K) return data_loss("{} columns", p.columns);
  return std::isfinite(p.input_scale) && p.input_scale >= 0 ? Status() : data_loss("input scale {}", p.input_scale);
}

int64_t weight_bytes_of(const Linear::Packed& p) {
  if (p.format == LinearFormat::kDense) return gemm_packed_bytes(p.rows, p.columns, p.dtype);
  if (is_int8(p.format)) return gemm_w8a8_packed_bytes(p.rows, p.columns);
  return gemm_a16_packed_bytes(p.rows, p.columns, p.group);
}

// `found` is a vector of this type and length.
Status check_vector(const char* what, const Tensor& found, DType dtype, int64_t length) {
  if (found.dtype() == dtype && found.rank() == 1 && found.numel() == length) return {};
  return data_loss("{} of {} {}", what, found.shape().to_string(), dtype_name(found.dtype()));
}

Status check_order(const Tensor& order, int64_t columns) {
  MR_RETURN_IF_ERROR(check_vector("order of columns", order, DType::kI32, columns));
  const auto* const at = order.data<int32_t>();
  if (std::all_of(at, at + columns, [columns](int32_t k) { return k >= 0 && k < columns; })) return {};
  return data_loss("an order of columns that names others than {}", columns);
}

Status check_packed(const Linear::Packed& p) {
  MR_RETURN_IF_ERROR(check_sizes(p));
  MR_RETURN_IF_ERROR(check_vector("packed weights", p.weights, DType::kU8, weight_bytes_of(p)));
  if (reinterpret_cast<uintptr_t>(p.weights.raw()) % 64 != 0) return data_loss("packed weights that are not aligned");
  const bool scaled = is_int8(p.format);
  if (scaled != (p.scales.raw() != nullptr)) return data_loss("{} scales of outputs", scaled ? "no" : "needless");
  if (scaled) MR_RETURN_IF_ERROR(check_vector("scales", p.scales, DType::kF32, p.rows));
  if (p.order.raw()) MR_RETURN_IF_ERROR(check_order(p.order, p.columns));
  if (p.order.raw() && p.format != LinearFormat::kW4A16)
    return data_loss("an order of columns where the format has none");
  return p.bias.raw() ? check_vector("bias", p.bias, DType::kF32, p.rows) : Status();
}

}  // namespace

Result<Linear> Linear::from_packed(const Packed& packed) {
  MR_RETURN_IF_ERROR(check_packed(packed));
  Linear linear;
  linear.format_ = packed.format;
  linear.dtype_ = packed.dtype;
  linear.out_features_ = packed.rows;
  linear.in_features_ = packed.columns;
  linear.group_ = packed.group;
  linear.input_scale_ = packed.input_scale;
  linear.packed_ = packed.weights;
  linear.scales_ = packed.scales;
  linear.order_ = packed.order;
  linear.bias_ = packed.bias;
  return linear;
}

int64_t Linear::ordered_bytes(int64_t rows, int64_t calls) const {
  return order_.raw() ? Workspace::tensor_bytes(DType::kBf16, {rows, in_features_}) + (calls - 1) * 64 : 0;
}

int64_t Linear::scratch_bytes(int64_t max_rows) const {
  if (is_int8(format_))
    return Workspace::tensor_bytes(DType::kU8, {gemm_w8a8_scratch_bytes(max_rows, in_features_, input_digits())});
  if (format_ == LinearFormat::kW4A16)
    return Workspace::tensor_bytes(DType::kU8, {gemm_a16_scratch_bytes(max_rows, in_features_)}) +
           ordered_bytes(max_rows);
  return Workspace::tensor_bytes(DType::kU8, {gemm_scratch_bytes(max_rows, out_features_, in_features_, dtype_)});
}

Tensor Linear::integer_rows(std::byte* memory, int64_t T, int64_t K) {
  return Tensor(memory, DType::kI8, {T, K}, {w8a8_row_bytes(K), 1}, nullptr);
}

void Linear::check_input(const Tensor& x) const {
  const bool integers = x.dtype() == DType::kI8 && takes_integers();
  MR_CHECK(x.rank() == 2 && x.size(1) == in_features_ &&
               (x.dtype() == DType::kF32 || x.dtype() == DType::kBf16 ||
                (integers && x.stride(0) >= w8a8_row_bytes(in_features_))),
           "x {} {} for weights [{}, {}]", dtype_name(x.dtype()), x.shape().to_string(), out_features_, in_features_);
}

GemmA16Args Linear::a16(const Tensor& x, std::byte* scratch) const {
  return {.x = x.raw(),
          .w = packed_.data<std::byte>(),
          .bias = bias_.data<float>(),
          .y = nullptr,
          .scratch = scratch,
          .M = x.rank() == 2 ? x.size(0) : 0,
          .N = out_features_,
          .K = in_features_,
          .x_stride = x.rank() == 2 ? x.stride(0) : 0,
          .y_stride = 0,
          .group = group_,
          .x_dtype = x.dtype()};
}

GemmW8A8Args Linear::w8a8(const Tensor& x, std::byte* scratch) const {
  return {.x = x.raw(),
          .w = packed_.data<std::byte>(),
          .scales = scales_.data<float>(),
          .bias = bias_.data<float>(),
          .y = nullptr,
          .scratch = scratch,
          .M = x.rank() == 2 ? x.size(0) : 0,
          .N = out_features_,
          .K = in_features_,
          .x_stride = x.rank() == 2 ? x.stride(0) : 0,
          .y_stride = 0,
          .x_scale = input_scale_,
          .x_dtype = x.dtype(),
          .x_digits = input_digits()};
}

Tensor Linear::in_order(const Tensor& x, Workspace& workspace) const {
  if (!order_.raw()) return x;
  Tensor ordered = workspace.tensor(DType::kBf16, x.shape());
  order_columns({.x = x.raw(),
                 .order = order_.data<int32_t>(),
                 .to = ordered.data<bf16>(),
                 .M = x.size(0),
                 .K = in_features_,
                 .x_stride = x.stride(0),
                 .x_dtype = x.dtype()});
  return ordered;
}

GemmA16Args Linear::ordered_a16(const Tensor& x, Workspace& workspace) const {
  check_input(x);
  return a16(in_order(x, workspace), nullptr);
}

int64_t Linear::chunk_scales() const {
  return format_ == LinearFormat::kW4A16 ? a16_chunk_scales(group_, in_features_) : 0;
}

bool Linear::adds() const {
  if (is_int8(format_)) return gemm_w8a8_adds();
  if (format_ == LinearFormat::kW4A16) return gemm_a16_adds();
  return format_ == LinearFormat::kDense && gemm_adds(dtype_);
}

template <class Run>
void Linear::with_product(const Tensor& x, Workspace& workspace, const Run& run) const {
  check_input(x);
  const Workspace::Scope scope(workspace);
  const Tensor ordered = in_order(x, workspace);
  std::byte* const scratch = workspace.bytes(scratch_bytes(x.size(0)) - ordered_bytes(x.size(0)));
  if (is_int8(format_)) return run(w8a8(x, scratch), gemm_w8a8);
  if (format_ == LinearFormat::kW4A16) return run(a16(ordered, scratch), gemm_a16);
  run(dense(x, scratch), gemm);
}

GemmArgs Linear::dense(const Tensor& x, std::byte* scratch) const {
  return {.x = x.raw(),
          .w = packed_.raw(),
          .bias = bias_.data<float>(),
          .y = nullptr,
          .scratch = scratch,
          .M = x.rank() == 2 ? x.size(0) : 0,
          .N = out_features_,
          .K = in_features_,
          .x_stride = x.rank() == 2 ? x.stride(0) : 0,
          .y_stride = 0,
          .x_dtype = x.dtype(),
          .w_dtype = dtype_};
}

GemmArgs Linear::product(const Tensor& x, std::byte* scratch) const {
  check_input(x);
  return dense(x, scratch);
}

void Linear::check_output(const Tensor& y, int64_t rows, float add_scale) const {
  MR_CHECK(y.rank() == 2 && y.size(1) == out_features_ && y.size(0) == rows && y.dtype() == DType::kF32,
           "{} rows of x, y {}, weights [{}, {}]", rows, y.shape().to_string(), out_features_, in_features_);
  MR_CHECK(add_scale == 0 || adds(), "products of this format are not added");
}

void Linear::forward(const Tensor& x, Tensor& y, Workspace& workspace, float add_scale) const {
  check_output(y, x.size(0), add_scale);
  with_product(x, workspace, [&](auto args, const auto& gemm) {
    args.y = y.data<float>();
    args.y_stride = y.stride(0);
    args.add_scale = add_scale;
    gemm(args);
  });
}

bool Linear::rotates(int64_t rows, int64_t head_dim) const {
  return (format_ != LinearFormat::kDense || dtype_ == DType::kBf16) && gemm_rotates(rows, head_dim);
}

void Linear::forward_heads(const Tensor& x, const RotatedHeads& heads, Workspace& workspace) const {
  with_product(x, workspace, [&](auto args, const auto& gemm) {
    args.heads = &heads;
    gemm(args);
  });
}

int64_t Linear::gated_scratch_bytes(int64_t max_rows) const {
  if (is_int8(format_))
    return Workspace::tensor_bytes(
        DType::kU8, {gemm_gated_w8a8_scratch_bytes(max_rows, out_features_, in_features_, input_digits())});
  if (format_ == LinearFormat::kW4A16) {
    const int64_t bytes = gemm_gated_a16_scratch_bytes(max_rows, out_features_, in_features_);
    return Workspace::tensor_bytes(DType::kU8, {bytes}) + ordered_bytes(max_rows);
  }
  return Workspace::tensor_bytes(DType::kU8, {gemm_gated_scratch_bytes(max_rows, out_features_, in_features_, dtype_)});
}

template <class Run>
void Linear::with_gated(const Tensor& x, GluActivation activation, Workspace& workspace, const Run& run) const {
  check_input(x);
  const Workspace::Scope scope(workspace);
  if (format_ == LinearFormat::kW4A16) {
    const Tensor ordered = in_order(x, workspace);
    std::byte* const scratch = workspace.bytes(gemm_gated_a16_scratch_bytes(x.size(0), out_features_, in_features_));
    return run(
        GatedGemmA16Args{.product = a16(ordered, scratch), .activation = activation, .y = nullptr, .y_stride = 0},
        gemm_gated_a16);
  }
  std::byte* const scratch = workspace.bytes(gated_scratch_bytes(x.size(0)));
  if (is_int8(format_))
    return run(GatedGemmW8A8Args{.product = w8a8(x, scratch), .activation = activation, .y = nullptr, .y_stride = 0},
               gemm_gated_w8a8);
  run(GatedGemmArgs{.product = dense(x, scratch), .activation = activation, .y = nullptr, .y_stride = 0}, gemm_gated);
}

void Linear::forward_gated(const Tensor& x, GluActivation activation, Tensor& y, Workspace& workspace) const {
  MR_CHECK(y.rank() == 2 && 2 * y.size(1) == out_features_ && y.size(0) == x.size(0) &&
               (y.dtype() == DType::kF32 || y.dtype() == DType::kBf16),
           "x {}, y {}, weights [{}, {}]", x.shape().to_string(), y.shape().to_string(), out_features_, in_features_);
  with_gated(x, activation, workspace, [&](auto args, const auto& gemm) {
    args.y = y.raw();
    args.y_stride = y.stride(0);
    args.y_dtype = y.dtype();
    gemm(args);
  });
}

bool Linear::feeds(const Linear& next, int64_t rows) const {
  if (out_features_ != 2 * next.in_features_) return false;
  if (is_int8(format_)) return is_int8(next.format_) && gemm_gated_w8a8_packs(rows, out_features_);
  if (format_ != next.format_ || dtype_ != next.dtype_ || next.order_.raw()) return false;
  if (format_ == LinearFormat::kW4A16) return gemm_gated_a16_packs(rows, out_features_);
  return gemm_gated_packs(rows, out_features_, dtype_);
}

int64_t Linear::packed_rows_bytes(int64_t rows) const {
  if (is_int8(format_)) return gemm_w8a8_packed_x_bytes(rows, in_features_);
  if (format_ == LinearFormat::kW4A16) return gemm_a16_packed_x_bytes(rows, in_features_);
  return dtype_ == DType::kBf16 ? gemm_packed_x_bytes(rows, in_features_) : 0;
}

void Linear::forward_gated(const Tensor& x, GluActivation activation, const Linear& next, const PackedRows& y,
                           Workspace& workspace) const {
  MR_CHECK(y.rows == x.size(0) && feeds(next, y.rows), "{} packed rows of {} for weights [{}, {}]", y.rows, x.size(0),
           next.out_features_, next.in_features_);
  with_gated(x, activation, workspace, [&](auto args, const auto& gemm) {
    args.packed_y = y.memory;
    args.y_dtype = DType::kBf16;
    gemm(args);
  });
}

void Linear::forward(const PackedRows& x, Tensor& y, Workspace& workspace, float add_scale) const {
  check_output(y, x.rows, add_scale);
  const Workspace::Scope scope(workspace);
  const auto run = [&](auto args, const auto& gemm) {
    args.M = x.rows;
    args.packed_x = x.memory;
    args.y = y.data<float>();
    args.y_stride = y.stride(0);
    args.add_scale = add_scale;
    gemm(args);
  };
  std::byte* const scratch = workspace.bytes(scratch_bytes(x.rows));
  if (is_int8(format_)) return run(w8a8(Tensor(), scratch), gemm_w8a8);
  if (format_ == LinearFormat::kW4A16) return run(a16(Tensor(), scratch), gemm_a16);
  run(dense(Tensor(), scratch), gemm);
}

void Linear::gather_row(int32_t token, float scale, float* to) const {
  if (format_ == LinearFormat::kDense) return gemm_unpack_row(packed_.raw(), dtype_, in_features_, token, scale, to);
  if (is_int8(format_)) return gemm_w8a8_unpack_row(w8a8(Tensor(), nullptr), token, scale, to);
  MR_CHECK(!order_.raw(), "rows of weights whose columns have an order of their own");
  gemm_a16_unpack_row(a16(Tensor(), nullptr), token, scale, to);
}

void Linear::gather(std::span<const int32_t> tokens, float scale, Tensor& y) const {
  MR_CHECK(y.rank() == 2 && y.size(0) == static_cast<int64_t>(tokens.size()) && y.size(1) == in_features_ &&
               y.dtype() == DType::kF32,
           "y {} for {} tokens of {}", y.shape().to_string(), tokens.size(), in_features_);
  parallel_ranges(static_cast<int64_t>(tokens.size()), 4, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      MR_CHECK(tokens[t] >= 0 && tokens[t] < out_features_, "token {} of {}", tokens[t], out_features_);
      gather_row(tokens[t], scale, y.data<float>() + t * y.stride(0));
    }
  });
}

}  // namespace millrace
