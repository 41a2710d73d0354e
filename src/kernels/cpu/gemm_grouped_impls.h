// The implementations of grouped products, for the lists in kernels/gemm_grouped.cc, and what they share: an
// implementation says how one product falls into steps, run_grouped deals the steps of all products to a team.
#pragma once
#include <algorithm>

#include "kernels/cpu/gemm_impls.h"
#include "kernels/cpu/gemm_w8a8_impls.h"
#include "kernels/gemm_grouped.h"
#include "kernels/parallel.h"

namespace millrace {

// A product in steps that any thread may take: all preparations of x first, into the product's scratch, then the items
// of y. `Args` is GemmArgs, GemmW8A8Args or one of their gated forms.
template <class Args>
struct GemmSteps {
  int64_t (*preparations)(const Args&);
  void (*prepare)(const Args&, int64_t preparation);
  int64_t (*items)(const Args&);
  void (*run)(const Args&, int64_t item, std::byte* own);  // own: own_bytes of the thread's
  int64_t own_bytes;
};

inline GemmArgs& product_of(GemmArgs& args) { return args; }
inline GemmArgs& product_of(GatedGemmArgs& args) { return args.product; }
inline GemmW8A8Args& product_of(GemmW8A8Args& args) { return args; }
inline GemmW8A8Args& product_of(GatedGemmW8A8Args& args) { return args.product; }

constexpr int64_t round_up_to_64(int64_t n) { return (n + 63) / 64 * 64; }

// Bytes that any implementation's prepared x takes: float32, blocks of up to twelve rows whole.
constexpr int64_t prepared_bytes(int64_t rows, int64_t K, DType weight) {
  return round_up_to_64((rows + 12) * gemm_padded_k(K, weight) * 4);
}
inline int64_t prepared_bytes(const GemmArgs& a) { return prepared_bytes(a.M, a.K, a.w_dtype); }
// Likewise of int8, rows of digits: tiles of sixteen rows, or int16, and scales.
constexpr int64_t w8a8_prepared_bytes(int64_t rows, int64_t K) { return (rows + 15) * (2 * w8a8_padded_k(K) + 64); }
inline int64_t prepared_bytes(const GemmW8A8Args& a) { return w8a8_prepared_bytes(a.M * a.x_digits, a.K); }
// For each product, where its steps begin in the row of all products' steps.
constexpr int64_t starts_bytes(int64_t products) { return round_up_to_64((products + 1) * 8); }

// The product that step `step` of all steps belongs to.
inline int64_t owner_of(const int64_t* starts, int64_t products, int64_t step) {
  return std::upper_bound(starts, starts + products + 1, step) - starts - 1;
}

template <class Args>
void run_grouped(std::span<Args> products, std::byte* scratch, const GemmSteps<Args>& steps) {
  const auto n = static_cast<int64_t>(products.size());
  auto* preparations = reinterpret_cast<int64_t*>(scratch);
  auto* items = reinterpret_cast<int64_t*>(scratch + starts_bytes(n));
  std::byte* const own = scratch + 2 * starts_bytes(n);
  std::byte* x = own + compute_threads() * steps.own_bytes;
  int64_t work = 0;
  preparations[0] = items[0] = 0;
  for (int64_t i = 0; i < n; ++i) {
    auto& a = product_of(products[i]);
    a.scratch = x;
    x += prepared_bytes(a);
    work += a.M * a.N * a.K;
    const bool empty = a.M <= 0 || a.N <= 0;
    preparations[i + 1] = preparations[i] + (empty ? 0 : steps.preparations(products[i]));
    items[i + 1] = items[i] + (empty ? 0 : steps.items(products[i]));
  }
  WorkQueue to_prepare(preparations[n]), to_run(items[n]);
  const auto member = [&](const TeamMember& me) {
    for (int64_t s = to_prepare.next(); s >= 0; s = to_prepare.next()) {
      const int64_t i = owner_of(preparations, n, s);
      steps.prepare(products[i], s - preparations[i]);
    }
    me.barrier();
    for (int64_t s = to_run.next(); s >= 0; s = to_run.next()) {
      const int64_t i = owner_of(items, n, s);
      steps.run(products[i], s - items[i], own + me.index * steps.own_bytes);
    }
  };
  parallel_team(member, work <= kSmallGemm ? 1 : INT32_MAX);
}

// A product without own memory of the threads, its scratch given, on up to `threads` threads.
template <class Args>
void run_alone(const Args& a, const GemmSteps<Args>& steps, int threads) {
  WorkQueue queue(steps.items(a));
  const auto member = [&](const TeamMember& me) {
    for (int64_t s = me.index; s < steps.preparations(a); s += me.size) steps.prepare(a, s);
    me.barrier();
    for (int64_t s = queue.next(); s >= 0; s = queue.next()) steps.run(a, s, nullptr);
  };
  parallel_team(member, threads);
}

// The best grouped product into scratch, then the units on it.
void gemm_then_glu_grouped(const GroupedGatedGemmArgs&);

void gemm_w8a8_then_glu_grouped(const GroupedGatedW8A8Args&);

namespace portable {
void gemm_w8a8_grouped(const GroupedW8A8Args&);
void gemm_grouped(const GroupedGemmArgs&);
}  // namespace portable
namespace avx2 {
void gemm_w8a8_grouped(const GroupedW8A8Args&);
void gemm_grouped_f32(const GroupedGemmArgs&);
void gemm_grouped_f16(const GroupedGemmArgs&);
void gemm_grouped_bf16(const GroupedGemmArgs&);
}  // namespace avx2
namespace avx512 {
void gemm_w8a8_grouped(const GroupedW8A8Args&);
void gemm_grouped_f32(const GroupedGemmArgs&);
void gemm_grouped_f16(const GroupedGemmArgs&);
void gemm_grouped_bf16(const GroupedGemmArgs&);
void gemm_grouped_bf16_pairs(const GroupedGemmArgs&);
}  // namespace avx512
namespace amx {
void gemm_w8a8_grouped(const GroupedW8A8Args&);
void gemm_gated_w8a8_grouped(const GroupedGatedW8A8Args&);
void gemm_grouped_bf16(const GroupedGemmArgs&);
void gemm_gated_grouped_bf16(const GroupedGatedGemmArgs&);
// What a thread needs for itself.
int64_t gemm_own_bytes();
}  // namespace amx

}  // namespace millrace
