// A few threads for work that must not run on an event loop: parsing, tokenising, serialising.
// Any thread may submit. Jobs start in order. What a job throws is logged and dropped.
#pragma once
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace millrace {

class WorkerPool {
 public:
  explicit WorkerPool(int threads);
  ~WorkerPool() { stop(); }
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  // False after stop(): the job is destroyed, not run.
  bool submit(std::function<void()> job);
  // Lets running jobs finish, destroys the waiting ones, joins. Not from a pool thread. Calling it again does nothing.
  void stop();

 private:
  void run();
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::function<void()>> jobs_;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace millrace
