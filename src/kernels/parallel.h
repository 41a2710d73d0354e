// The compute pool: threads that run one operation together. How work is cut never changes a result: kernels only split
// rows, heads and output columns. Calls from inside a team, and calls while another thread has the pool, run on the
// calling thread alone.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstdint>

namespace millrace {

// How many threads an operation may use; at first, as many as the process has cores.
int compute_threads();
// Requires n >= 1. Not while an operation runs.
void set_compute_threads(int n);

// Where the members of a team meet. Waiting spins briefly, then lets others run.
class TeamBarrier {
 public:
  explicit TeamBarrier(int size) : size_(size) {}
  void wait();

 private:
  const int size_;
  std::atomic<int> arrived_{0}, rounds_{0};
};

// A member of a team that runs the same code at once.
struct TeamMember {
  int index, size;
  TeamBarrier* meeting;
  // Returns once all members came here.
  void barrier() const {
    if (size > 1) meeting->wait();
  }
};

// run(body, member) on every thread of a team of at most `most` threads; returns when all are done.
using TeamFn = void(void* body, const TeamMember& member);
void run_team(TeamFn* run, void* body, int most);

template <class Body>
void parallel_team(Body&& body, int most = INT32_MAX) {
  using Plain = std::remove_reference_t<Body>;
  run_team([](void* at, const TeamMember& me) { (*static_cast<Plain*>(at))(me); },
           const_cast<std::remove_const_t<Plain>*>(&body), most);
}

// body(begin, end) on ranges that cover [0, n), one per thread, each a multiple of `grain` long but for the last.
// n <= grain stays on the calling thread.
template <class Body>
void parallel_ranges(int64_t n, int64_t grain, Body&& body) {
  if (n <= 0) return;
  const int64_t grains = (n + grain - 1) / grain;
  if (grains <= 1) return body(int64_t{0}, n);
  const auto share = [&](const TeamMember& me) {
    const int64_t begin = grains * me.index / me.size * grain;
    const int64_t end = std::min(n, grains * (me.index + 1) / me.size * grain);
    if (begin < end) body(begin, end);
  };
  parallel_team(share, static_cast<int>(std::min<int64_t>(grains, INT32_MAX)));
}

// Hands out 0, 1, ... n - 1 to whoever asks next: for items of unequal cost, inside a team.
class WorkQueue {
 public:
  explicit WorkQueue(int64_t n) : n_(n) {}
  // The next item, or -1 when there is none.
  int64_t next() {
    const int64_t item = next_.fetch_add(1, std::memory_order_relaxed);
    return item < n_ ? item : -1;
  }

 private:
  const int64_t n_;
  alignas(64) std::atomic<int64_t> next_{0};
};

// Hands out [0, n) in runs of neighbours, at most `longest`, the shorter the fewer are left: for items that lie in
// memory one behind the other, where each thread had better read on from where it was.
class RunQueue {
 public:
  explicit RunQueue(int64_t n, int64_t longest = INT64_MAX) : n_(n), longest_(longest) {}
  // body(item) for every item that this member of a team gets.
  template <class Body>
  void each(const TeamMember& me, Body&& body) {
    for (;;) {
      int64_t begin = next_.load(std::memory_order_relaxed), end;
      do {
        if (begin >= n_) return;
        end = begin + std::clamp<int64_t>((n_ - begin) / (2 * me.size), 1, longest_);
      } while (!next_.compare_exchange_weak(begin, end, std::memory_order_relaxed));
      for (; begin < end; ++begin) body(begin);
    }
  }

 private:
  const int64_t n_, longest_;
  alignas(64) std::atomic<int64_t> next_{0};
};

// body(item) for every item in [0, n), whoever is free takes the next.
template <class Body>
void parallel_items(int64_t n, Body&& body) {
  if (n <= 0) return;
  WorkQueue queue(n);
  const auto work = [&](const TeamMember&) {
    for (int64_t item = queue.next(); item >= 0; item = queue.next()) body(item);
  };
  parallel_team(work, static_cast<int>(std::min<int64_t>(n, INT32_MAX)));
}

// The same for items that lie in memory one behind the other, in runs of at most `longest`.
template <class Body>
void parallel_runs(int64_t n, int64_t longest, Body&& body) {
  if (n <= 0) return;
  RunQueue queue(n, longest);
  parallel_team([&](const TeamMember& me) { queue.each(me, body); }, static_cast<int>(std::min<int64_t>(n, INT32_MAX)));
}

}  // namespace millrace
