// Attention over bf16 rows on AMX tiles: queries and weights are rounded to bf16, products summed in float32. Scores
// are computed transposed, sixteen positions by sixteen query rows, so that keys are multiplied as they lie in memory
// and the softmax runs with query rows in the lanes. A row's sums do not depend on the other rows.
//
// Up to 32 rows, a unit, are computed together. While vectors turn a unit's products with a partition's keys into
// weights, tiles multiply the next unit's. Then all units meet the values, which were brought into pairs of positions
// beside the first unit's products, once for all of them and for the thread's next items that look at the same ones.
#include <immintrin.h>

#include <algorithm>

#include "kernels/cpu/amx/tiles.h"
#include "kernels/cpu/avx512/transpose.h"
#include "kernels/cpu/avx512/vec.h"
#include "kernels/cpu/mla_impls.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,bmi2,fma,f16c")
namespace millrace::amx {
namespace {

using avx512::transpose;
using avx512::Vec;
#include "kernels/cpu/amx/power.inl"

#include "kernels/cpu/simd/math.inl"

constexpr int64_t kRun = 16;                     // positions in one tile of scores
constexpr int64_t kRuns = kMlaPartition / kRun;  // of a partition
constexpr int64_t kPairs = kRuns / 2;            // of runs, which one tile of weights spans
constexpr int kGroupRows = 16, kUnitRows = 2 * kGroupRows;
constexpr int64_t kTileElements = kTileBytes / 2, kTileFloats = kTileBytes / 4;

inline __m512i pairs_of(Vec even_or_low, Vec odd_or_high) {  // low half, then high half
  return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(odd_or_high.v, even_or_low.v));
}

// The unfinished softmax of an item's rows: sums over j of e^(s_j - top) v_j and of e^(s_j - top). A row that saw
// nothing has total 0. sums: [groups][Vp/16] tiles of rows by dimensions, in the order of gather_values.
struct Part {
  float *sums, *top, *total;
};

// Rows [32 pair, 32 pair + 32) of an item and the first n positions of a partition, of which some row sees the last.
struct Unit {
  int64_t partition;
  int pair, groups;
  int64_t n;
  int64_t begin() const { return partition * kMlaPartition; }
  int64_t runs() const { return (n + kRun - 1) / kRun; }
  int64_t pairs() const { return (n + 2 * kRun - 1) / (2 * kRun); }
};
constexpr int kUnits = static_cast<int>(kMlaRows / kUnitRows);  // of an item, at most

// What a thread works in. By group of the unit: tiles of positions by rows, tiles of rows by positions.
struct Room {
  alignas(64) float scores[2][2][kRuns][kTileFloats];          // of this unit and the next
  alignas(64) bf16 weights[kUnits][2][kPairs][kTileElements];  // of a partition
  alignas(64) float sums[2][2][2][kTileFloats];                // of this unit and slice, and of those before
  alignas(64) float keep[kMlaRows], scale[kMlaRows];           // what earlier sums and the partition's count
};

// How the scratch is used: each thread's memory, then parts of split items.
struct Memory {
  explicit Memory(const MlaAttentionArgs& args)
      : a(args),
        key_tiles(mla_padded(args.key_dim) / kTileK),
        value_tiles(mla_padded(args.value_dim) / 16),
        threads(mla_threads(args.threads)),
        part_floats(kMlaRows * value_tiles * 16 + 2 * kMlaRows) {}
  // Between pairs of runs in the copy of values: no multiple of 4 KiB, so that a slice's tiles share no cache sets.
  int64_t pair_elements() const { return (value_tiles + 2) * kTileElements; }
  int64_t query_elements() const { return kMlaRows * key_tiles * kTileK; }
  int64_t work_bytes() const {
    return static_cast<int64_t>(sizeof(Room)) + query_elements() * 2 + kPairs * pair_elements() * 2 + part_floats * 4;
  }
  std::byte* work(int64_t thread) const { return a.scratch + thread * work_bytes(); }
  Part part_at(std::byte* at) const {
    auto* const sums = reinterpret_cast<float*>(at);
    return {sums, sums + kMlaRows * value_tiles * 16, sums + kMlaRows * value_tiles * 16 + kMlaRows};
  }
  Part split(int64_t index) const { return part_at(a.scratch + threads * work_bytes() + index * part_floats * 4); }
  int64_t splits() const { return (kMlaPartsPerThread - 2) * threads; }

