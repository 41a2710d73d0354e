// The implementations of grouped products, for the lists in kernels/gemm_grouped.cc, and what they share: an
// implementation says how one product falls into steps, GroupSteps deals the steps of all products to a team.
#pragma once
#include <algorithm>

#include "kernels/cpu/gemm_a16_impls.h"
#include "kernels/cpu/gemm_impls.h"
#include "kernels/cpu/gemm_w8a8_impls.h"
#include "kernels/gemm_grouped.h"
#include "kernels/parallel.h"

namespace millrace {

// A product in steps that any thread may take: all preparations of x first, into the product's scratch, then the items
// of y. `Args` is GemmArgs, GemmW8A8Args, GemmA16Args or one of their gated forms.
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
inline GemmA16Args& product_of(GemmA16Args& args) { return args; }
inline GemmA16Args& product_of(GatedGemmA16Args& args) { return args.product; }

constexpr int64_t round_up_to_64(int64_t n) { return (n + 63) / 64 * 64; }

// Bytes that any implementation's prepared x takes: float32, blocks of up to twelve rows whole, or tiles of sixteen
// rows of bf16, one or two of which are a row of x.
constexpr int64_t prepared_bytes(int64_t rows, int64_t K) {
  return round_up_to_64((rows + 12) * ((K + 31) / 32 * 32) * 4);
}
inline int64_t prepared_bytes(const GemmArgs& a) { return prepared_bytes(a.M, a.K); }
// Likewise of int8, rows of digits: tiles of sixteen rows, or int16, and scales.
constexpr int64_t w8a8_prepared_bytes(int64_t rows, int64_t K) { return (rows + 15) * (2 * w8a8_padded_k(K) + 64); }
inline int64_t prepared_bytes(const GemmW8A8Args& a) { return w8a8_prepared_bytes(a.M * a.x_digits, a.K); }
// Words, or tiles of sixteen rows of bf16.
constexpr int64_t a16_prepared_bytes(int64_t rows, int64_t K) { return (rows + 8) * a16_padded_k(K) * 4; }
inline int64_t prepared_bytes(const GemmA16Args& a) { return a16_prepared_bytes(a.M, a.K); }
// For each product, where its steps begin in the row of all products' steps.
constexpr int64_t starts_bytes(int64_t products) { return round_up_to_64((products + 1) * 8); }

// The product that step `step` of all steps belongs to.
inline int64_t owner_of(const int64_t* starts, int64_t products, int64_t step) {
  return std::upper_bound(starts, starts + products + 1, step) - starts - 1;
}

// The steps of all products of a group, dealt to the members of a team.
template <class Args>
class GroupSteps {
 public:
  // Lays out `scratch`: where steps begin, the threads' own memory, each product's prepared x.
  GroupSteps(std::span<Args> products, std::byte* scratch, const GemmSteps<Args>& steps)
      : products_(products),
        steps_(steps),
        n_(static_cast<int64_t>(products.size())),
        preparations_(reinterpret_cast<int64_t*>(scratch)),
        items_(reinterpret_cast<int64_t*>(scratch + starts_bytes(n_))),
        own_(scratch + 2 * starts_bytes(n_)),
        work_(count_steps(own_ + compute_threads() * steps.own_bytes)),
        to_prepare_(preparations_[n_]),
        to_run_(items_[n_]) {}

  // An item of a product, null when all are dealt.
  struct Item {
    const Args* product;
    int64_t index;
  };
  Item next() {
    const int64_t step = to_run_.next();
    if (step < 0) return {nullptr, 0};
    const int64_t i = owner_of(items_, n_, step);
    return {&products_[i], step - items_[i]};
  }
  void run(const Item& item, const TeamMember& me) const { steps_.run(*item.product, item.index, own(me)); }
  // Returns once all products are prepared.
  void prepare(const TeamMember& me) {
    for (int64_t step = to_prepare_.next(); step >= 0; step = to_prepare_.next()) {
      const int64_t i = owner_of(preparations_, n_, step);
      steps_.prepare(products_[i], step - preparations_[i]);
    }
    me.barrier();
  }
  // The most threads that the products are worth.
  int threads() const { return work_ <= kSmallGemm ? 1 : INT32_MAX; }

