// Products of rows that are packed at call time and panels that were packed at load, both tiles of 1 KiB as they lie in
// memory: for few rows and for many, alone or many products at once.
//
// A Job says what is computed: a TileProduct and
//   static void multiply<kSum, kX, kW>()     on tile registers
//   kDigits                                  rows of tiles that a row of x is made of, one below the other
//   void pack(int64_t begin, int64_t end)    packs these rows of tiles, a row of x with its first; rows from M on may
//                                            be asked for
//   int64_t packed_bytes()                   of all packed rows, and what is kept with them
//   int threads()                            that the product is worth
//   void run_few<Ends>(next)                 if there is one: few rows against the pairs that next() gives, until it
//                                            gives -1
// Ends say what becomes of the sums of a row of x with the two panels of a pair:
//   Ends(job, pair), then store(row, low, high)    low, high: sixteen sums each for every digit, 64-byte aligned
//   void fetch(int64_t row)                        brings the memory that store(row, ...) writes; any row
//   static void turn(std::byte* sums)              if there is one: called with the two tiles of sixteen rows' sums
//                                                  before the first of them is stored
//   static constexpr int64_t kLines                if there is one: store(i, low, high) is called with so many lines of
//                                                  the sums' tiles, of all tile rows, i counting through tiles
//   begin(i, low, high, Begun&), static carry_on(const Begun&, Half&), end(i, const Half&)
//                                                  in place of store where that is a long way; nothing is fetched
//                                                  or turned then
#pragma once
#include <immintrin.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <optional>

#include "kernels/cpu/amx/tile_product.h"
#include "kernels/cpu/shared_range.h"
#include "kernels/parallel.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")
namespace millrace::amx {

template <class Ends>
constexpr bool kHasStages = requires {
  typename Ends::Begun;
};

// `sums`: the row of the first panel's tile, the second panel's tile follows it.
template <class Ends>
inline void store_pair(const Ends& ends, int64_t row, const std::byte* sums) {
  if constexpr (kHasStages<Ends>) {
    typename Ends::Begun begun;
    typename Ends::Half half;
    ends.begin(row, sums, sums + kTileBytes, begun), Ends::carry_on(begun, half), ends.end(row, half);
  } else {
    ends.store(row, sums, sums + kTileBytes);
  }
}

// ---- few rows: every panel is read once, straight through ----

template <int kHint>
inline __attribute__((always_inline)) void prefetch_step(const std::byte* at) {
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) _mm_prefetch(reinterpret_cast<const char*>(at + 64 * i), static_cast<_mm_hint>(kHint));
}

// Panels that are multiplied together; no second one where there is only one, none at all where there are no more.
struct PanelPair {
  const std::byte *first = nullptr, *second = nullptr;
};

// Weights are fetched so many steps ahead from memory, then from the second- to the first-level cache, which alone
// cannot await as many lines.
constexpr int64_t kFarSteps = 8, kNearSteps = 2;

// A pair of panels against all rows, which are one or two tile rows.
template <class Job, int kTileRowCount, bool kTwo>
class PairRun {
 public:
  PairRun(const Job& job, const PanelPair& now)
      : job_(job), now_(now), x_{job.row_stretch(0, 0), job.row_stretch(kTileRowCount - 1, 0)} {}

  // next() is the pair that this thread comes to next: asked for late, so that slow threads take few. Its first tiles
  // are fetched beside this one's last. Sums: [tile row][panel] tiles.
  template <class Next>
  void run(std::byte* sums, const Next& next) const {
    clear_sums();
    int64_t s = 0;
    for (; s < job_.steps - kFarSteps; ++s) step(s, now_, now_);
    const PanelPair beyond = before(next());
    for (; s < job_.steps - kNearSteps; ++s) step(s, beyond, now_);
    for (; s < job_.steps; ++s) step(s, beyond, beyond);
    store(sums);
  }