  const MlaAttentionArgs& a;
  const int64_t key_tiles, value_tiles, threads, part_floats;
};

struct Work {
  Work(const Memory& m, const MlaItem& its, int64_t thread, MlaHeld* holds = nullptr)
      : memory(m),
        a(m.a),
        item(its),
        rows(static_cast<int>(its.rows)),
        groups((rows + kGroupRows - 1) / kGroupRows),
        held(holds) {
    std::byte* const at = m.work(thread);
    room = reinterpret_cast<Room*>(at);
    queries = reinterpret_cast<bf16*>(at + sizeof(Room));
    values = queries + m.query_elements();
    whole = m.part_at(reinterpret_cast<std::byte*>(values + kPairs * m.pair_elements()));
    const int64_t heads = a.H / a.G;
    for (int r = 0; r < rows; ++r) {
      token[r] = static_cast<int32_t>(a.query_start[item.s] + (item.row + r) / heads);
      head[r] = static_cast<int32_t>(item.g * heads + (item.row + r) % heads);
      end[r] = static_cast<int32_t>(mla_seen_end(a, item.s, item.row + r));
    }
    for (int r = rows; r < groups * kGroupRows; ++r) end[r] = 0;
  }
  const float* query(int r) const { return a.q + token[r] * a.q_stride + head[r] * a.key_dim; }
  int64_t seen_end() const { return end[rows - 1]; }  // rows look the further the later they come
  int64_t partitions() const { return (seen_end() + kMlaPartition - 1) / kMlaPartition; }
  int pairs() const { return (groups + 1) / 2; }
  // Where the unit's rows stop looking.
  int64_t pair_end(int pair) const { return end[std::min(rows, (pair + 1) * kUnitRows) - 1]; }
  bf16* query_tiles(int group) const { return queries + group * memory.key_tiles * kTileElements; }
  float* sum_tile(const Part& part, int group, int64_t tile) const {
    return part.sums + (group * memory.value_tiles + tile) * kTileFloats;
  }
  const bf16* rows_at(const MlaRows& of, int64_t position) const {
    return static_cast<const bf16*>(of.data) + mla_row_at(a, of, item.s, item.g, position);
  }

