// What the reports of matrix products share: shapes, memory that no cache keeps, medians.
#pragma once
#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <vector>

#include "base/dtype.h"
#include "base/random.h"

namespace millrace {

struct ProductShape {
  const char* model;
  const char* name;
  int64_t N, K;
};
constexpr ProductShape kProductShapes[] = {
    {"Llama-3.2-1B", "qkv", 3072, 2048},       {"Llama-3.2-1B", "out", 2048, 2048},
    {"Llama-3.2-1B", "gate_up", 16384, 2048},  {"Llama-3.2-1B", "down", 2048, 8192},
    {"Llama-3.2-1B", "lm_head", 128256, 2048}, {"Qwen2.5-0.5B", "qkv", 1152, 896},
    {"Qwen2.5-0.5B", "out", 896, 896},         {"Qwen2.5-0.5B", "gate_up", 9728, 896},
    {"Qwen2.5-0.5B", "down", 896, 4864},
};

// Zeroed pages, huge ones where the kernel gives them.
class Pages {
 public:
  explicit Pages(int64_t bytes) : size_(bytes + (1 << 21)) {
    data_ = static_cast<std::byte*>(::mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    ::madvise(data_, size_, MADV_HUGEPAGE);
  }
  ~Pages() { ::munmap(data_, size_); }
  Pages(const Pages&) = delete;
  Pages& operator=(const Pages&) = delete;
  std::byte* data() const { return data_; }
  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(data_);
  }

 private:
  const size_t size_;
  std::byte* data_;
};

// Copies of one layer's packed weights, so that no cache keeps them from one product to the next.
class LayerCopies {
 public:
  // fill(memory) packs one layer of `bytes`.
  template <class Fill>
  LayerCopies(int64_t bytes, const Fill& fill)
      : bytes_((bytes + 4095) / 4096 * 4096),
        count_(std::max<int64_t>(1, (int64_t{512} << 20) / bytes_)),
        pages_(bytes_ * count_) {
    fill(pages_.data());
    for (int64_t i = 1; i < count_; ++i) std::memcpy(pages_.data() + i * bytes_, pages_.data(), bytes_);
  }
  const std::byte* layer(int64_t i) const { return pages_.data() + i % count_ * bytes_; }

 private:
  const int64_t bytes_, count_;
  const Pages pages_;
};

// Median of run(i) over some rounds, in seconds.
template <class Run>
double median_seconds(const Run& run) {
  std::vector<double> times;
  const auto begin = std::chrono::steady_clock::now();
  for (int i = 0; i < 60; ++i) {
    const auto start = std::chrono::steady_clock::now();
    run(i);
    const auto now = std::chrono::steady_clock::now();
    times.push_back(std::chrono::duration<double>(now - start).count());
    if (i >= 4 && std::chrono::duration<double>(now - begin).count() > 0.4) break;
  }
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

inline void fill_bf16(Random& random, bf16* to, int64_t n) {
  std::vector<bf16> noise(65521);
  for (bf16& x : noise) x = to_bf16(random.normal());
  for (int64_t i = 0; i < n; ++i) to[i] = noise[i % 65521];
}

}  // namespace millrace