 private:
  // Where the next pair's panels would begin if its tiles were those that follow this one's. Without a next pair: tiles
  // of this one that are near already.
  PanelPair before(const PanelPair& next) const {
    const int64_t back = next.first ? job_.panel_bytes : kFarSteps * kStepBytes;
    const PanelPair& from = next.first ? next : now_;
    return {from.first - back, (from.second ? from.second : from.first) - back};
  }
  // `far`, `near`: whose tiles come kFarSteps and kNearSteps on.
  inline __attribute__((always_inline)) void step(int64_t s, const PanelPair& far, const PanelPair& near) const {
    const int64_t at = s * kStepBytes;
    fetch(far.first + at, near.first + at);
    tile_load<6>(now_.first + at, 64);
    tile_load<4>(x_[0] + s * job_.step_bytes, 64);
    Job::template multiply<0, 4, 6>();
    if constexpr (kTwo) {
      fetch(far.second + at, near.second + at);
      tile_load<7>(now_.second + at, 64);
      Job::template multiply<1, 4, 7>();
    }
    if constexpr (kTileRowCount == 2) {
      tile_load<5>(x_[1] + s * job_.step_bytes, 64);
      Job::template multiply<2, 5, 6>();
      if constexpr (kTwo) Job::template multiply<3, 5, 7>();
    }
  }
  static inline __attribute__((always_inline)) void fetch(const std::byte* far, const std::byte* near) {
    prefetch_step<_MM_HINT_T1>(far + kFarSteps * kStepBytes);
    prefetch_step<_MM_HINT_T0>(near + kNearSteps * kStepBytes);
  }
  static inline __attribute__((always_inline)) void clear_sums() {
    tile_zero<0>();
    if constexpr (kTwo) tile_zero<1>();
    if constexpr (kTileRowCount == 2) tile_zero<2>();
    if constexpr (kTileRowCount == 2 && kTwo) tile_zero<3>();
  }
  static inline __attribute__((always_inline)) void store(std::byte* sums) {
    tile_store<0>(sums, 64);
    if constexpr (kTwo) tile_store<1>(sums + kTileBytes, 64);
    if constexpr (kTileRowCount == 2) tile_store<2>(sums + 2 * kTileBytes, 64);
    if constexpr (kTileRowCount == 2 && kTwo) tile_store<3>(sums + 3 * kTileBytes, 64);
  }

  const Job& job_;
  const PanelPair now_;
  const std::byte* const x_[2];
};

// Few rows of little K are packed by every thread for itself: sooner done than waited for.
template <class Job>
bool packs_apart(const Job& job) {
  return job.M <= 4 * Job::kDigits && job.packed_bytes() <= kOwnBytes;
}

inline TileShapes thin_shapes(const TileProduct& job) {
  TileShapes shapes = TileShapes::full();
  if (job.tile_rows == 1)
    for (const int tile : {0, 1, 4}) shapes.set(tile, job.M, 64);
  return shapes;
}

// Pairs [begin, end) of a product, empty where there are no more.
struct PairRange {
  int64_t begin = 0, end = 0;
};
// Takes the first of them, -1 where there is none.
inline int64_t take_first(PairRange& range) { return range.begin < range.end ? range.begin++ : -1; }

// Pairs from `pair` on, those that next() gives, until it gives -1.
template <class Job, class Ends, int kTileRowCount, class Next>
void run_thin_pairs(const Job& job, int64_t pair, const Next& next) {
  alignas(64) std::byte sums[4 * kTileBytes];
  for (int64_t then = -1; pair >= 0; pair = then) {
    const auto following = [&]() -> PanelPair {
      then = next();
      if (then < 0) return {};
      return {job.first(then), job.second(then)};
    };
    const PanelPair now{job.first(pair), job.second(pair)};
    if (now.second)
      PairRun<Job, kTileRowCount, true>(job, now).run(sums, following);
    else
      PairRun<Job, kTileRowCount, false>(job, now).run(sums, following);
    const Ends ends(job, pair);
    for (int64_t row = 0; row < job.M; row += Job::kDigits)
      store_pair(ends, row / Job::kDigits, sums_of_row(sums, row));
  }
}

template <class Job, class Ends, class Next>
void run_thin(const Job& job, const Next& next) {
  if constexpr (requires { job.template run_few<Ends>(next); }) return job.template run_few<Ends>(next);
  if (job.tile_rows == 1)
    run_thin_pairs<Job, Ends, 1>(job, next(), next);
  else
    run_thin_pairs<Job, Ends, 2>(job, next(), next);
}

// Pairs that make a range of so many bytes.
inline int64_t pairs_of_bytes(const TileProduct& job, int64_t bytes) {
  return std::max<int64_t>(1, bytes / (2 * job.panel_bytes));
}

// Deals a product's pairs to the members of a team: neighbours, fewer the fewer are left, for threads wait for who has
// the last ones.
class PairDealer {
 public:
  PairDealer(const TileProduct& job, int members)
      : pairs_(job.pairs), most_(pairs_of_bytes(job, 1 << 20)), members_(members) {}
  PairRange take() {
    int64_t begin = dealt_.load(std::memory_order_relaxed), end = 0;
    do {
      if (begin >= pairs_) return {};
      end = begin + std::clamp<int64_t>((pairs_ - begin) / members_, 1, most_);
    } while (!dealt_.compare_exchange_weak(begin, end, std::memory_order_relaxed));
    return {begin, end};
  }

 private:
  const int64_t pairs_, most_, members_;
  alignas(64) std::atomic<int64_t> dealt_{0};
};