  const Memory& memory;
  const MlaAttentionArgs& a;
  const MlaItem item;
  const int rows, groups;
  MlaHeld* held;
  Room* room;
  bf16* queries;       // [groups][Kp/32] tiles of pairs of k by rows
  bf16* values;        // [pairs of runs][Vp/16] tiles of pairs of positions by dimensions
  Part whole;          // of the partitions so far, or of the only one
  bool apart = false;  // the partition's sums stay as they are, to be merged later
  alignas(64) int32_t end[kMlaRows];
  int32_t token[kMlaRows], head[kMlaRows];
};

// ---- before the first partition ----

inline __m512i query_pairs(const Work& w, int r, int64_t d) {
  if (r >= w.rows) return _mm512_setzero_si512();
  const float* q = w.query(r) + d;
  const int64_t left = w.a.key_dim - d;
  if (left >= 32) return pairs_of(Vec::load(q), Vec::load(q + 16));
  return pairs_of(Vec::load_n(q, std::min<int64_t>(16, left)),
                  left > 16 ? Vec::load_n(q + 16, std::min<int64_t>(16, left - 16)) : Vec::zero());
}
inline void place_queries(const Work& w) {
  for (int group = 0; group < w.groups; ++group)
    for (int64_t k = 0; k < w.memory.key_tiles; ++k) {
      __m512i x[16];
      for (int r = 0; r < 16; ++r) x[r] = query_pairs(w, kGroupRows * group + r, k * kTileK);
      transpose(x);
      bf16* const to = w.query_tiles(group) + k * kTileElements;
      for (int r = 0; r < 16; ++r) _mm512_store_si512(to + r * kTileK, x[r]);
    }
}
inline void clear_group(const Work& w, const Part& part, int group) {
  Vec::set(-__builtin_inff()).store(part.top + group * kGroupRows);
  Vec::zero().store(part.total + group * kGroupRows);
  float* sums = w.sum_tile(part, group, 0);
  for (int64_t i = 0; i < w.memory.value_tiles * kTileFloats; i += 16) Vec::zero().store(sums + i);
}

// ---- finished sums ----

// Sixteen finished elements of row r from `d` on, as many as there are.
inline void store_some(const Work& w, int r, int64_t d, Vec value) {
  const int64_t n = lanes_left(d, w.a.value_dim), at = w.token[r] * w.a.out_stride + w.head[r] * w.a.value_dim + d;
  if (n <= 0) return;
  if (w.a.out_dtype == DType::kBf16)
    _mm256_mask_storeu_epi16(static_cast<bf16*>(w.a.out) + at, static_cast<__mmask16>((1u << n) - 1),
                             _mm512_castsi512_si256(pairs_of(value, Vec::zero())));
  else
    value.store_n(static_cast<float*>(w.a.out) + at, n);
}
// Row r's sums of dimensions [d, d + 32), which lie in two tiles in the order of gather_values, to the output.
inline void store_finished(const Work& w, int r, int64_t d, Vec first, Vec second, Vec inverse) {
  const __m512i low = _mm512_set_epi32(23, 22, 21, 20, 7, 6, 5, 4, 19, 18, 17, 16, 3, 2, 1, 0);
  const __m512i high = _mm512_set_epi32(31, 30, 29, 28, 15, 14, 13, 12, 27, 26, 25, 24, 11, 10, 9, 8);
  const Vec begin = Vec{_mm512_permutex2var_ps(first.v, low, second.v)} * inverse;
  const Vec end = Vec{_mm512_permutex2var_ps(first.v, high, second.v)} * inverse;
  if (w.a.out_dtype == DType::kBf16 && d + 32 <= w.a.value_dim) {
    bf16* const out = static_cast<bf16*>(w.a.out) + w.token[r] * w.a.out_stride + w.head[r] * w.a.value_dim + d;
    return _mm512_storeu_si512(out, pairs_of(begin, end));
  }
  store_some(w, r, d, begin), store_some(w, r, d + 16, end);
}

// What the rows of a group keep of their state, and what a partition's sums count, when the partition is added.
inline void merge_state(float* top, float* total, const Vec& part_top, const Vec& part_total, float* keep,
                        float* scale) {
  const Vec old_top = Vec::load(top), old_total = Vec::load(total);
  const __mmask16 none = _mm512_cmp_ps_mask(part_total.v, _mm512_setzero_ps(), _CMP_EQ_OQ);
  const __mmask16 first = _mm512_cmp_ps_mask(old_total.v, _mm512_setzero_ps(), _CMP_EQ_OQ);
  const Vec raised{_mm512_mask_mov_ps(Vec::max(old_top, part_top).v, none, old_top.v)};
  const Vec kept{_mm512_mask_mov_ps(_mm512_maskz_mov_ps(~first, exp(old_top - raised).v), none, _mm512_set1_ps(1.0f))};
  const Vec counted{_mm512_maskz_mov_ps(~none, exp(part_top - raised).v)};
  raised.store(top);
  Vec::fma(part_total, counted, old_total * kept).store(total);
  kept.store(keep), counted.store(scale);
}
inline Vec merged(Vec part, float scale, Vec before, float keep) {
  return Vec::fma(part, Vec::set(scale), before * Vec::set(keep));
}

// ---- products with keys ----

// The tile products of a unit, a few at a time.
class Keys {
 public:
  Keys(const Work& w, const Unit* unit, float (*scores)[kRuns][kTileFloats])
      : w_(w), unit_(unit), scores_(scores), tiles_(w.memory.key_tiles), row_bytes_(w.a.keys.row_stride * 2) {
    if (!unit) return;
    left_ = unit->runs() * tiles_;
    two_ = unit->groups == 2;
    begin_pair();
  }
  int64_t left() const { return left_; }
  int64_t run() const { return run_; }  // whose products are under way
  void finish() {
    while (left_ > 0) step();
  }
  // A tile of one run's keys against the queries of the groups.
  inline __attribute__((always_inline)) void step() {
    --left_;
    if (odd_run_) {
      tile_load<5>(keys_[1] + tile_ * kTileK, row_bytes_);
      tile_multiply<2, 5, 6>();
      if (two_) tile_multiply<3, 5, 7>();
      odd_run_ = false;
    } else {
      if (tile_ == 0) tile_zero<0>(), tile_zero<1>(), tile_zero<2>(), tile_zero<3>();
      tile_load<4>(keys_[0] + tile_ * kTileK, row_bytes_);
      tile_load<6>(queries_, 64);
      tile_multiply<0, 4, 6>();
      if (two_) {
        tile_load<7>(queries_ + tiles_ * kTileElements, 64);
        tile_multiply<1, 4, 7>();
      }
      odd_run_ = second_;
      if (odd_run_) return;
    }
    queries_ += kTileElements;
    if (++tile_ == tiles_) end_pair();
  }

