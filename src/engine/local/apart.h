// Work in a process of its own, so that running out of memory ends that process and not this one.
#pragma once
#include <atomic>
#include <chrono>
#include <functional>
#include <string>

#include "base/result.h"

namespace millrace {

struct ApartOptions {
  std::chrono::steady_clock::time_point deadline = std::chrono::steady_clock::time_point::max();
  const std::atomic<bool>* cancelled = nullptr;  // set from a signal handler, say
};

// Forks, runs `work` in the child and brings back what it returns. The child is the first that the kernel ends when
// memory runs out, and ends with its parent. Errors besides those of `work`: kResourceExhausted when the child was
// killed or an allocation failed, kUnavailable past the deadline, kCancelled, kInternal when it died otherwise.
// kFailedPrecondition if this process has threads, which a fork would leave behind.
Result<std::string> run_apart(const std::function<Result<std::string>()>& work, const ApartOptions& options = {});

}  // namespace millrace
