#include "tensor/tensor.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "base/from_float.h"

namespace millrace {
namespace {

Shape row_major_strides(const Shape& shape) {
  Shape strides = shape;
  int64_t step = 1;
  for (int axis = shape.rank() - 1; axis >= 0; --axis) {
    strides[axis] = step;
    step *= shape[axis];
  }
  return strides;
}

template <class To>
void convert_into(const Tensor& from, To* to) {
  for (int64_t i = 0, n = from.numel(); i < n; ++i) to[i] = from_float<To>(element_as_float(from, i));
}

// Whether axes [axis, rank) lie in memory one element after another.
bool dense_from(const Tensor& tensor, int axis) {
  int64_t step = 1;
  for (int a = tensor.rank() - 1; a >= axis; --a) {
    if (tensor.size(a) != 1 && tensor.stride(a) != step) return false;
    step *= tensor.size(a);
  }
  return true;
}

// Copies axes [axis, rank) of `from`, which start at the given bytes.
void copy_axes(const Tensor& from, const std::byte* source, const Tensor& to, std::byte* target, int axis) {
  const int64_t item = dtype_bytes(from.dtype());
  if (dense_from(from, axis) && dense_from(to, axis)) {
    int64_t bytes = item;
    for (int a = axis; a < from.rank(); ++a) bytes *= from.size(a);
    std::memcpy(target, source, bytes);
    return;
  }
  for (int64_t i = 0; i < from.size(axis); ++i)
    copy_axes(from, source + i * from.stride(axis) * item, to, target + i * to.stride(axis) * item, axis + 1);
}

}  // namespace

Shape::Shape(std::span<const int64_t> sizes) : rank_(static_cast<int>(sizes.size())) {
  MR_CHECK(sizes.size() <= kMaxRank, "rank {} is above {}", sizes.size(), kMaxRank);
  std::copy(sizes.begin(), sizes.end(), sizes_);
}
int64_t Shape::numel() const {
  int64_t n = 1;
  for (const int64_t size : sizes()) n *= size;
  return n;
}
std::string Shape::to_string() const { return fmt::format("[{}]", fmt::join(sizes(), ", ")); }
bool Shape::operator==(const Shape& other) const { return std::ranges::equal(sizes(), other.sizes()); }

Tensor::Tensor(void* data, DType dtype, const Shape& shape, std::shared_ptr<const void> owner)
    : Tensor(data, dtype, shape, row_major_strides(shape), std::move(owner)) {}
Tensor::Tensor(void* data, DType dtype, const Shape& shape, const Shape& strides, std::shared_ptr<const void> owner)
    : data_(data), dtype_(dtype), shape_(shape), strides_(strides), owner_(std::move(owner)) {}

Tensor Tensor::empty(DType dtype, const Shape& shape) {
  const int64_t bytes = shape.numel() * dtype_bytes(dtype);
  MR_CHECK(bytes >= 0, "tensor of shape {}", shape.to_string());
  const size_t rounded = (static_cast<size_t>(bytes) + 63) / 64 * 64;
  void* memory = std::aligned_alloc(64, std::max<size_t>(rounded, 64));
  MR_CHECK(memory != nullptr, "no memory for {} bytes", bytes);
  return Tensor(memory, dtype, shape,
                std::shared_ptr<const void>(memory, [](const void* p) { std::free(const_cast<void*>(p)); }));
}
Tensor Tensor::zeros(DType dtype, const Shape& shape) {
  Tensor tensor = empty(dtype, shape);
  std::memset(tensor.raw(), 0, tensor.bytes());
  return tensor;
}

bool Tensor::contiguous() const {
  const Shape dense = row_major_strides(shape_);
  for (int axis = 0; axis < rank(); ++axis)
    if (shape_[axis] != 1 && strides_[axis] != dense[axis]) return false;
  return true;
}

Tensor Tensor::rows(int64_t begin, int64_t end) const {
  MR_CHECK(rank() >= 1 && 0 <= begin && begin <= end && end <= size(0), "rows [{}, {}) of {}", begin, end,
           shape_.to_string());
  Shape shape = shape_;
  shape[0] = end - begin;
  return Tensor(static_cast<std::byte*>(data_) + begin * strides_[0] * dtype_bytes(dtype_), dtype_, shape, strides_,
                owner_);
}

Tensor Tensor::reshaped(const Shape& shape) const {
  MR_CHECK(contiguous() && shape.numel() == numel(), "{} to {}", shape_.to_string(), shape.to_string());
  return Tensor(data_, dtype_, shape, owner_);
}

Tensor Tensor::transposed(int a, int b) const {
  Tensor out = *this;
  std::swap(out.shape_[a], out.shape_[b]);
  std::swap(out.strides_[a], out.strides_[b]);
  return out;
}

Tensor Tensor::to_contiguous() const {
  const bool aligned = reinterpret_cast<uintptr_t>(data_) % static_cast<uintptr_t>(dtype_bytes(dtype_)) == 0;
  if (contiguous() && aligned) return *this;
  Tensor out = empty(dtype_, shape_);
  copy_elements(*this, out);
  return out;
}

bool holds_shape(const Tensor& tensor, const Shape& shape) {
  if (tensor.shape() == shape) return true;
  if (tensor.rank() != shape.rank() + 1 || tensor.size(0) * tensor.size(1) != shape[0]) return false;
  for (int axis = 1; axis < shape.rank(); ++axis)
    if (tensor.size(axis + 1) != shape[axis]) return false;
  return true;
}

Tensor contiguous_as(const Tensor& tensor, const Shape& shape) {
  MR_CHECK(holds_shape(tensor, shape), "{} as {}", tensor.shape().to_string(), shape.to_string());
  return tensor.to_contiguous().reshaped(shape);
}

void copy_elements(const Tensor& from, Tensor& to) {
  MR_CHECK(from.shape() == to.shape() && from.dtype() == to.dtype(), "{} to {}", from.shape().to_string(),
           to.shape().to_string());
  copy_axes(from, static_cast<const std::byte*>(from.raw()), to, static_cast<std::byte*>(to.raw()), 0);
}

float element_as_float(const Tensor& tensor, int64_t index) {
  switch (tensor.dtype()) {
    case DType::kF32:
      return tensor.data<float>()[index];
    case DType::kBf16:
      return to_float(tensor.data<bf16>()[index]);
    case DType::kF16:
      return to_float(tensor.data<f16>()[index]);
    case DType::kF64:
      return static_cast<float>(tensor.data<double>()[index]);
    default:
      MR_CHECK(false, "{} is not floating", dtype_name(tensor.dtype()));
  }
  return 0;
}

Tensor converted(const Tensor& tensor, DType dtype) {
  const Tensor from = tensor.to_contiguous();
  if (from.dtype() == dtype) return from;
  Tensor to = Tensor::empty(dtype, from.shape());
  switch (dtype) {
    case DType::kF32:
      convert_into(from, to.data<float>());
      break;
    case DType::kBf16:
      convert_into(from, to.data<bf16>());
      break;
    case DType::kF16:
      convert_into(from, to.data<f16>());
      break;
    case DType::kF64:
      convert_into(from, to.data<double>());
      break;
    default:
      MR_CHECK(false, "conversion to {}", dtype_name(dtype));
  }
  return to;
}

}  // namespace millrace