 private:
  void begin_pair() {
    keys_[0] = w_.rows_at(w_.a.keys, unit_->begin() + run_ * kRun);
    second_ = run_ + 1 < unit_->runs();
    if (second_) keys_[1] = w_.rows_at(w_.a.keys, unit_->begin() + (run_ + 1) * kRun);
    queries_ = w_.query_tiles(2 * unit_->pair);
    tile_ = 0;
  }
  void end_pair() {
    tile_store<0>(scores_[0][run_], 64);
    if (two_) tile_store<1>(scores_[1][run_], 64);
    if (second_) tile_store<2>(scores_[0][run_ + 1], 64);
    if (second_ && two_) tile_store<3>(scores_[1][run_ + 1], 64);
    run_ += 2;
    if (left_ > 0) begin_pair();
  }

  const Work& w_;
  const Unit* unit_;
  float (*scores_)[kRuns][kTileFloats];
  const int64_t tiles_, row_bytes_;
  int64_t left_ = 0, run_ = 0, tile_ = 0;
  const bf16* keys_[2];
  const bf16* queries_;
  bool second_ = false, two_ = false, odd_run_ = false;
};

// Spreads products evenly over pieces of other work.
class Beat {
 public:
  Beat(Keys& keys, int64_t pieces) : keys_(keys), all_(keys.left()), pieces_(pieces) {}
  inline __attribute__((always_inline)) void step() {
    for (due_ += all_; due_ >= pieces_ && keys_.left() > 0; due_ -= pieces_) keys_.step();
  }