 private:
  std::byte* own(const TeamMember& me) const { return own_ + me.index * steps_.own_bytes; }
  // Multiply-adds of all products, whose x is to be prepared from `x` on.
  int64_t count_steps(std::byte* x) {
    int64_t work = 0;
    preparations_[0] = items_[0] = 0;
    for (int64_t i = 0; i < n_; ++i) {
      auto& a = product_of(products_[i]);
      a.scratch = x;
      x += prepared_bytes(a);
      work += a.M * a.N * a.K;
      const bool empty = a.M <= 0 || a.N <= 0;
      preparations_[i + 1] = preparations_[i] + (empty ? 0 : steps_.preparations(products_[i]));
      items_[i + 1] = items_[i] + (empty ? 0 : steps_.items(products_[i]));
    }
    return work;
  }

  const std::span<Args> products_;
  const GemmSteps<Args>& steps_;
  const int64_t n_;
  int64_t *const preparations_, *const items_;
  std::byte* const own_;
  const int64_t work_;
  WorkQueue to_prepare_, to_run_;
};

template <class Args>
void run_grouped(std::span<Args> products, std::byte* scratch, const GemmSteps<Args>& steps) {
  GroupSteps<Args> group(products, scratch, steps);
  const auto member = [&](const TeamMember& me) {
    group.prepare(me);
    for (auto item = group.next(); item.product; item = group.next()) group.run(item, me);
  };
  parallel_team(member, group.threads());
}

// A product whose scratch is given, on up to `threads` threads; `own`: own_bytes for each of them.
template <class Args>
void run_alone(const Args& a, const GemmSteps<Args>& steps, int threads, std::byte* own = nullptr) {
  RunQueue queue(steps.items(a));
  const auto member = [&](const TeamMember& me) {
    for (int64_t s = me.index; s < steps.preparations(a); s += me.size) steps.prepare(a, s);
    me.barrier();
    queue.each(me, [&](int64_t item) { steps.run(a, item, own + me.index * steps.own_bytes); });
  };
  parallel_team(member, threads);
}

// The best grouped product into scratch, then the units on it.
void gemm_then_glu_grouped(const GroupedGatedGemmArgs&);

void gemm_w8a8_then_glu_grouped(const GroupedGatedW8A8Args&);

void gemm_a16_then_glu_grouped(const GroupedGatedA16Args&);

namespace portable {
void gemm_a16_grouped(const GroupedA16Args&);
void gemm_w8a8_grouped(const GroupedW8A8Args&);
void gemm_grouped(const GroupedGemmArgs&);
}  // namespace portable
namespace avx2 {
void gemm_a16_grouped(const GroupedA16Args&);
void gemm_w8a8_grouped(const GroupedW8A8Args&);
void gemm_grouped_f32(const GroupedGemmArgs&);
void gemm_grouped_f16(const GroupedGemmArgs&);
void gemm_grouped_bf16(const GroupedGemmArgs&);
}  // namespace avx2
namespace avx512 {
void gemm_a16_grouped(const GroupedA16Args&);
void gemm_w8a8_grouped(const GroupedW8A8Args&);
void gemm_grouped_f32(const GroupedGemmArgs&);
void gemm_grouped_f16(const GroupedGemmArgs&);
void gemm_grouped_bf16(const GroupedGemmArgs&);
void gemm_grouped_bf16_pairs(const GroupedGemmArgs&);
}  // namespace avx512
namespace amx {
void gemm_a16_grouped(const GroupedA16Args&);
void gemm_gated_a16_grouped(const GroupedGatedA16Args&);
void gemm_w8a8_grouped(const GroupedW8A8Args&);
void gemm_gated_w8a8_grouped(const GroupedGatedW8A8Args&);
void gemm_grouped_bf16(const GroupedGemmArgs&);
void gemm_gated_grouped_bf16(const GroupedGatedGemmArgs&);
void gemm_grouped_f16(const GroupedGemmArgs&);
// What a thread needs for itself.
int64_t gemm_own_bytes();
int64_t gemm_f16_own_bytes();
}  // namespace amx

}  // namespace millrace
