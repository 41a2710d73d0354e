// The products of paged attention on Vec, multiplying in float32. Positions lie in the lanes for q.k, elements of a
// head for p.v. kScoreRows x kScoreVecs and kValueRows x kValueVecs say how large a tile the registers hold.

template <class Kv, int kRows, int kVecs>
inline void score_rows(AttentionWork& w, int row, int vec, const Kv* const* keys) {
  Vec sums[kRows][kVecs];
  for (int r = 0; r < kRows; ++r)
    for (int i = 0; i < kVecs; ++i) sums[r][i] = Vec::zero();
  const auto step = [&](int64_t d, const Vec(&k)[kVecs]) __attribute__((always_inline)) {
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const Vec q = Vec::set(w.q[row + r][d]);
#pragma GCC unroll 4
      for (int i = 0; i < kVecs; ++i) sums[r][i] = Vec::fma(q, k[i], sums[r][i]);
    }
  };
  Vec k[kVecs];
  if constexpr (std::is_same_v<Kv, bf16>) {
    for (int64_t d = 0; d < w.padded; d += 2) {
      for (int i = 0; i < kVecs; ++i) k[i] = Vec::load_even(keys[i] + d * 16);
      step(d, k);
      for (int i = 0; i < kVecs; ++i) k[i] = Vec::load_odd(keys[i] + d * 16);
      step(d + 1, k);
    }
  } else if constexpr (std::is_same_v<Kv, int8_t>) {
    const auto load = [&]<int kWhich>(int64_t d) __attribute__((always_inline)) {
      for (int i = 0; i < kVecs; ++i) k[i] = Vec::template load_of_four<kWhich>(keys[i] + d * 16);
      step(d + kWhich, k);
    };
    for (int64_t d = 0; d < w.padded; d += 4)
      load.template operator()<0>(d), load.template operator()<1>(d), load.template operator()<2>(d),
          load.template operator()<3>(d);
  } else {
    for (int64_t d = 0; d < w.padded; ++d) {
      for (int i = 0; i < kVecs; ++i) k[i] = Vec::load(keys[i] + d * 16);
      step(d, k);
    }
  }
  for (int r = 0; r < kRows; ++r)
    for (int i = 0; i < kVecs; ++i) sums[r][i].store(w.weights[row + r] + 16 * (vec + i));
}

// Raw q.k of all rows with the sixteen positions from each of `count` places on.
template <class Kv>
inline void score_tile(AttentionWork& w, int vec, int count, const Kv* const* keys) {
  in_groups<kScoreRows>(w.rows, [&]<int kRows>(int row) {
    int i = 0;
    for (; i + kScoreVecs <= count; i += kScoreVecs) score_rows<Kv, kRows, kScoreVecs>(w, row, vec + i, keys + i);
    for (; i < count; ++i) score_rows<Kv, kRows, 1>(w, row, vec + i, keys + i);
  });
}