template <class Job, class Ends>
void multiply_thin(const Job& job) {
  PairDealer dealer(job, std::min(compute_threads(), job.threads()));
  const bool apart = packs_apart(job);
  const auto work = [&](const TeamMember& me) {
    Job mine = job;
    if (apart) {
      mine.memory += job.packed_bytes() + me.index * kOwnBytes;
      mine.pack(0, job.M);
    } else {
      const int64_t rows = job.rows_to_pack();
      job.pack(rows * me.index / me.size, rows * (me.index + 1) / me.size);
      me.barrier();
    }
    const TileUse use(thin_shapes(mine));
    PairRange range;
    run_thin<Job, Ends>(mine, [&] {
      if (range.begin == range.end) range = dealer.take();
      return take_first(range);
    });
  };
  parallel_team(work, job.threads());
}

// Pairs of an item: of one of many products, whose items any thread takes.
inline int64_t thin_chunk(const TileProduct& job) { return pairs_of_bytes(job, 256 << 10); }
inline int64_t thin_items(const TileProduct& job) { return (job.pairs + thin_chunk(job) - 1) / thin_chunk(job); }

template <class Job, class Ends>
void run_thin_item(const Job& job, int64_t item) {
  const int64_t begin = item * thin_chunk(job);
  PairRange range{begin, std::min(job.pairs, begin + thin_chunk(job))};
  run_thin<Job, Ends>(job, [&] { return take_first(range); });
}

// ---- many rows: blocks that stay in the second-level cache ----
//
// A thread takes a block of rows of tiles x pairs (job.blocking) and walks it span of k by span: as much of the rows as
// stays in the second-level cache. Within a span a pair of panels goes through its stretches at once: a stretch of the
// pair (its first 32 KiB) stays in the first-level cache while the rows' stretch streams from the second. Sums wait
// between stretches and spans in the thread's memory. They are finished while the tiles are busy with the next pair;
// where K is a single stretch, with the next pair of tile rows, before they leave the first-level cache.

constexpr int64_t kFetchedRows = 8;  // of y, ahead of being written

// Steps of k whose tiles, `tile_rows` of them a step, stay in the second-level cache.
inline int64_t span_of(const TileProduct& job, int64_t tile_rows) {
  const int64_t most = std::max<int64_t>(1, job.blocking.resident_tiles / (tile_rows * job.stretch));
  const int64_t stretches = balanced((job.steps + job.stretch - 1) / job.stretch, most);
  return std::min(job.steps, stretches * job.stretch);
}
// Of the last one.
inline int64_t last_span(const TileProduct& job, int64_t tile_rows) {
  const int64_t span = span_of(job, std::max<int64_t>(1, tile_rows));
  return job.steps - (job.steps - 1) / span * span;
}
// Pairs whose sums a thread has memory for.
inline int64_t most_pairs(const TileProduct& job, int64_t tile_rows) {
  return std::min(job.blocking.pairs, kOwnBytes / ((tile_rows + 1) / 2 * kSumsBytes));
}

struct OutputBlock {
  int64_t tile_row = 0, tile_rows = 0, pair = 0, pairs = 0;
  int64_t row_pairs() const { return (tile_rows + 1) / 2; }
};

// Memory that will be needed next, brought nearer a little with every step of work at hand.
template <int kHint>
class Fetch {
 public:
  Fetch() = default;
  // The whole is spread over `parts` calls.
  Fetch(const std::byte* at, int64_t bytes, int64_t parts) : at_(at), lines_((bytes / 64 + parts - 1) / parts) {}
  inline __attribute__((always_inline)) void operator()() {
    for (int64_t line = 0; line < lines_; ++line, at_ += 64)
      _mm_prefetch(reinterpret_cast<const char*>(at_), static_cast<_mm_hint>(kHint));
  }

 private:
  const std::byte* at_ = nullptr;
  int64_t lines_ = 0;
};

// The weights of a block, stretch after stretch. Job::Panels, this one unless a job says otherwise, has
//   Panels(job, memory)                   memory: beyond kOwnBytes of the thread's, where the job has some there
//   void begin(pair, from, w)             where the tiles of a pair's stretch lie
//   void expect(pair, from, calls)        which stretch will begin after so many calls of
//   void operator()()                     a share of what can be done for it beside the tiles' work
class StoredPanels {
 public:
  StoredPanels(const TileProduct& job, std::byte*) : job_(job) {}
  void begin(int64_t pair, int64_t from, const std::byte* (&w)[2]) const {
    const std::byte* second = job_.second(pair);
    w[0] = job_.first(pair) + from * kStepBytes;
    w[1] = second ? second + from * kStepBytes : w[0];
  }
  void expect(int64_t pair, int64_t from, int64_t calls) {
    const int64_t bytes = std::min(job_.stretch, job_.steps - from) * kStepBytes;
    const std::byte* second = job_.second(pair);
    first_ = {job_.first(pair) + from * kStepBytes, bytes, calls};
    if (second) second_ = {second + from * kStepBytes, bytes, calls};
  }
  inline __attribute__((always_inline)) void operator()() { first_(), second_(); }

