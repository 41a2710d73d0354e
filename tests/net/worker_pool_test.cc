#include "net/worker_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <stdexcept>

namespace millrace {
namespace {

TEST(WorkerPool, EveryJobRunsOnceAndAThrowingOneHurtsNobody) {
  std::atomic<int> ran{0};
  WorkerPool pool(3);
  std::promise<void> all;
  for (int i = 0; i < 1000; ++i)
    EXPECT_TRUE(pool.submit([&, i] {
      if (++ran == 1000) all.set_value();
      if (i == 500) throw std::runtime_error("on purpose");
    }));
  all.get_future().wait();
  EXPECT_EQ(ran, 1000);
}

TEST(WorkerPool, StopDropsWhatWaitsAndRefusesMore) {
  WorkerPool pool(1);
  std::promise<void> started, go;
  const auto held = std::make_shared<int>(1);
  pool.submit([&] {
    started.set_value();
    go.get_future().wait();
  });
  started.get_future().wait();
  pool.submit([held] { ADD_FAILURE() << "a job ran after stop()"; });
  std::thread releaser([&] {
    while (pool.submit([] {})) std::this_thread::yield();  // until stop() has begun
    go.set_value();
  });
  pool.stop();
  releaser.join();
  EXPECT_EQ(held.use_count(), 1);
  EXPECT_FALSE(pool.submit([] {}));
}

}  // namespace
}  // namespace millrace