// sums = sums * keep + p.v for kRows rows and kVecs sixteens of elements from d on. False, and nothing done, where they
// are to be checked and not finite.
template <class Kv, int kRows, int kVecs>
inline bool add_values(AttentionWork& w, int row, int64_t d, int64_t tile, Visible span, bool checked,
                       const float* keep) {
  Vec sums[kRows][kVecs];
  for (int r = 0; r < kRows; ++r)
    for (int i = 0; i < kVecs; ++i) sums[r][i] = Vec::load(w.sums[row + r] + d + 16 * i) * Vec::set(keep[row + r]);
  const auto add = [&](int64_t position, const Vec(&v)[kVecs]) __attribute__((always_inline)) {
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const Vec weight = Vec::set(w.weights[row + r][position - tile]);
#pragma GCC unroll 8
      for (int i = 0; i < kVecs; ++i) sums[r][i] = Vec::fma(weight, v[i], sums[r][i]);
    }
  };
  const KvLayout& kv = w.a.layout;
  Vec v[kVecs];
  for (int64_t p = span.begin; p < span.end;) {
    const int64_t start = p / kKvLanes * kKvLanes, end = std::min(span.end, start + kKvLanes);
    const Kv* values =
        static_cast<const Kv*>(w.a.v_cache) + block_at(w, p) + kv.value_at(w.g, start % kv.block_tokens, d);
    if constexpr (std::is_same_v<Kv, bf16>) {
      for (; p < end; ++p) {
        const Kv* pair = values + (p - start) / 2 * 2 * w.padded;
        if ((p - start) % 2 == 0) {
          for (int i = 0; i < kVecs; ++i) v[i] = Vec::load_even(pair + 32 * i);
        } else {
          for (int i = 0; i < kVecs; ++i) v[i] = Vec::load_odd(pair + 32 * i);
        }
        add(p, v);
      }
    } else if constexpr (std::is_same_v<Kv, int8_t>) {
      const auto load = [&]<int kWhich>(const Kv* fours) __attribute__((always_inline)) {
        for (int i = 0; i < kVecs; ++i) v[i] = Vec::template load_of_four<kWhich>(fours + 64 * i);
      };
      for (; p < end; ++p) {
        const Kv* fours = values + (p - start) / 4 * 4 * w.padded;
        switch ((p - start) % 4) {
          case 0:
            load.template operator()<0>(fours);
            break;
          case 1:
            load.template operator()<1>(fours);
            break;
          case 2:
            load.template operator()<2>(fours);
            break;
          default:
            load.template operator()<3>(fours);
        }
        add(p, v);
      }
    } else {
      for (; p < end; ++p) {
        for (int i = 0; i < kVecs; ++i) v[i] = Vec::load(values + (p - start) * w.padded + 16 * i);
        add(p, v);
      }
    }
  }
  if (checked && !all_finite(sums)) return false;
  for (int r = 0; r < kRows; ++r)
    for (int i = 0; i < kVecs; ++i) sums[r][i].store(w.sums[row + r] + d + 16 * i);
  return true;
}

// Products with keys become weights of values.
inline float weigh_tile_row(AttentionWork& w, int r, int64_t tile) {
  float* const at = w.weights[r];
  const auto scaled = [&](Vec x, const float* scales, int i) {
    return w.scaled ? x * Vec::load(scales + 16 * i) : x;
  };
  return weigh_row(
      w, r, tile, [&](int i) { return scaled(Vec::load(at + 16 * i), w.key_scales, i); }, [](Vec x) { return exp(x); },
      [&](const Vec(&weights)[kTileVecs]) {
        Vec total = Vec::zero();
#pragma GCC unroll 4
        for (int i = 0; i < kTileVecs; ++i) {
          scaled(weights[i], w.value_scales, i).store(at + 16 * i);
          total = total + weights[i];
        }
        return total;
      });
}

template <class Kv>
inline void run_tile(AttentionWork& w, int64_t tile) {
  const TileKeys<Kv> keys(w, tile);
  if (w.scaled) load_scales(w, tile, keys.first, keys.end);
  score_tile<Kv>(w, keys.first, keys.end - keys.first, keys.at + keys.first);
  float keep[kMaxRows];
  for (int r = 0; r < w.rows; ++r) keep[r] = weigh_tile_row(w, r, tile);
  const auto add = [&]<int kVecs>(int64_t d) {
    add_by_groups<kValueRows>(w, tile, [&]<int kRows>(int row, Visible span, bool checked) {
      return add_values<Kv, kRows, kVecs>(w, row, d, tile, span, checked, keep);
    });
  };
  int64_t d = 0;
  for (; d + 16 * kValueVecs <= w.padded; d += 16 * kValueVecs) add.template operator()<kValueVecs>(d);
  for (; d < w.padded; d += 16) add.template operator()<1>(d);
}

template <class Kv>
struct VecTiles {
  using Work = AttentionWork;
  static void prepare(Work&) {}
  static void run(Work& w, int64_t tile) { run_tile<Kv>(w, tile); }
};

// Any cache but one of integers.
inline void attend(const AttentionArgs& a) {
  if (a.layout.dtype == DType::kF32) return attend_with<VecTiles<float>>(a);
  if (a.layout.dtype == DType::kBf16) return attend_with<VecTiles<bf16>>(a);
  attend_with<VecTiles<f16>>(a);
}
