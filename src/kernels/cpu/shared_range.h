// Work that a thread has begun and others may help with.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstdint>

namespace millrace {

// Items [0, count), below 2^31. The owner claims them from the front, in order; others take them from the back. Each
// item goes to one thread, and the first to the owner. Threads: reset() while nobody else looks, claim() by the owner,
// the others by anybody.
class SharedRange {
 public:
  struct Items {
    int64_t begin = 0, end = 0;
  };

  void reset(int64_t count) { state_.store(State{0, count}.bits(), std::memory_order_release); }
  // Whether nobody took item i so far.
  bool has(int64_t i) const { return i < now().end; }
  bool claim(int64_t i) {
    uint64_t bits = state_.load(std::memory_order_relaxed);
    do {
      if (i >= State::of(bits).end) return false;
    } while (!state_.compare_exchange_weak(bits, State{i + 1, State::of(bits).end}.bits(), std::memory_order_acq_rel));
    return true;
  }
  // Takes share(claimed, unclaimed) items, or fewer; none where the owner would be left without any.
  template <class Share>
  Items take(const Share& share) {
    uint64_t bits = state_.load(std::memory_order_acquire);
    for (;;) {
      const State at = State::of(bits);
      const int64_t first = std::max({at.end - share(at.claimed, at.end - at.claimed), at.claimed, int64_t{1}});
      if (first >= at.end) return {};
      if (state_.compare_exchange_weak(bits, State{at.claimed, first}.bits(), std::memory_order_acq_rel))
        return {first, at.end};
    }
  }

 private:
  struct State {
    static State of(uint64_t bits) {
      return {static_cast<int64_t>(bits >> 32), static_cast<int64_t>(bits & 0xffffffff)};
    }
    uint64_t bits() const { return static_cast<uint64_t>(claimed) << 32 | static_cast<uint64_t>(end); }
    int64_t claimed, end;
  };
  State now() const { return State::of(state_.load(std::memory_order_relaxed)); }

  std::atomic<uint64_t> state_{0};
};

}  // namespace millrace