 private:
  Keys& keys_;
  const int64_t all_, pieces_;
  int64_t due_ = 0;
};

// ---- values ----

// The values of partition `partition` in pairs of positions, zero up to a multiple of 32 positions, unless they are
// there already; beside them, products with keys that were read here. What `unpack` puts together, four of each eight
// dimensions, shares a tile: store_finished puts them in order again.
inline int64_t gathered_positions(const Work& w, int64_t partition) {
  return std::min(kMlaPartition, w.a.context_len[w.item.s] - partition * kMlaPartition);
}
inline MlaHeld wanted(const Work& w, int64_t partition) {
  return {w.a.values.data, w.a.block_table + w.item.s * w.a.max_blocks, w.item.g, partition,
          gathered_positions(w, partition)};
}
inline void gather_pair(const bf16* even, const bf16* odd, __mmask32 even_too, __mmask32 odd_too, int64_t slices,
                        bf16* to) {
  for (int64_t i = 0; i < slices; ++i, even += 32, odd += 32, to += 2 * kTileElements) {
    const __m512i first = _mm512_maskz_loadu_epi16(even_too, even), second = _mm512_maskz_loadu_epi16(odd_too, odd);
    _mm512_store_si512(to, _mm512_unpacklo_epi16(first, second));
    _mm512_store_si512(to + kTileElements, _mm512_unpackhi_epi16(first, second));
  }
}
inline void gather_values(const Work& w, int64_t partition, Keys& keys) {
  const int64_t n = gathered_positions(w, partition), stride = w.a.values.row_stride;
  const int64_t steps = (w.memory.key_tiles + 7) / 8;  // a little more than half of a pair of runs by its end
  const bf16* row = nullptr;
  for (int64_t p = 0; p < (n + 31) / 32 * 32; p += 2, row += 2 * stride) {
    for (int64_t i = 0; i < steps && keys.left() > 0 && keys.run() + 2 <= p / kRun; ++i) keys.step();
    if (p % kRun == 0 && p < n) row = w.rows_at(w.a.values, partition * kMlaPartition + p);
    gather_pair(row, row + stride, p < n ? ~0u : 0, p + 1 < n ? ~0u : 0, w.memory.value_tiles / 2,
                w.values + p / 32 * w.memory.pair_elements() + p % 32 / 2 * 32);
  }
}

// ---- weights ----

// Which of sixteen rows see the position.
inline __mmask16 seen_by(__m512i ends, int64_t position) {
  return _mm512_cmpgt_epi32_mask(ends, _mm512_set1_epi32(static_cast<int>(position)));
}

// The highest raw product of each of a group's rows with the positions before `whole`, which all of them see, and
// with the others before n.
inline Vec highest_of(const float* scores, __m512i ends, int64_t begin, int64_t whole, int64_t n) {
  const __m512 lowest = _mm512_set1_ps(-__builtin_inff());
  __m512 top[4] = {lowest, lowest, lowest, lowest};
  int64_t p = 0;
  for (; p < whole; p += 4)
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) top[i] = _mm512_max_ps(top[i], _mm512_load_ps(scores + 16 * (p + i)));
  for (; p < n; ++p)
    top[0] = _mm512_mask_max_ps(top[0], seen_by(ends, begin + p), top[0], _mm512_load_ps(scores + 16 * p));
  return {_mm512_max_ps(_mm512_max_ps(top[0], top[1]), _mm512_max_ps(top[2], top[3]))};
}

struct Weighing {
  __m512 factor, base;  // of a weight 2^(factor * product - base)
  __m512 totals[2];     // of even and odd positions
};

// The weights of 32 positions from `begin` on as a tile of rows by positions.
template <bool kWhole>
inline void weigh_pair(const float* scores, __m512i ends, int64_t begin, Weighing& g, bf16* to, Beat& beat) {
  const __m512i interleave = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22,
                                              6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  const auto weight = [&](int64_t p) __attribute__((always_inline)) {
    const __m512 value = power_for_bf16(_mm512_fmsub_ps(_mm512_load_ps(scores + 16 * p), g.factor, g.base));
    return kWhole ? value : _mm512_maskz_mov_ps(seen_by(ends, begin + p), value);
  };
  alignas(64) __m512i pairs[16];
  for (int i = 0; i < 16; ++i) {
    beat.step();
    const __m512 even = weight(2 * i), odd = weight(2 * i + 1);
    g.totals[0] = _mm512_add_ps(g.totals[0], even), g.totals[1] = _mm512_add_ps(g.totals[1], odd);
    _mm512_store_si512(pairs + i, _mm512_permutexvar_epi16(interleave, pairs_of({even}, {odd})));
  }
  __m512i x[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) x[i] = _mm512_load_si512(pairs + i);
  transpose(x);
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) _mm512_store_si512(to + i * 32, x[i]);
}