 private:
  const TileProduct& job_;
  Fetch<_MM_HINT_T1> first_, second_;
};

// Sums of a pair that wait to be finished, and what happens to them with every step of work at hand.
struct Unfinished {
  std::byte* sums = nullptr;
  int64_t row = 0, rows = 0, done = 0;  // rows, or as many lines of tiles
  int64_t following = 0;                // rows of the block that come after these
  int64_t share = 0;                    // rows per step, in 1/1024
  int64_t held_back = 0;                // 1/1024 rows that the first steps leave
};

template <class Ends>
constexpr bool kTakesLines = requires {
  Ends::kLines;
};

// Lines of sums' tiles that are finished together.
template <class Job, class Ends>
consteval int64_t lines_at_once() {
  if constexpr (kTakesLines<Ends>)
    return Ends::kLines;
  else
    return Job::kDigits;
}

template <int64_t kLines, class Ends>
inline void finish_rows(const Ends& ends, Unfinished& u, int64_t end) {
  std::byte* const sums = u.sums;
  const int64_t first = u.row / kLines, fetched = u.rows + u.following - kFetchedRows * kLines;
  int64_t done = u.done;
  for (; done < end; done += kLines) {
    const int64_t row = first + done / kLines;
    if constexpr (!kHasStages<Ends>)
      if (done < fetched) ends.fetch(row + kFetchedRows);
    if constexpr (requires { Ends::turn(sums); })
      if (done % kTileRows == 0) Ends::turn(sums_of_row(sums, done));
    store_pair(ends, row, sums_of_row(sums, done));
  }
  u.done = done;
}

// Two tile rows (or one) against two panels (the same twice where there is one), `steps` of k. Sums start from zero or
// as they are, and stay in the tiles.
struct Stretch {
  const std::byte *x[2], *w[2];
  int64_t steps;
  bool fresh;
  std::byte* sums;
  std::byte* held;  // where the sums belong that the stretch before left in the tiles, or null
};

// Sums of the stretch before leave their tile for those of this one.
template <int kSum>
inline __attribute__((always_inline)) void take_over(const Stretch& t) {
  if (t.held) tile_store<kSum>(t.held + kSum * kTileBytes, 64);
  if (t.fresh)
    tile_zero<kSum>();
  else
    tile_load<kSum>(t.sums + kSum * kTileBytes, 64);
}

inline void store_sums(std::byte* to) {
  tile_store<0>(to, 64), tile_store<1>(to + kTileBytes, 64);
  tile_store<2>(to + 2 * kTileBytes, 64), tile_store<3>(to + 3 * kTileBytes, 64);
}

// A longer stretch's last panel tiles pass, too, so that the first ones stay.
template <int kTileRowCount>
inline __attribute__((always_inline)) void load_step(const Stretch& t, int64_t s) {
  const int64_t at = s * kStepBytes;
  tile_load_passing<4>(t.x[0] + at, 64);
  if constexpr (kTileRowCount == 2) tile_load_passing<5>(t.x[1] + at, 64);
  if (s < kResidentSteps) {
    tile_load<6>(t.w[0] + at, 64);
    tile_load<7>(t.w[1] + at, 64);
  } else {
    tile_load_passing<6>(t.w[0] + at, 64);
    tile_load_passing<7>(t.w[1] + at, 64);
  }
}

// The first step: sums change places one tile at a time, while the products before are still under way.
template <class Job, int kTileRowCount>
inline __attribute__((always_inline)) void begin_stretch(const Stretch& t) {
  load_step<kTileRowCount>(t, 0);
  take_over<0>(t);
  Job::template multiply<0, 4, 6>();
  take_over<2>(t);
  if constexpr (kTileRowCount == 2) Job::template multiply<2, 5, 6>();
  take_over<1>(t);
  Job::template multiply<1, 4, 7>();
  take_over<3>(t);
  if constexpr (kTileRowCount == 2) Job::template multiply<3, 5, 7>();
}

