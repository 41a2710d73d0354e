#include "ops/workspace.h"

#include <sys/mman.h>

#include <algorithm>

namespace millrace {
namespace {

constexpr int64_t kHugePage = 2 << 20;
constexpr int64_t round_up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

// Elements between rows of `width`.
int64_t row_stride(DType dtype, int64_t width) {
  const int64_t bytes = dtype_bytes(dtype);
  return width > 0 && width * bytes % 4096 == 0 ? width + 64 / bytes : width;
}

// A mapping of `bytes` that begins at a huge page's boundary; null where there is no memory. What was mapped to find
// the boundary is given back: a process may hold only some 65,000 mappings, and a model has tens of thousands of
// tensors.
std::byte* map_at_huge_page(int64_t bytes) {
  const int64_t mapped = bytes + kHugePage;
  void* memory = ::mmap(nullptr, static_cast<size_t>(mapped), PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) return nullptr;
  auto* begin = static_cast<std::byte*>(memory);
  const int64_t skipped = round_up(reinterpret_cast<intptr_t>(begin), kHugePage) - reinterpret_cast<intptr_t>(begin);
  if (skipped > 0) ::munmap(begin, static_cast<size_t>(skipped));
  if (const int64_t rest = kHugePage - skipped; rest > 0) ::munmap(begin + skipped + bytes, static_cast<size_t>(rest));
  return begin + skipped;
}

}  // namespace

Tensor page_zeros(DType dtype, const Shape& shape) {
  const int64_t wanted = shape.numel() * dtype_bytes(dtype);
  MR_CHECK(wanted >= 0, "memory of shape {}", shape.to_string());
  const int64_t kept = round_up(std::max<int64_t>(wanted, 1), 4096);
  auto* start = map_at_huge_page(kept);
  MR_CHECK(start != nullptr, "no memory for {} bytes", wanted);
  if (wanted >= kHugePage) ::madvise(start, static_cast<size_t>(kept), MADV_HUGEPAGE);
  return Tensor(start, dtype, shape, std::shared_ptr<const void>(start, [kept](const void* memory) {
                  ::munmap(const_cast<void*>(memory), static_cast<size_t>(kept));
                }));
}

Workspace::Workspace(int64_t capacity_bytes) : region_(page_zeros(DType::kU8, {round_up(capacity_bytes, 64)})) {}

std::byte* Workspace::bytes(int64_t n) {
  const int64_t size = round_up(n, 64);
  MR_CHECK(n >= 0 && used_ + size <= capacity_bytes(), "workspace of {} bytes, {} used, {} wanted", capacity_bytes(),
           used_, size);
  std::byte* at = static_cast<std::byte*>(region_.raw()) + used_;
  used_ += size;
  peak_ = std::max(peak_, used_);
  return at;
}

Tensor Workspace::tensor(DType dtype, const Shape& shape) {
  return Tensor(bytes(shape.numel() * dtype_bytes(dtype)), dtype, shape);
}

Tensor Workspace::rows(DType dtype, int64_t T, int64_t width) {
  const int64_t stride = row_stride(dtype, width);
  return Tensor(bytes(T * stride * dtype_bytes(dtype)), dtype, {T, width}, {stride, 1}, nullptr);
}

int64_t Workspace::rows_bytes(DType dtype, int64_t T, int64_t width) {
  return tensor_bytes(dtype, {T, row_stride(dtype, width)});
}

int64_t Workspace::tensor_bytes(DType dtype, const Shape& shape) {
  return round_up(shape.numel() * dtype_bytes(dtype), 64);
}

}  // namespace millrace
