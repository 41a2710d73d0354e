#include "weights/quantized_module.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <vector>

#include "weights/packed_words.h"

namespace millrace {
namespace {

using Method = QuantizationConfig::Method;
using Scheme = QuantizedMatrix::Scheme;

// A module of the checkpoint, and what is collected of it.
class Reader {
 public:
  Reader(const Checkpoint& checkpoint, const QuantizationConfig& config, std::string module, int64_t N, int64_t K)
      : checkpoint_(checkpoint), config_(config), module_(std::move(module)), N_(N), K_(K) {
    out_.matrix.rows = N;
    out_.matrix.columns = K;
  }

  Result<std::optional<QuantizedModule>> read(bool int8_units) {
    switch (config_.method) {
      case Method::kNone:
        return none();
      case Method::kAwq:
        return has("qweight") ? finish(read_awq()) : none();
      case Method::kGptq:
        return has("qweight") ? finish(read_gptq()) : none();
      case Method::kCompressedTensors:
        if (has("weight_packed")) return finish(read_packed());
        return has("weight_scale") ? finish(read_int8()) : none();
      case Method::kSmoothQuant:
        return has("dequant_scale") || has("q_dequant_scale") ? finish(read_smoothquant(int8_units)) : none();
    }
    return none();
  }

 private:
  static Result<std::optional<QuantizedModule>> none() { return std::optional<QuantizedModule>(); }
  Result<std::optional<QuantizedModule>> finish(const Status& status) {
    if (!status.ok()) return status;
    return std::optional<QuantizedModule>(std::move(out_));
  }
  std::string full(const char* name) const { return fmt::format("{}.{}", module_, name); }
  bool has(const char* name) const { return checkpoint_.has(full(name)); }

  // A tensor of the module, contiguous, of one of the given types.
  Result<Tensor> tensor(const char* name, std::initializer_list<DType> types) {
    if (!has(name)) return not_found("{}: missing; {} says {}", full(name), config_.source, method());
    MR_ASSIGN_OR_RETURN(const Tensor found, checkpoint_.tensor(full(name)));
    if (std::ranges::find(types, found.dtype()) == types.end())
      return data_loss("{}: the file has {} elements, {} has {}", full(name), dtype_name(found.dtype()), method(),
                       dtype_name(*types.begin()));
    out_.tensors.push_back(full(name));
    return found.to_contiguous();
  }
  std::string_view method() const { return method_name(config_.method); }

  Status wrong_shape(const char* name, const Tensor& found, const Shape& wanted) const {
    return data_loss("{}: the file has {}; a {} matrix of [{}, {}] wants {}", full(name), found.shape().to_string(),
                     method(), N_, K_, wanted.to_string());
  }
  Result<Tensor> integers(const char* name, const Shape& wanted, DType type = DType::kI32) {
    MR_ASSIGN_OR_RETURN(const Tensor found, tensor(name, {type}));
    if (!(found.shape() == wanted)) return wrong_shape(name, found, wanted);
    return found;
  }

  // Floating numbers as float32, every one finite.
  Result<Tensor> numbers(const char* name) {
    MR_ASSIGN_OR_RETURN(const Tensor found, tensor(name, {DType::kF32, DType::kF16, DType::kBf16, DType::kF64}));
    const Tensor out = converted(found, DType::kF32);
    for (int64_t i = 0; i < out.numel(); ++i)
      if (!std::isfinite(out.data<float>()[i]))
        return data_loss("{}: element {} is {}; scales are finite", full(name), i, out.data<float>()[i]);
    return out;
  }

  // [groups, N] as [N, groups].
  Result<Tensor> scales_by_group(const char* name, int64_t groups) {
    MR_ASSIGN_OR_RETURN(const Tensor found, numbers(name));
    const Shape wanted = {groups, N_};
    if (!(found.shape() == wanted)) return wrong_shape(name, found, wanted);
    return found.transposed(0, 1).to_contiguous();
  }

  // [N], [N, 1] or one number for all rows, as [N, 1].
  Result<Tensor> scales_by_row(const char* name) {
    MR_ASSIGN_OR_RETURN(const Tensor found, numbers(name));
    if (found.numel() == N_) return found.reshaped({N_, 1});
    if (found.numel() != 1) return wrong_shape(name, found, {N_, 1});
    Tensor out = Tensor::empty(DType::kF32, {N_, 1});
    std::fill_n(out.data<float>(), N_, found.data<float>()[0]);
    return out;
  }