// Products of one of the unit's groups to weights, which count in its rows' states.
inline void weigh_group(Work& w, const Unit& unit, int which, const float* scores, Beat& beat) {
  constexpr float kLog2E = 1.44269504f;
  const int group = 2 * unit.pair + which, row = group * kGroupRows;
  const __m512i ends = _mm512_load_si512(w.end + row);
  const int64_t begin = unit.begin(), least = *std::min_element(w.end + row, w.end + row + kGroupRows) - begin;
  const int64_t whole = std::clamp<int64_t>(least / 32 * 32, 0, unit.pairs() * 32);
  const Vec top = highest_of(scores, ends, begin, whole, unit.n) * Vec::set(w.a.scale);
  Weighing g{
      _mm512_set1_ps(w.a.scale * kLog2E), (top * Vec::set(kLog2E)).v, {_mm512_setzero_ps(), _mm512_setzero_ps()}};
  int64_t p = 0;
  for (; p < whole; p += 32)
    weigh_pair<true>(scores + 16 * p, ends, begin + p, g, w.room->weights[unit.pair][which][p / 32], beat);
  for (; p < unit.n; p += 32)
    weigh_pair<false>(scores + 16 * p, ends, begin + p, g, w.room->weights[unit.pair][which][p / 32], beat);
  const Vec total{_mm512_add_ps(g.totals[0], g.totals[1])};
  if (w.apart) {
    top.store(w.whole.top + row), total.store(w.whole.total + row);
  } else {
    merge_state(w.whole.top + row, w.whole.total + row, top, total, w.room->keep + row, w.room->scale + row);
  }
}

// ---- products with values ----

// The units of a partition against all its values, and what becomes of their sums.
class Values {
 public:
  Values(Work& w, const Unit* units, int count)
      : w_(w), units_(units), count_(count), slices_(w.memory.value_tiles / 2) {
    for (int i = 0; i < count; ++i) last_[i] = units[i].begin() + units[i].n == w.pair_end(units[i].pair);
  }
  void run() {
    for (slice_ = 0; slice_ < slices_; ++slice_)
      for (int i = 0; i < count_; ++i) multiply(i);
    merge_some(kUnitRows);
  }

 private:
  void multiply(int i) {
    const Unit& unit = units_[i];
    const bf16(*weights)[kPairs][kTileElements] = w_.room->weights[unit.pair];
    const bf16* values = w_.values + slice_ * 2 * kTileElements;
    const bool two = unit.groups == 2;
    const int merge_rows = static_cast<int>((kUnitRows + 2 * unit.pairs() - 1) / (2 * unit.pairs()));
    tile_zero<0>(), tile_zero<1>(), tile_zero<2>(), tile_zero<3>();
    for (int64_t k = 0; k < unit.pairs(); ++k, values += w_.memory.pair_elements()) {
      tile_load<4>(weights[0][k], 64);
      tile_load<6>(values, 64);
      tile_multiply<0, 4, 6>();
      tile_load<7>(values + kTileElements, 64);
      tile_multiply<1, 4, 7>();
      merge_some(merge_rows);
      if (two) {
        tile_load<5>(weights[1][k], 64);
        tile_multiply<2, 5, 6>();
        tile_multiply<3, 5, 7>();
      }
      merge_some(merge_rows);
    }
    merge_some(kUnitRows);
    float(*sums)[2][kTileFloats] = w_.room->sums[now_];
    tile_store<0>(sums[0][0], 64), tile_store<1>(sums[0][1], 64);
    if (two) tile_store<2>(sums[1][0], 64), tile_store<3>(sums[1][1], 64);
    merging_ = i, merging_slice_ = slice_, merged_ = 0;
    rows_ = std::min(kUnitRows, w_.rows - unit.pair * kUnitRows);
    now_ ^= 1;
  }

