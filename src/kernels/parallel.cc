#include "kernels/parallel.h"

#include <sched.h>

#include <deque>
#include <mutex>
#include <thread>

#include "base/check.h"
#include "base/cpu.h"

namespace millrace {
namespace {

// Long enough to bridge what lies between two operations of a step, short enough to leave the cores to others when
// there is nothing to do: some 50 us.
constexpr int kSpins = 1200;

std::atomic<int>& threads() {
  static std::atomic<int> n = std::max(1, machine_info().cores);
  return n;
}

void pause() { __builtin_ia32_pause(); }

// Spins until done() for a while; false where it was not done by then.
template <class Done>
bool spin_until(const Done& done) {
  for (int i = 0; i < kSpins; ++i) {
    if (done()) return true;
    pause();
  }
  return done();
}

template <class Done>
void wait_until(const Done& done) {
  while (!spin_until(done)) ::sched_yield();
}

struct Job {
  TeamFn* run;
  void* body;
  int size;
  TeamBarrier meeting;
};

thread_local bool in_team = false;

// Kernels keep tiles and sums on the stack, up to some 550 KB. Whoever works touches that much once, before its first
// work: which thread takes which item is chance, and no later step is to meet a new page.
constexpr size_t kStackBytes = size_t{768} << 10;
[[gnu::noinline]] void touch_stack() {
  [[maybe_unused]] volatile char room[kStackBytes];
  for (size_t i = 0; i < kStackBytes; i += 4096) room[i] = 0;
}
void touch_stack_once() {
  thread_local bool touched = false;
  if (!touched) touch_stack();
  touched = true;
}

void run_member(Job& job, int index) {
  in_team = true;
  job.run(job.body, TeamMember{index, job.size, &job.meeting});
  in_team = false;
}

// A thread that waits for a job in its slot, runs it and empties the slot.
class Worker {
 public:
  explicit Worker(int index) : index_(index) {
    std::thread([this] { serve(); }).detach();
  }
  void give(Job& job) {
    slot_.store(&job, std::memory_order_release);
    slot_.notify_one();
  }
  bool idle() const { return slot_.load(std::memory_order_acquire) == nullptr; }

 private:
  void serve() {
    touch_stack_once();
    for (;;) {
      if (!spin_until([&] { return !idle(); })) slot_.wait(nullptr, std::memory_order_acquire);
      Job* job = slot_.load(std::memory_order_acquire);
      if (!job) continue;
      run_member(*job, index_);
      slot_.store(nullptr, std::memory_order_release);
    }
  }
  const int index_;
  alignas(64) std::atomic<Job*> slot_{nullptr};
};

// Workers live as long as the process: they may be asleep when it exits, and nothing waits for them.
class Pool {
 public:
  static Pool& instance() {
    static Pool& pool = *new Pool;
    return pool;
  }
  // Whether the job was run; false where another thread has the pool.
  bool run(Job& job) {
    const std::unique_lock lock(taken_, std::try_to_lock);
    if (!lock.owns_lock()) return false;
    while (static_cast<int>(workers_.size()) < job.size - 1) workers_.emplace_back(workers_.size() + 1);
    for (int i = 0; i < job.size - 1; ++i) workers_[i].give(job);
    run_member(job, 0);
    for (int i = 0; i < job.size - 1; ++i) wait_until([&] { return workers_[i].idle(); });
    return true;
  }

 private:
  std::mutex taken_;
  std::deque<Worker> workers_;
};

}  // namespace

int compute_threads() { return threads().load(std::memory_order_relaxed); }

void set_compute_threads(int n) {
  MR_CHECK(n >= 1, "{} compute threads", n);
  threads().store(n, std::memory_order_relaxed);
}

void TeamBarrier::wait() {
  const int round = rounds_.load(std::memory_order_acquire);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size_) {
    arrived_.store(0, std::memory_order_relaxed);
    rounds_.store(round + 1, std::memory_order_release);
    return;
  }
  wait_until([&] { return rounds_.load(std::memory_order_acquire) != round; });
}

void run_team(TeamFn* run, void* body, int most) {
  touch_stack_once();
  const int size = in_team ? 1 : std::min(compute_threads(), most);
  if (size > 1) {
    Job job{run, body, size, TeamBarrier(size)};
    if (Pool::instance().run(job)) return;
  }
  TeamBarrier alone(1);
  run(body, TeamMember{0, 1, &alone});
}

}  // namespace millrace