// What becomes of waiting rows beside a stretch: called in the middle and at the end of every step.
template <int64_t kLines, class Ends>
class RowsBeside {
 public:
  RowsBeside(const Ends& ends, Unfinished& waiting, int64_t)
      : ends_(ends), waiting_(waiting), due_(waiting.done * 1024 - waiting.held_back) {}
  inline __attribute__((always_inline)) void in_step() {}
  inline __attribute__((always_inline)) void after_step() {
    due_ += waiting_.share;
    finish_rows<kLines>(ends_, waiting_, std::min(waiting_.rows, due_ / 1024));
  }
  void after_all() {}

 private:
  const Ends& ends_;
  Unfinished& waiting_;
  int64_t due_;  // rows, in 1/1024
};

// The same of Ends that begin, carry on and end: a line is begun while the one before is carried on and the one before
// that ends. Tiles are loaded little more than a step ahead, and wait for who waits for a long row of operations.
template <int64_t kLines, class Ends>
class LinesBeside {
  static_assert(!requires(std::byte * sums) { Ends::turn(sums); });

 public:
  inline __attribute__((always_inline)) LinesBeside(const Ends& ends, Unfinished& waiting, int64_t steps)
      : ends_(ends),
        waiting_(waiting),
        first_(waiting.row / kLines),
        from_(waiting.done / kLines),
        to_(std::max(from_, std::min(waiting.rows, due_after(waiting, steps)) / kLines)),
        calls_(to_ > from_ ? to_ - from_ + 2 : 0),
        share_((calls_ * 1024 + 2 * steps - 2) / (2 * steps - 1)) {}
  inline __attribute__((always_inline)) void in_step() { after_step(); }
  inline __attribute__((always_inline)) void after_step() {
    due_ += share_;
    if (called_ < calls_ && called_ * 1024 < due_) advance();
  }
  inline __attribute__((always_inline)) void after_all() {
    while (called_ < calls_) advance();
    waiting_.done = to_ * kLines;
  }

 private:
  static int64_t due_after(const Unfinished& waiting, int64_t steps) {
    return (waiting.done * 1024 - waiting.held_back + waiting.share * steps) / 1024;
  }
  inline __attribute__((always_inline)) void advance() {
    const int64_t line = from_ + called_++;
    if (line >= from_ + 2) ends_.end(first_ + line - 2, half_);
    Ends::carry_on(begun_, half_);
    const std::byte* const sums = sums_of_row(waiting_.sums, std::min(line, to_ - 1) * kLines);
    ends_.begin(first_ + std::min(line, to_ - 1), sums, sums + kTileBytes, begun_);
  }

  const Ends& ends_;
  Unfinished& waiting_;
  const int64_t first_, from_, to_;  // lines: of all; those that are finished here, counted from the first that waits
  const int64_t calls_, share_;      // of advance; per call of after_step, in 1/1024
  int64_t due_ = 0, called_ = 0;
  typename Ends::Begun begun_{};
  typename Ends::Half half_{};
};

template <class Job, class Ends>
inline __attribute__((always_inline)) auto rows_beside(const Ends& ends, Unfinished& waiting, int64_t steps) {
  constexpr int64_t kLines = lines_at_once<Job, Ends>();
  if constexpr (kHasStages<Ends>)
    return LinesBeside<kLines, Ends>(ends, waiting, steps);
  else
    return RowsBeside<kLines, Ends>(ends, waiting, steps);
}

// Beside the tiles' work, `panels` come nearer, the next sums come to the first-level cache, and rows are finished.
template <class Job, class Ends, int kTileRowCount>
inline void multiply_stretch(const Ends& ends, const Stretch& t, typename Job::Panels& panels, Unfinished& waiting) {
  Fetch<_MM_HINT_T0> sums(t.sums + kSumsBytes, t.fresh ? 0 : kSumsBytes, t.steps);
  auto rows = rows_beside<Job>(ends, waiting, t.steps);
  begin_stretch<Job, kTileRowCount>(t);
  panels(), sums(), rows.after_step();
  for (int64_t s = 1; s < t.steps; ++s) {
    load_step<kTileRowCount>(t, s);
    Job::template multiply<0, 4, 6>();
    if constexpr (kTileRowCount == 2) Job::template multiply<2, 5, 6>();
    panels(), sums(), rows.in_step();
    Job::template multiply<1, 4, 7>();
    if constexpr (kTileRowCount == 2) Job::template multiply<3, 5, 7>();
    rows.after_step();
  }
  rows.after_all();
}

// A thread's way through a block, as far as others do not take `pairs`, which the caller has set to those of the block.
template <class Job, class Ends>
class BlockRun {
 public:
  BlockRun(const Job& job, const OutputBlock& block, SharedRange& pairs, std::byte* sums)
      : job_(job),
        b_(block),
        left_(pairs),
        span_(span_of(job, std::max<int64_t>(1, block.tile_rows))),
        at_once_(job.steps <= job.stretch),
        sums_(sums),
        panels_(job, sums + kOwnBytes) {
    ends_.emplace(job_, b_.pair);
  }

