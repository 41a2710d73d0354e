// Scratch memory of a step: one region, taken from the front, given back all at once. Planned once: its owner asks
// every operation for its scratch_bytes and adds what it takes itself. One thread: the one that runs the step.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>

#include "tensor/tensor.h"

namespace millrace {

// Zeroed memory on pages of its own, huge ones where the kernel gives them. Not touched before first use. Dies by
// MR_CHECK when there is no room.
Tensor page_zeros(DType dtype, const Shape& shape);

class Workspace {
 public:
  explicit Workspace(int64_t capacity_bytes);

  // 64-byte aligned, not initialised; valid until the innermost Scope ends. Requires room.
  std::byte* bytes(int64_t n);
  Tensor tensor(DType dtype, const Shape& shape);
  // Bytes that tensor(dtype, shape) takes.
  static int64_t tensor_bytes(DType dtype, const Shape& shape);
  // [T, width], each row contiguous. Rows lie a line further apart where they would be whole pages: a product writes
  // them column by column, and what lies whole pages apart shares few sets of the caches.
  Tensor rows(DType dtype, int64_t T, int64_t width);
  static int64_t rows_bytes(DType dtype, int64_t T, int64_t width);

  // Gives back on destruction what was taken since its construction.
  class Scope {
   public:
    explicit Scope(Workspace& workspace) : workspace_(workspace), used_(workspace.used_) {}
    ~Scope() { workspace_.used_ = used_; }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Workspace& workspace_;
    const int64_t used_;
  };

  int64_t capacity_bytes() const { return region_.bytes(); }
  int64_t used_bytes() const { return used_; }
  int64_t peak_bytes() const { return peak_; }

 private:
  Tensor region_;
  int64_t used_ = 0, peak_ = 0;
};

}  // namespace millrace
