#include "kernels/parallel.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <atomic>
#include <bit>
#include <chrono>
#include <thread>
#include <vector>

#include "kernels/cpu/shared_range.h"

namespace millrace {
namespace {

class Parallel : public testing::Test {
 protected:
  ~Parallel() override { set_compute_threads(before_); }
  const int before_ = compute_threads();
};

TEST_F(Parallel, RangesCoverEverythingOnceOnAnyNumberOfThreads) {
  for (const int threads : {1, 2, 5}) {
    set_compute_threads(threads);
    for (const int64_t n : {0, 1, 7, 64, 1000})
      for (const int64_t grain : {1, 16, 2000}) {
        std::vector<std::atomic<int>> touched(n);
        parallel_ranges(n, grain, [&](int64_t begin, int64_t end) {
          EXPECT_EQ(begin % grain, 0);
          for (int64_t i = begin; i < end; ++i) ++touched[i];
        });
        for (int64_t i = 0; i < n; ++i) ASSERT_EQ(touched[i], 1) << i << " of " << n << " on " << threads;
      }
  }
}

TEST_F(Parallel, ARunQueueHandsOutEverythingOnceInRisingRuns) {
  for (const int threads : {1, 2, 5}) {
    set_compute_threads(threads);
    for (const int64_t n : {0, 1, 2, 7, 1000}) {
      std::vector<std::atomic<int>> touched(n);
      std::atomic<int64_t> jumps = 0;
      RunQueue queue(n);
      parallel_team([&](const TeamMember& me) {
        int64_t last = -1;
        queue.each(me, [&](int64_t item) {
          EXPECT_GT(item, last);
          if (item != last + 1) ++jumps;
          last = item;
          ++touched[item];
        });
      });
      for (int64_t i = 0; i < n; ++i) ASSERT_EQ(touched[i], 1) << i << " of " << n << " on " << threads;
      EXPECT_LE(jumps, 8 * threads * (1 + std::bit_width(static_cast<uint64_t>(n))));
    }
  }
}

TEST_F(Parallel, ARunIsNoLongerThanAsked) {
  set_compute_threads(2);
  RunQueue queue(100, 3);
  std::atomic<int> done = 0;
  int done_by_the_other = 0;
  parallel_team([&](const TeamMember& me) {
    queue.each(me, [&](int64_t item) {
      const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
      while (item == 0 && done < 97 && std::chrono::steady_clock::now() < end) std::this_thread::yield();
      if (item == 0) done_by_the_other = done;
      ++done;
    });
  });
  EXPECT_EQ(done_by_the_other, 97);
  EXPECT_EQ(done, 100);
}

TEST_F(Parallel, NobodyPassesABarrierBeforeAllHaveCome) {
  set_compute_threads(4);
  std::atomic<int> arrived = 0, early = 0;
  parallel_team([&](const TeamMember& me) {
    for (int round = 1; round <= 200; ++round) {
      ++arrived;
      me.barrier();
      if (arrived < round * me.size) ++early;
      me.barrier();
    }
  });
  EXPECT_EQ(early, 0);
  EXPECT_EQ(arrived % 200, 0);
}

TEST_F(Parallel, ATeamInsideATeamIsTheCallerAlone) {
  set_compute_threads(3);
  std::atomic<int> calls = 0;
  parallel_team([&](const TeamMember&) {
    parallel_team([&](const TeamMember& me) {
      EXPECT_EQ(me.size, 1);
      ++calls;
    });
  });
  EXPECT_EQ(calls, 3);
}

TEST_F(Parallel, CallersOnManyThreadsAllFinishTheirWork) {
  set_compute_threads(2);
  std::atomic<int64_t> sum = 0;
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 4; ++caller)
    callers.emplace_back([&] {
      for (int round = 0; round < 100; ++round) {
        parallel_items(10, [&](int64_t item) { sum += item; });
        parallel_runs(10, 3, [&](int64_t item) { sum += item; });
      }
    });
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(sum, 4 * 100 * 2 * 45);
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // they keep notes of their own about each page
// New pages that a kernel with a large frame meets.
[[gnu::noinline]] int64_t faults_of_a_large_frame() {
  rusage before{}, after{};
  ::getrusage(RUSAGE_THREAD, &before);
  volatile char frame[400 << 10];
  for (size_t i = 0; i < sizeof(frame); i += 512) frame[i] = 1;
  ::getrusage(RUSAGE_THREAD, &after);
  return after.ru_minflt - before.ru_minflt;
}

TEST_F(Parallel, StacksAreTouchedBeforeTheFirstWork) {
  faults_of_a_large_frame();  // its code
  set_compute_threads(8);     // workers beyond those of other tests
  std::atomic<int64_t> faults = 0;
  std::atomic<int> members = 0;
  std::thread([&] {
    parallel_team([&](const TeamMember& me) {
      faults += faults_of_a_large_frame();
      me.barrier();
      ++members;
    });
  }).join();
  EXPECT_EQ(members, 8);
  EXPECT_EQ(faults, 0);
}
#endif

TEST(SharedRange, OthersTakeFromTheBackWhatTheOwnerHasNotClaimed) {
  SharedRange range;
  range.reset(10);
  EXPECT_TRUE(range.claim(0) && range.claim(1) && range.has(9));
  const SharedRange::Items taken = range.take([](int64_t claimed, int64_t left) {
    EXPECT_EQ(claimed, 2);
    EXPECT_EQ(left, 8);
    return left / 2;
  });
  EXPECT_EQ(taken.begin, 6);
  EXPECT_EQ(taken.end, 10);
  EXPECT_TRUE(range.has(5) && !range.has(6));
  EXPECT_TRUE(range.claim(2) && range.claim(3) && range.claim(4) && range.claim(5));
  EXPECT_FALSE(range.claim(6));
}

TEST(SharedRange, TheFirstItemStaysWithItsOwner) {
  SharedRange range;
  range.reset(3);
  const auto all = [](int64_t, int64_t left) { return left; };
  EXPECT_EQ(range.take(all).begin, 1);
  EXPECT_EQ(range.take(all).end, 0);
  EXPECT_TRUE(range.claim(0));
  EXPECT_FALSE(range.claim(1));
}

TEST(SharedRange, EveryItemGoesToOneThread) {
  constexpr int64_t kItems = 1000;
  for (int round = 0; round < 50; ++round) {
    SharedRange range;
    range.reset(kItems);
    std::vector<std::atomic<int>> done(kItems);
    const auto help = [&] {
      for (SharedRange::Items items{0, 1}; items.end > 0;) {
        items = range.take([](int64_t, int64_t left) { return (left + 3) / 4; });
        for (int64_t i = items.begin; i < items.end; ++i) ++done[i];
      }
    };
    std::thread first(help), second(help);
    for (int64_t i = 0; range.claim(i); ++i) ++done[i];
    first.join(), second.join();
    for (int64_t i = 0; i < kItems; ++i) ASSERT_EQ(done[i], 1) << i;
  }
}

}  // namespace
}  // namespace millrace