  // Adds up to `count` more rows of the sums before those under way to what came before them.
  inline __attribute__((always_inline)) void merge_some(int count) {
    for (; count > 0 && merged_ < rows_; --count, ++merged_) merge_row(merged_);
  }
  inline __attribute__((always_inline)) void merge_row(int r) {
    const Unit& unit = units_[merging_];
    const float* part = w_.room->sums[now_ ^ 1][r / kGroupRows][0] + r % kGroupRows * 16;
    Vec low = Vec::load(part), high = Vec::load(part + kTileFloats);
    const int row = unit.pair * kUnitRows + r;
    float* whole = w_.sum_tile(w_.whole, row / kGroupRows, 2 * merging_slice_) + r % kGroupRows * 16;
    if (!w_.apart) {
      const float scale = w_.room->scale[row], keep = w_.room->keep[row];
      const bool first = unit.partition == 0;
      low = merged(low, scale, first ? Vec::zero() : Vec::load(whole), keep);
      high = merged(high, scale, first ? Vec::zero() : Vec::load(whole + kTileFloats), keep);
      if (last_[merging_])
        return store_finished(w_, row, merging_slice_ * 32, low, high, Vec::set(1.0f / w_.whole.total[row]));
    }
    low.store(whole), high.store(whole + kTileFloats);
  }

  Work& w_;
  const Unit* units_;
  const int count_;
  const int64_t slices_;
  bool last_[kUnits];  // partition of all the unit's rows
  int64_t slice_ = 0, merging_slice_ = 0;
  int now_ = 0, merging_ = 0, merged_ = 0, rows_ = 0;
};

// ---- items ----

// The units that see something of a partition, which are the last ones.
inline int find_units(const Work& w, int64_t partition, Unit* units) {
  int count = 0;
  for (int pair = 0; pair < w.pairs(); ++pair) {
    const int64_t n = std::min(kMlaPartition, w.pair_end(pair) - partition * kMlaPartition);
    if (n > 0) units[count++] = {partition, pair, std::min(2, w.groups - 2 * pair), n};
  }
  return count;
}

inline void run_partition(Work& w, int64_t partition) {
  Unit units[kUnits];
  const int count = find_units(w, partition, units);
  Keys first(w, &units[0], w.room->scores[0]);
  const MlaHeld held = wanted(w, partition);
  if (!w.held->has(held)) gather_values(w, partition, first), *w.held = held;
  first.finish();
  for (int i = 0; i < count; ++i) {
    Keys keys(w, i + 1 < count ? &units[i + 1] : nullptr, w.room->scores[(i + 1) % 2]);
    Beat beat(keys, units[i].groups * units[i].pairs() * 16);
    for (int j = 0; j < units[i].groups; ++j) weigh_group(w, units[i], j, w.room->scores[i % 2][j][0], beat);
    keys.finish();
  }
  Values(w, units, count).run();
}

inline void run_item(const Memory& memory, int64_t index, int64_t thread, MlaHeld& held) {
  Work w(memory, mla_item_at(memory.a, index), thread, &held);
  place_queries(w);
  for (int r = 0; r < w.groups * kGroupRows; ++r) w.whole.top[r] = -__builtin_inff(), w.whole.total[r] = 0;
  for (int64_t p = 0; p < w.partitions(); ++p) run_partition(w, p);
}

inline void run_part(const Memory& memory, int64_t index, int64_t partition, int64_t thread, MlaHeld& held,
                     const Part& to) {
  Work w(memory, mla_item_at(memory.a, index), thread, &held);
  if (partition >= w.partitions()) return;
  w.whole = to, w.apart = true;
  for (int r = 0; r < w.groups * kGroupRows; ++r) to.top[r] = -__builtin_inff(), to.total[r] = 0;
  place_queries(w);
  run_partition(w, partition);
}