  void run() {
    if (b_.tile_rows == 0) return;
    for (int64_t begin = 0; begin < job_.steps; begin += span_)
      for (int64_t pair = 0; begins(pair, begin); ++pair)
        for (int64_t from = begin; from < end_of(begin); from += job_.stretch) run_pair(pair, from);
    store_sums(held_);
    finish();
  }

 private:
  int64_t count(int64_t from) const { return std::min(job_.stretch, job_.steps - from); }
  bool is_last(int64_t from) const { return from + job_.stretch >= job_.steps; }
  // Of the span that holds step `from`.
  int64_t begin_of(int64_t from) const { return from / span_ * span_; }
  int64_t end_of(int64_t from) const { return std::min(job_.steps, begin_of(from) + span_); }
  int64_t pair_bytes() const { return b_.row_pairs() * kSumsBytes; }
  // Whether the span from `begin` on comes to this pair: its last one completes the pair.
  bool begins(int64_t pair, int64_t begin) { return end_of(begin) == job_.steps ? left_.claim(pair) : left_.has(pair); }
  std::byte* sums_of(int64_t pair, int64_t row_pair) const {
    if (at_once_) return sums_ + (pair * b_.row_pairs() + row_pair) % 2 * kSumsBytes;
    return sums_ + (span_ == job_.steps ? pair % 2 : pair) * pair_bytes() + row_pair * kSumsBytes;
  }

  // All rows with a pair's stretch.
  void run_pair(int64_t pair, int64_t from) {
    const std::byte* w[2];
    panels_.begin(b_.pair + pair, from, w);
    expect_next(pair, from);
    if (!at_once_) waiting_.share = end_of(from) == job_.steps ? share(from) : 0;
    for (int64_t row_pair = 0; row_pair < b_.row_pairs(); ++row_pair) {
      std::byte* const sums = sums_of(pair, row_pair);
      const int64_t tile_row = b_.tile_row + 2 * row_pair;
      const bool single = 2 * row_pair + 1 == b_.tile_rows;
      const Stretch stretch{.x = {job_.row_stretch(tile_row, from), job_.row_stretch(tile_row + !single, from)},
                            .w = {w[0], w[1]},
                            .steps = count(from),
                            .fresh = from == 0,
                            .sums = sums,
                            .held = held_};
      if (single)
        multiply_stretch<Job, Ends, 1>(*ends_, stretch, panels_, waiting_);
      else
        multiply_stretch<Job, Ends, 2>(*ends_, stretch, panels_, waiting_);
      held_ = sums;
      if (at_once_) await_row_pair(pair, row_pair);
    }
    if (!at_once_ && is_last(from)) await_rows(pair, 0, b_.tile_rows);
  }

  // Sums of tile rows [begin, end) of the block are complete; those before them are done with.
  void await_rows(int64_t pair, int64_t begin, int64_t end) {
    finish();
    const int64_t row = (b_.tile_row + begin) * kTileRows, below = (b_.tile_row + end) * kTileRows;
    const int64_t lines = (b_.tile_row + b_.tile_rows) * kTileRows;
    const int64_t last = kTakesLines<Ends> ? lines : std::min(lines, job_.M), rows = std::min(below, last) - row;
    if (begin == 0) ends_.emplace(job_, b_.pair + pair);
    waiting_ = {sums_of(pair, begin / 2), row, rows, 0, last - row - rows};
  }
  // The tiles have just let go of them when the next step ends.
  void await_row_pair(int64_t pair, int64_t row_pair) {
    await_rows(pair, 2 * row_pair, std::min(2 * row_pair + 2, b_.tile_rows));
    const int64_t steps = std::max<int64_t>(1, job_.steps - 1);
    waiting_.share = waiting_.held_back = (waiting_.rows * 1024 + steps - 1) / steps;
  }
  void finish() { finish_rows<lines_at_once<Job, Ends>()>(*ends_, waiting_, waiting_.rows); }
  // Of the waiting rows, per step until the next pair is complete; `from` lies in the last span.
  int64_t share(int64_t from) const {
    const int64_t steps = b_.row_pairs() * (job_.steps - begin_of(from));
    return (waiting_.rows * 1024 + steps - 1) / steps;
  }

  // While a pair's stretch is worked on: the stretch that follows, in this block or the next.
  void expect_next(int64_t pair, int64_t from) {
    int64_t next_pair = b_.pair + pair, next_from = from + job_.stretch;
    if (next_from >= end_of(from)) {
      const bool last_pair = !left_.has(pair + 1);
      if (!last_pair || end_of(from) == job_.steps) {
        ++next_pair;
        next_from = last_pair ? 0 : begin_of(from);
      } else {
        next_pair = b_.pair;
      }
    }
    panels_.expect(std::min(next_pair, job_.pairs - 1), next_from, b_.row_pairs() * count(from));
  }