  Result<int64_t> groups() {
    const int64_t group = config_.group == 0 ? K_ : config_.group;
    if (K_ % group != 0 && group < K_)
      return data_loss("{}: {} inputs are not a multiple of group_size {}", module_, K_, group);
    out_.matrix.group = group < K_ ? group : 0;
    return out_.matrix.groups();
  }

  Status read_awq() {
    MR_ASSIGN_OR_RETURN(const int64_t G, groups());
    if (N_ % 8 != 0) return data_loss("{}: {} outputs are not a multiple of 8", module_, N_);
    MR_ASSIGN_OR_RETURN(const Tensor words, integers("qweight", {K_, N_ / 8}));
    MR_ASSIGN_OR_RETURN(const Tensor zeros, integers("qzeros", {G, N_ / 8}));
    MR_ASSIGN_OR_RETURN(out_.matrix.scales, scales_by_group("scales", G));
    out_.matrix.zeros = Tensor::empty(DType::kU8, {N_, G});
    for (int64_t n = 0; n < N_; ++n)
      for (int64_t g = 0; g < G; ++g)
        out_.matrix.zeros.data<uint8_t>()[n * G + g] = awq_value(zeros.data<uint32_t>(), N_, g, n);
    out_.matrix.unpack = [words, N = N_, K = K_](int64_t begin, int64_t end, uint8_t* values) {
      unpack_awq_words(words.data<uint32_t>(), N, K, begin, end, values);
    };
    return {};
  }

  // Value i of a row of words that hold 32 / bits values each, lowest bits first.
  static uint8_t plain_value(uint32_t word, int64_t i, int bits) {
    const int per_word = 32 / bits;
    return static_cast<uint8_t>(word >> (i % per_word * bits) & ((1u << bits) - 1));
  }

  Status read_gptq() {
    const int bits = config_.bits, per_word = 32 / bits;
    MR_ASSIGN_OR_RETURN(const int64_t G, groups());
    if (N_ % per_word != 0 || K_ % per_word != 0)
      return data_loss("{}: [{}, {}] is not a multiple of {} values", module_, N_, K_, per_word);
    MR_ASSIGN_OR_RETURN(const Tensor words, integers("qweight", {K_ / per_word, N_}));
    MR_ASSIGN_OR_RETURN(const Tensor zeros, integers("qzeros", {G, N_ / per_word}));
    MR_ASSIGN_OR_RETURN(out_.matrix.scales, scales_by_group("scales", G));
    MR_RETURN_IF_ERROR(read_gptq_zeros(zeros, G));
    MR_RETURN_IF_ERROR(read_order("g_idx"));
    out_.matrix.scheme = bits == 4 ? Scheme::kInt4 : Scheme::kInt8;
    out_.matrix.unpack = [words, bits, order = out_.matrix.order, N = N_, K = K_](int64_t begin, int64_t end,
                                                                                  uint8_t* values) {
      unpack_gptq_words(words.data<uint32_t>(), bits, N, K, begin, end, values);
      order_columns(order, end - begin, K, values);
    };
    return {};
  }

  // values[n, k] = values[n, order[k]]; nothing to do where there is no order.
  static void order_columns(const Tensor& order, int64_t rows, int64_t K, uint8_t* values) {
    if (!order.raw()) return;
    std::vector<uint8_t> row(static_cast<size_t>(K));
    for (uint8_t* at = values; at < values + rows * K; at += K) {
      std::memcpy(row.data(), at, row.size());
      for (int64_t k = 0; k < K; ++k) at[k] = row[static_cast<size_t>(order.data<int32_t>()[k])];
    }
  }

  Status read_gptq_zeros(const Tensor& words, int64_t G) {
    const int bits = config_.bits, per_word = 32 / bits;
    if (bits == 4) out_.matrix.zeros = Tensor::empty(DType::kU8, {N_, G});
    for (int64_t g = 0; g < G; ++g)
      for (int64_t n = 0; n < N_; ++n) {
        const uint32_t word = words.data<uint32_t>()[g * words.size(1) + n / per_word];
        const int zero = plain_value(word, n, bits) + (config_.zeros_less_one ? 1 : 0);
        if (bits == 4) {
          out_.matrix.zeros.data<uint8_t>()[n * G + g] = static_cast<uint8_t>(zero);
        } else if (zero != 128) {
          return unimplemented("{}: output {} has zero point {}; of 8 bits only symmetric ones (128) are served",
                               full("qzeros"), n, zero);
        }
      }
    return {};
  }

