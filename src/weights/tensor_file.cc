#include "weights/tensor_file.h"

namespace millrace {

std::vector<int64_t> NamedTensor::shape() const {
  const auto sizes = pieces.front().shape().sizes();
  std::vector<int64_t> shape(sizes.begin(), sizes.end());
  for (size_t i = 1; i < pieces.size(); ++i) shape.front() += pieces[i].size(0);
  return shape;
}

int64_t NamedTensor::bytes() const {
  int64_t total = 0;
  for (const Tensor& piece : pieces) total += piece.bytes();
  return total;
}

std::optional<int64_t> checked_bytes(const std::vector<int64_t>& shape, int64_t bytes_per_element) {
  constexpr int64_t kMost = int64_t{1} << 62;
  int64_t total = bytes_per_element;
  bool empty = false;
  for (const int64_t size : shape) {
    if (size < 0) return std::nullopt;
    if (size == 0) empty = true;
    if (size > 0 && __builtin_mul_overflow(total, size, &total)) return std::nullopt;
    if (total > kMost) return std::nullopt;
  }
  return empty ? 0 : total;
}

}  // namespace millrace