  const Job& job_;
  const OutputBlock b_;
  SharedRange& left_;
  const int64_t span_;
  const bool at_once_;  // K is a single stretch
  std::byte* const sums_;
  typename Job::Panels panels_;
  Unfinished waiting_;
  std::optional<Ends> ends_;   // of the pair whose rows wait
  std::byte* held_ = nullptr;  // where the sums belong that are in the tiles
};

// How outputs are cut: groups of rows, and of columns where those are fewer than threads; each of blocks.
struct Grid {
  // With groups for `threads`, as far as there may be so many.
  Grid(const TileProduct& job, int64_t threads)
      : job(job),
        group_rows(rows_of_group(job)),
        row_groups((job.tile_rows + group_rows - 1) / group_rows),
        parts((std::min(kMostGroups, threads) + row_groups - 1) / row_groups),
        groups(row_groups * parts),
        block_rows(balanced(group_rows, job.blocking.most_tile_rows)),
        row_blocks((group_rows + block_rows - 1) / block_rows),
        block_pairs(balanced((job.pairs + parts - 1) / parts, most_block_pairs(job, block_rows))) {}

  // As many groups as come nearest to blocking.tile_rows each: a few rows more than that are no group of their own.
  static int64_t rows_of_group(const TileProduct& job) {
    const int64_t each = job.blocking.tile_rows, most = job.blocking.most_tile_rows;
    const int64_t nearest = (job.tile_rows + each / 2 - 1) / each, least = (job.tile_rows + most - 1) / most;
    const int64_t groups = std::clamp<int64_t>(std::max(nearest, least), 1, kMostGroups);
    return (job.tile_rows + groups - 1) / groups;
  }
  static int64_t most_block_pairs(const TileProduct& job, int64_t block_rows) {
    const bool stay = span_of(job, block_rows) == job.steps;  // rows, over the whole of K
    return stay ? kResidentPairs : most_pairs(job, block_rows);
  }
  PairRange pairs_of(int64_t group) const {
    const int64_t part = group % parts;
    return {job.pairs * part / parts, job.pairs * (part + 1) / parts};
  }
  // From the group's pair `from` on, which counts through its blocks of rows: `pairs` of them, of one block of rows.
  OutputBlock block(int64_t group, int64_t from, int64_t pairs) const {
    const auto [first, last] = pairs_of(group);
    const int64_t begin = group / parts * group_rows, tile_row = begin + from / (last - first) * block_rows;
    const int64_t end = std::min({job.tile_rows, begin + group_rows, tile_row + block_rows});
    const int64_t pair = first + from % (last - first);
    return {tile_row, std::max<int64_t>(0, end - tile_row), pair, std::min(pairs, last - pair)};
  }

  static constexpr int64_t kMostGroups = 64;     // of rows, and of threads that have columns of their own
  static constexpr int64_t kResidentPairs = 14;  // a block where rows stay: small ones are shared out more evenly
  const TileProduct& job;
  const int64_t group_rows, row_groups, parts, groups, block_rows, row_blocks;
  const int64_t block_pairs;
};

// The block that a thread works on.
struct RunningBlock {
  void begin(const OutputBlock& next) {
    const std::lock_guard lock(changing);
    block = next;
    pairs.reset(next.pairs);
  }
  SharedRange pairs;  // that others may take
  OutputBlock block;
  std::mutex changing;  // block
};

// The blocks of a product's groups, which its threads take. When there are no more, they help each other: cores that
// are shared with strangers differ in speed by a factor of up to three.
class GroupQueues {
 public:
  explicit GroupQueues(const TileProduct& job) : grid(job, compute_threads()) {}
  // Without pairs where the group has no more.
  OutputBlock take(int64_t group) {
    const auto [first, last] = grid.pairs_of(group);
    const int64_t all = (last - first) * grid.row_blocks;
    int64_t from = begun_[group].load(std::memory_order_relaxed);
    OutputBlock block;
    do {
      if (from >= all) return {};
      block = grid.block(group, from, grid.block_pairs);
    } while (!begun_[group].compare_exchange_weak(from, from + block.pairs, std::memory_order_relaxed));
    return block;
  }
  // Pairs of a block that another works on; without pairs where there are none.
  OutputBlock help(const TeamMember& me) {
    const int members = std::min(me.size, kHelped);
    OutputBlock block;
    for (int i = 1; i <= members && block.pairs == 0; ++i) block = take_from(running_[(me.index + i) % members]);
    return block;
  }
  // Where the member's block can be seen by others; null where it cannot.
  RunningBlock* running(const TeamMember& me) { return me.index < kHelped ? &running_[me.index] : nullptr; }

