#include "kernels/parallel.h"

#include "base/check.h"
#include "base/cpu.h"

namespace millrace {
namespace {

// libgomp is not built for the thread sanitizer, which would report its barriers as races: one thread there.
int initial_threads() {
#if defined(__SANITIZE_THREAD__)
  return 1;
#else
  return std::max(1, std::min(machine_info().cores, omp_get_max_threads()));
#endif
}

std::atomic<int>& threads() {
  static std::atomic<int> n = initial_threads();
  return n;
}

}  // namespace

int compute_threads() { return threads().load(std::memory_order_relaxed); }

void set_compute_threads(int n) {
  MR_CHECK(n >= 1, "{} compute threads", n);
#if !defined(__SANITIZE_THREAD__)
  threads().store(n, std::memory_order_relaxed);
#endif
}

void TeamMember::barrier() const {
  if (size > 1) {
#pragma omp barrier
  }
}

}  // namespace millrace
