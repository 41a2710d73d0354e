#include "ops/workspace.h"

#include <sys/mman.h>

#include <algorithm>

namespace millrace {
namespace {

constexpr int64_t kHugePage = 2 << 20;
constexpr int64_t round_up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

}  // namespace

Tensor page_zeros(DType dtype, const Shape& shape) {
  const int64_t wanted = shape.numel() * dtype_bytes(dtype);
  MR_CHECK(wanted >= 0, "memory of shape {}", shape.to_string());
  // Room to start at a huge page's boundary; what lies outside is never touched.
  const size_t mapped = static_cast<size_t>(round_up(std::max<int64_t>(wanted, 1), 4096) + kHugePage);
  void* memory = ::mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  MR_CHECK(memory != MAP_FAILED, "no memory for {} bytes", wanted);
  auto* start = reinterpret_cast<void*>(round_up(reinterpret_cast<intptr_t>(memory), kHugePage));
  if (wanted >= kHugePage) ::madvise(start, static_cast<size_t>(wanted), MADV_HUGEPAGE);
  return Tensor(start, dtype, shape,
                std::shared_ptr<const void>(start, [memory, mapped](const void*) { ::munmap(memory, mapped); }));
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

int64_t Workspace::tensor_bytes(DType dtype, const Shape& shape) {
  return round_up(shape.numel() * dtype_bytes(dtype), 64);
}

}  // namespace millrace
