// gemm_a16 of many rows on AMX tiles: a dense product, whose panels become tiles of bf16 on the way.
#include <immintrin.h>

#include <algorithm>

#include "kernels/cpu/amx/gemm_a16.h"
#include "kernels/cpu/avx512/transpose.h"
#include "kernels/parallel.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")
namespace millrace::amx {
namespace {

class Ends {
 public:
  Ends(const A16RowsJob& job, int64_t pair) : low_(*job.a, 2 * pair), high_(*job.a, 2 * pair + 1) {}
  inline __attribute__((always_inline)) void fetch(int64_t row) const { low_.fetch(row), high_.fetch(row); }
  void store(int64_t row, const std::byte* low, const std::byte* high) const {
    low_.store(row, low);
    high_.store(row, high);
  }

 private:
  const A16Columns low_, high_;
};

// ---- many rows: the stretch of panels that is wanted next is unpacked beside the tiles' work ----

template <int kUnit, int kScales>
inline void unpack_int4_tile(const std::byte* chunk, const avx512::Int4Tables<kScales>& tables, std::byte* to) {
  __m512i tile[16];
#pragma GCC unroll 16
  for (int n = 0; n < 16; ++n) tile[n] = avx512::unpack_int4_unit<kUnit>(chunk + kScales * 64 + n * 64, tables, n);
  avx512::transpose(tile);
#pragma GCC unroll 16
  for (int pair = 0; pair < 16; ++pair) _mm512_store_si512(to + pair * 64, tile[pair]);
}

// A tile of k as the second operand: of the panel at `panel`, at step `step` of k.
template <int kScales>
class TileMaker {
 public:
  void make(const std::byte* panel, int64_t step, std::byte* to) {
    const std::byte* chunk = panel + step / kInt4Units * (1024 + 64 * kScales);
    if (chunk != made_for_) tables_.make(chunk);
    made_for_ = chunk;
    for (int i = 0; i < 4; ++i) fetch_line(chunk + kFetchAhead + (step % kInt4Units * 4 + i) * 64);
    switch (step % kInt4Units) {
      case 0:
        return unpack_int4_tile<0>(chunk, tables_, to);
      case 1:
        return unpack_int4_tile<1>(chunk, tables_, to);
      case 2:
        return unpack_int4_tile<2>(chunk, tables_, to);
      default:
        return unpack_int4_tile<3>(chunk, tables_, to);
    }
  }

 private:
  const std::byte* made_for_ = nullptr;
  avx512::Int4Tables<kScales> tables_;
};
template <>
class TileMaker<0> {
 public:
  static void make(const std::byte* panel, int64_t step, std::byte* to) {
    const std::byte* from = panel + step * kInt8TileBytes;
    unpack_int8_tile(from, from + kFetchAhead, to);
  }
};

constexpr int64_t kStretchBytes = kMostStretchSteps * kTileBytes;  // of a panel
constexpr int64_t kThickOwnBytes = kOwnBytes + 4 * kStretchBytes;

// Panels of a BlockRun.
template <int kScales>
class UnpackedPanels {
 public:
  UnpackedPanels(const A16RowsJob& job, std::byte* memory) : job_(job), layout_(*job.a), memory_(memory) {}

  void begin(int64_t pair, int64_t from, const std::byte* (&w)[2]) {
    if (pair != pair_ || from != from_) start(pair, from);
    while (made_ < tiles_) make_next();
    w[0] = panel(0);
    w[1] = panel(tiles_ > count_ ? 1 : 0);
    odd_ = !odd_;
  }
  void expect(int64_t pair, int64_t from, int64_t calls) {
    start(pair, from);
    share_ = (tiles_ * 1024 + calls - 1) / calls;
    due_ = 0;
  }
  inline __attribute__((always_inline)) void operator()() {
    for (due_ += share_; made_ < tiles_ && made_ * 1024 < due_;) make_next();
  }

 private:
  void start(int64_t pair, int64_t from) {
    pair_ = pair, from_ = from, made_ = 0;
    count_ = std::min(job_.stretch, job_.steps - from);
    tiles_ = job_.second(pair) ? 2 * count_ : count_;
  }
  std::byte* panel(int64_t i) const { return memory_ + (2 * odd_ + i) * kStretchBytes; }
  void make_next() {
    const int64_t i = made_ / count_, step = made_ % count_;
    ++made_;
    maker_.make(job_.a->w + (2 * pair_ + i) * layout_.panel_bytes, from_ + step, panel(i) + step * kTileBytes);
  }

  const A16RowsJob& job_;
  const A16Layout layout_;
  std::byte* const memory_;  // [two turns][two panels] stretches
  int64_t pair_ = -1, from_ = -1;
  int64_t count_ = 0, tiles_ = 0, made_ = 0;  // steps, tiles of both panels, those that are unpacked
  int64_t share_ = 0, due_ = 0;               // tiles per call and by now, in 1/1024
  bool odd_ = false;
  TileMaker<kScales> maker_;
};

template <int kScales>
struct ThickJob : A16RowsJob {
  using A16RowsJob::A16RowsJob;
  using Panels = UnpackedPanels<kScales>;
};

template <int kScales>
void run_thick(const GemmA16Args& a) {
  const ThickJob<kScales> job(a);
  GroupQueues queues(job);
  parallel_team([&](const TeamMember& me) {
    pack_share(job, me);
    me.barrier();
    std::byte* const own = job.memory + job.packed_bytes() + me.index * kThickOwnBytes;
    run_groups<ThickJob<kScales>, Ends>(job, queues, me, own);
  });
}

}  // namespace

void gemm_a16_many_rows(const GemmA16Args& a) {
  switch (a16_chunk_scales(a.format, a.group, a.K)) {
    case 0:
      return run_thick<0>(a);
    case 1:
      return run_thick<1>(a);
    case 2:
      return run_thick<2>(a);
    default:
      return run_thick<4>(a);
  }
}

int64_t gemm_a16_own_bytes() { return kThickOwnBytes; }

}  // namespace millrace::amx
#pragma GCC pop_options