// Adds a partition's state of a group to that of the partitions before it.
inline void merge_group(const Work& w, const Part& to, const Part& part, int group) {
  const int row = group * kGroupRows;
  alignas(64) float keep[kGroupRows], scale[kGroupRows];
  merge_state(to.top + row, to.total + row, Vec::load(part.top + row), Vec::load(part.total + row), keep, scale);
  float* sums = w.sum_tile(to, group, 0);
  const float* more = w.sum_tile(part, group, 0);
  for (int64_t i = 0; i < w.memory.value_tiles * kTileFloats; i += 16) {
    const int64_t r = i / 16 % kGroupRows;
    if (scale[r] != 0) merged(Vec::load(more + i), scale[r], Vec::load(sums + i), keep[r]).store(sums + i);
  }
}
inline void write_group(const Work& w, const Part& part, int group) {
  for (int r = group * kGroupRows; r < std::min(w.rows, (group + 1) * kGroupRows); ++r) {
    const Vec inverse = Vec::set(1.0f / part.total[r]);
    for (int64_t tile = 0; tile < w.memory.value_tiles; tile += 2) {
      const float* sums = w.sum_tile(part, group, tile) + r % kGroupRows * 16;
      store_finished(w, r, tile * 16, Vec::load(sums), Vec::load(sums + kTileFloats), inverse);
    }
  }
}

// The partitions of few items, as work of their own: wave after wave of as many as there is room for.
inline void split_items(const Memory& memory, int64_t items, int64_t partitions) {
  constexpr int64_t kGroups = kMlaRows / kGroupRows;
  const int64_t wave = std::min(partitions, (memory.splits() - items) / items);
  const auto part = [&](int64_t item, int64_t i) { return memory.split(items + item * wave + i); };
  for (int64_t first = 0; first < partitions; first += wave) {
    WorkQueue queue(items * wave);
    parallel_team([&](const TeamMember& me) {
      const TileUse use(TileShapes::full());
      MlaHeld held;
      for (int64_t i = queue.next(); i >= 0; i = queue.next())
        run_part(memory, i / wave, first + i % wave, me.index, held, part(i / wave, i % wave));
    });
    parallel_items(items * kGroups, [&](int64_t i) {
      const int64_t item = i / kGroups;
      const int group = static_cast<int>(i % kGroups);
      const Work w(memory, mla_item_at(memory.a, item), 0);
      if (group >= w.groups) return;
      const Part whole = memory.split(item);
      if (first == 0) clear_group(w, whole, group);
      for (int64_t p = 0; p < std::min(wave, w.partitions() - first); ++p) merge_group(w, whole, part(item, p), group);
      if (first < w.partitions() && first + wave >= w.partitions()) write_group(w, whole, group);
    });
  }
}

inline void attend(const MlaAttentionArgs& a) {
  const Memory memory(a);
  const int64_t items = count_mla_items(a);
  int64_t partitions = 0;
  for (int64_t s = 0; s < a.S; ++s)
    if (a.query_start[s + 1] > a.query_start[s])
      partitions = std::max(partitions, (a.context_len[s] + kMlaPartition - 1) / kMlaPartition);
  // From four items a thread on, the last item's end is little waited for.
  if (memory.threads > 1 && items < 4 * memory.threads && partitions > 1) return split_items(memory, items, partitions);
  WorkQueue queue(items);
  parallel_team(
      [&](const TeamMember& me) {
        const TileUse use(TileShapes::full());
        MlaHeld own;
        MlaHeld& held = a.held ? *a.held : own;
        for (int64_t i = queue.next(); i >= 0; i = queue.next()) run_item(memory, i, me.index, held);
      },
      static_cast<int>(std::min<int64_t>(items, INT32_MAX)));
}

}  // namespace

int64_t mla_scratch_bytes(int64_t key_dim, int64_t value_dim, int threads) {
  const MlaAttentionArgs sizes{.key_dim = key_dim, .value_dim = value_dim, .threads = threads};
  const Memory memory(sizes);
  return memory.threads * memory.work_bytes() + memory.splits() * memory.part_floats * 4;
}

void mla_attention(const MlaAttentionArgs& a) {
  if (a.dtype == DType::kBf16) return attend(a);
  avx512::mla_attention(a);
}

}  // namespace millrace::amx
#pragma GCC pop_options
