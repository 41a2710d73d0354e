// Tensor: a typed, strided view of memory that somebody owns: an allocation, a mapped file, a caller's buffer. No
// arithmetic. Copying a Tensor copies the view; `owner` keeps the memory alive for all copies (null: borrowed).
// Any thread may read; writing is the business of whoever owns the step.
#pragma once
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>

#include "base/check.h"
#include "base/dtype.h"

namespace millrace {

constexpr int kMaxRank = 5;

// Sizes of the axes, outermost first.
class Shape {
 public:
  Shape() = default;
  Shape(std::initializer_list<int64_t> sizes) : Shape(std::span(sizes.begin(), sizes.size())) {}
  explicit Shape(std::span<const int64_t> sizes);
  int rank() const { return rank_; }
  int64_t operator[](int axis) const { return sizes_[axis < 0 ? axis + rank_ : axis]; }
  int64_t& operator[](int axis) { return sizes_[axis < 0 ? axis + rank_ : axis]; }
  // Product of the sizes; 1 for rank 0.
  int64_t numel() const;
  std::span<const int64_t> sizes() const { return {sizes_, static_cast<size_t>(rank_)}; }
  std::string to_string() const;  // "[32, 128]"
  bool operator==(const Shape& other) const;

 private:
  int64_t sizes_[kMaxRank] = {};
  int rank_ = 0;
};

class Tensor {
 public:
  Tensor() = default;
  // Row-major view of `data`.
  Tensor(void* data, DType dtype, const Shape& shape, std::shared_ptr<const void> owner = nullptr);
  // Any layout; strides in elements.
  Tensor(void* data, DType dtype, const Shape& shape, const Shape& strides, std::shared_ptr<const void> owner);
  // Owned, 64-byte aligned, not initialised. Dies by MR_CHECK when memory is out: sizes from files and requests are
  // checked by the caller first.
  static Tensor empty(DType dtype, const Shape& shape);
  static Tensor zeros(DType dtype, const Shape& shape);

  bool defined() const { return data_ != nullptr || numel() == 0; }
  DType dtype() const { return dtype_; }
  const Shape& shape() const { return shape_; }
  int64_t size(int axis) const { return shape_[axis]; }
  int64_t stride(int axis) const { return strides_[axis]; }
  int rank() const { return shape_.rank(); }
  int64_t numel() const { return shape_.numel(); }
  int64_t bytes() const { return numel() * dtype_bytes(dtype_); }
  bool contiguous() const;

  void* raw() { return data_; }
  const void* raw() const { return data_; }
  template <class T>
  T* data() {
    return static_cast<T*>(data_);
  }
  template <class T>
  const T* data() const {
    return static_cast<const T*>(data_);
  }
  const std::shared_ptr<const void>& owner() const { return owner_; }

  // Rows [begin, end) of the first axis; same memory.
  Tensor rows(int64_t begin, int64_t end) const;
  // Same elements, other shape; requires contiguous().
  Tensor reshaped(const Shape& shape) const;
  // Axes `a` and `b` exchanged; same memory.
  Tensor transposed(int a, int b) const;
  // A contiguous owned copy (this tensor itself where it is contiguous and its elements are aligned).
  Tensor to_contiguous() const;

 private:
  void* data_ = nullptr;
  DType dtype_ = DType::kF32;
  Shape shape_, strides_;
  std::shared_ptr<const void> owner_;
};

// Whether `tensor` holds a tensor of `shape` in row-major order of its axes: as it is, or with the first axis cut in
// two.
bool holds_shape(const Tensor& tensor, const Shape& shape);
// That tensor, contiguous: `tensor` itself or a copy. Requires holds_shape(tensor, shape).
Tensor contiguous_as(const Tensor& tensor, const Shape& shape);

// Copies every element of `from` to the same place of `to`: equal shapes and dtypes, any strides.
void copy_elements(const Tensor& from, Tensor& to);

// Element `index` (row-major, ignoring strides: requires contiguous) as a float, any floating dtype. For tests and
// loads, not for hot loops.
float element_as_float(const Tensor& tensor, int64_t index);
// Contiguous copy in `dtype`; both floating.
Tensor converted(const Tensor& tensor, DType dtype);

}  // namespace millrace