  // Inputs sorted by their group, where the file's order is another (act-order).
  Status read_order(const char* name) {
    if (!has(name)) return {};
    MR_ASSIGN_OR_RETURN(const Tensor group_of, integers(name, {K_}));
    const int32_t* g = group_of.data<int32_t>();
    const int64_t size = out_.matrix.group > 0 ? out_.matrix.group : K_;
    Tensor order = Tensor::empty(DType::kI32, {K_});
    int32_t* at = order.data<int32_t>();
    std::iota(at, at + K_, 0);
    std::stable_sort(at, at + K_, [g](int32_t a, int32_t b) { return g[a] < g[b]; });
    for (int64_t k = 0; k < K_; ++k)
      if (g[at[k]] != k / size)
        return data_loss("{}: groups of {} inputs are wanted, but sorted by group the {}-th is of group {}", full(name),
                         size, k, g[at[k]]);
    if (!std::is_sorted(at, at + K_)) out_.matrix.order = order;
    return {};
  }

  // Static scales of activations, where there are any.
  Status read_input_scale(const char* name) {
    if (!has(name)) return {};
    MR_ASSIGN_OR_RETURN(const Tensor scale, numbers(name));
    if (scale.numel() != 1) return wrong_shape(name, scale, {1});
    if (!(scale.data<float>()[0] > 0))
      return data_loss("{}: is {}; it must be above 0", full(name), scale.data<float>()[0]);
    out_.matrix.input_scale = scale.reshaped({1});
    return {};
  }
  Status refuse_zero_points(const char* name) {
    if (!has(name)) return {};
    MR_ASSIGN_OR_RETURN(const Tensor zeros, tensor(name, {DType::kI8, DType::kI32, DType::kI64}));
    const auto* bytes = static_cast<const std::byte*>(zeros.raw());
    if (std::any_of(bytes, bytes + zeros.bytes(), [](std::byte b) { return b != std::byte{0}; }))
      return unimplemented("{}: asymmetric 8-bit values are not served", full(name));
    return {};
  }

  Status read_int8_values(const char* name) {
    MR_ASSIGN_OR_RETURN(const Tensor values, integers(name, {N_, K_}, DType::kI8));
    out_.matrix.unpack = [values, K = K_](int64_t begin, int64_t end, uint8_t* to) {
      std::memcpy(to, values.data<uint8_t>() + begin * K, static_cast<size_t>((end - begin) * K));
    };
    return {};
  }

  Status read_int8() {
    MR_RETURN_IF_ERROR(read_int8_values("weight"));
    MR_ASSIGN_OR_RETURN(out_.matrix.scales, scales_by_row("weight_scale"));
    out_.matrix.scheme = config_.activations ? Scheme::kInt8Int8 : Scheme::kInt8;
    MR_RETURN_IF_ERROR(refuse_zero_points("weight_zero_point"));
    MR_RETURN_IF_ERROR(refuse_zero_points("input_zero_point"));
    return config_.activations ? read_input_scale("input_scale") : Status();
  }

  // Bits of packed values: what makes K values fill the words of a row.
  Result<int> packed_bits(const Tensor& words) const {
    for (const int bits : {4, 8})
      if (words.rank() == 2 && words.size(0) == N_ && words.size(1) == (K_ * bits + 31) / 32) return bits;
    return wrong_shape("weight_packed", words, {N_, (K_ + 7) / 8});
  }