  const Grid grid;

 private:
  static constexpr int kHelped = 64;  // members of a team

  // As many pairs as the other will complete meanwhile: when it claims pairs, it has done all but their last span.
  OutputBlock take_from(RunningBlock& other) {
    const std::lock_guard lock(other.changing);
    OutputBlock block = other.block;
    const int64_t steps = grid.job.steps, last = last_span(grid.job, block.tile_rows);
    const SharedRange::Items pairs = other.pairs.take(
        [&](int64_t claimed, int64_t left) { return claimed == 0 ? left / 2 : left * last / (steps + last); });
    block.pair += pairs.begin;
    block.pairs = pairs.end - pairs.begin;
    return block;
  }

  std::atomic<int64_t> begun_[2 * Grid::kMostGroups] = {};  // pairs
  RunningBlock running_[kHelped];
};

// A member's share of the rows of x.
inline void pack_share(const auto& job, const TeamMember& me) {
  const int64_t begin = job.tile_rows * me.index / me.size, end = job.tile_rows * (me.index + 1) / me.size;
  job.pack(begin * kTileRows, end * kTileRows);
}

// A thread begins with a group of its own, so that its caches have the group's rows or weights; then it takes blocks of
// others, and at last pairs of blocks that others work on. `own`: kOwn bytes of the thread's.
template <class Job, class Ends>
void run_groups(const Job& job, GroupQueues& queues, const TeamMember& me, std::byte* own) {
  const TileUse use(TileShapes::full());
  RunningBlock unseen, *const mine = queues.running(me) ? queues.running(me) : &unseen;
  const auto run = [&](const OutputBlock& block) {
    mine->begin(block);
    BlockRun<Job, Ends>(job, block, mine->pairs, own).run();
  };
  const int64_t groups = queues.grid.groups;
  for (int64_t i = 0; i < groups; ++i) {
    const int64_t group = (me.index * groups / me.size + i) % groups;
    for (OutputBlock block; (block = queues.take(group)).pairs > 0;) run(block);
  }
  for (OutputBlock block; (block = queues.help(me)).pairs > 0;) run(block);
}

template <class Job, class Ends>
void multiply_thick(const Job& job) {
  GroupQueues queues(job);
  parallel_team([&](const TeamMember& me) {
    pack_share(job, me);
    me.barrier();
    run_groups<Job, Ends>(job, queues, me, job.memory + job.packed_bytes() + me.index * Job::kOwn);
  });
}

// The same where job.memory holds packed rows already. `own`: kOwn for every thread.
template <class Job, class Ends>
void multiply_packed(const Job& job, std::byte* own) {
  GroupQueues queues(job);
  parallel_team([&](const TeamMember& me) { run_groups<Job, Ends>(job, queues, me, own + me.index * Job::kOwn); });
}

// Memory: packed_bytes, then kOwn for every thread.
template <class Job, class Ends>
void multiply(const Job& job) {
  if (job.thin)
    multiply_thin<Job, Ends>(job);
  else
    multiply_thick<Job, Ends>(job);
}

// ---- as one of many products: tile rows are packed, then items run, each on any thread ----

// For one thread a group has all columns.
inline int64_t blocks_across(const Grid& grid) { return (grid.job.pairs + grid.block_pairs - 1) / grid.block_pairs; }

inline int64_t items_of(const TileProduct& job) {
  if (job.thin) return thin_items(job);
  const Grid grid(job, 1);
  return grid.groups * grid.row_blocks * blocks_across(grid);
}

// `own`: kOwn bytes of the thread's.
template <class Job, class Ends>
void run_item(const Job& job, int64_t item, std::byte* own) {
  if (job.thin) {
    const TileUse use(thin_shapes(job));
    return run_thin_item<Job, Ends>(job, item);
  }
  const TileUse use(TileShapes::full());
  const Grid grid(job, 1);
  const int64_t i = item / grid.groups, across = blocks_across(grid);
  const int64_t from = i / across * job.pairs + i % across * grid.block_pairs;
  const OutputBlock block = grid.block(item % grid.groups, from, grid.block_pairs);
  SharedRange pairs;
  pairs.reset(block.pairs);
  BlockRun<Job, Ends>(job, block, pairs, own).run();
}

inline void pack_tile_row(const auto& job, int64_t tile_row) {
  job.pack(tile_row * kTileRows, std::min((tile_row + 1) * kTileRows, job.rows_to_pack()));
}

}  // namespace millrace::amx
#pragma GCC pop_options