  Status read_packed() {
    MR_ASSIGN_OR_RETURN(const Tensor words, tensor("weight_packed", {DType::kI32}));
    MR_ASSIGN_OR_RETURN(const int bits, packed_bits(words));
    if (config_.activations)
      return unimplemented("{}: packed weights with int8 activations are not served", full("weight_packed"));
    MR_RETURN_IF_ERROR(check_stated_shape());
    MR_ASSIGN_OR_RETURN(const Tensor scales, numbers("weight_scale"));
    if (scales.numel() == 0 || scales.numel() % N_ != 0 || K_ % (scales.numel() / N_) != 0)
      return wrong_shape("weight_scale", scales, {N_, 1});
    const int64_t G = scales.numel() / N_;
    out_.matrix.group = G > 1 ? K_ / G : 0;
    out_.matrix.scales = scales.reshaped({N_, G});
    out_.matrix.scheme = bits == 4 ? Scheme::kInt4 : Scheme::kInt8;
    MR_RETURN_IF_ERROR(read_packed_zeros(bits, G));
    MR_RETURN_IF_ERROR(read_order("weight_g_idx"));
    out_.matrix.unpack = [words, bits, order = out_.matrix.order, K = K_](int64_t begin, int64_t end, uint8_t* values) {
      unpack_row_words(words.data<uint32_t>(), bits, words.size(1), K, begin, end, values);
      order_columns(order, end - begin, K, values);
    };
    return {};
  }

  Status check_stated_shape() {
    if (!has("weight_shape")) return {};
    MR_ASSIGN_OR_RETURN(const Tensor shape, tensor("weight_shape", {DType::kI64, DType::kI32}));
    const auto at = [&](int64_t i) -> int64_t {
      return shape.dtype() == DType::kI64 ? shape.data<int64_t>()[i] : shape.data<int32_t>()[i];
    };
    if (shape.numel() == 2 && at(0) == N_ && at(1) == K_) return {};
    return data_loss("{}: does not state [{}, {}]", full("weight_shape"), N_, K_);
  }

  Status read_packed_zeros(int bits, int64_t G) {
    if (!has("weight_zero_point")) return {};
    if (bits == 8) return unimplemented("{}: asymmetric 8-bit values are not served", full("weight_zero_point"));
    MR_ASSIGN_OR_RETURN(const Tensor words, integers("weight_zero_point", {(N_ * bits + 31) / 32, G}));
    out_.matrix.zeros = Tensor::empty(DType::kU8, {N_, G});
    for (int64_t n = 0; n < N_; ++n)
      for (int64_t g = 0; g < G; ++g)
        out_.matrix.zeros.data<uint8_t>()[n * G + g] = plain_value(words.data<uint32_t>()[n / 8 * G + g], n, bits);
    return {};
  }

  // Three scales of a fused q|k|v matrix, for a third of the rows each.
  Result<Tensor> fused_scales() {
    if (N_ % 3 != 0) return data_loss("{}: {} outputs are not three equal parts", module_, N_);
    Tensor out = Tensor::empty(DType::kF32, {N_, 1});
    int64_t row = 0;
    for (const char* name : {"q_dequant_scale", "k_dequant_scale", "v_dequant_scale"}) {
      MR_ASSIGN_OR_RETURN(const Tensor scale, numbers(name));
      if (scale.numel() != 1) return wrong_shape(name, scale, {1});
      std::fill_n(out.data<float>() + row, N_ / 3, scale.data<float>()[0]);
      row += N_ / 3;
    }
    return out;
  }

  // dequant_scale is the weights' scale, times the activations' where those are static.
  Status read_smoothquant(bool int8_units) {
    MR_RETURN_IF_ERROR(read_int8_values("weight"));
    MR_ASSIGN_OR_RETURN(Tensor scales, has("q_dequant_scale") ? fused_scales() : scales_by_row("dequant_scale"));
    out_.matrix.scheme = Scheme::kInt8Int8;
    MR_RETURN_IF_ERROR(read_input_scale("quant_scale"));
    if (out_.matrix.input_scale.raw())
      for (int64_t n = 0; n < N_; ++n) scales.data<float>()[n] /= out_.matrix.input_scale.data<float>()[0];
    if (int8_units && !out_.matrix.input_scale.raw()) {
      out_.matrix.input_scale = Tensor::empty(DType::kF32, {1});
      out_.matrix.input_scale.data<float>()[0] = 1;
    }
    out_.matrix.scales = scales;
    return {};
  }

  const Checkpoint& checkpoint_;
  const QuantizationConfig& config_;
  const std::string module_;
  const int64_t N_, K_;
  QuantizedModule out_;
};

}  // namespace

Result<std::optional<QuantizedModule>> read_quantized_module(const Checkpoint& checkpoint,
                                                             const QuantizationConfig& config,
                                                             const std::string& module, int64_t rows, int64_t columns,
                                                             bool int8_units) {
  return Reader(checkpoint, config, module, rows, columns).read(int8_units);
}

}  // namespace millrace
