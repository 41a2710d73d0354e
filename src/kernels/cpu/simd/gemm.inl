// Matrix product on Vec for panels of float, f16 and bf16, multiplying in float32. Each output is one chain of fused
// multiply-adds over k, whichever tile it falls into. kTileRows and kTilePanels say how large a tile the registers
// hold.

// One tile: `rows` rows of x against kTilePanels (or one) panels, k from 0 to K.
template <class W>
struct GemmTile {
  const float* x;  // first row; [row][k], rows x_stride apart, or packed: [k][kTileRows]
  int64_t x_stride;
  const W* w;  // first panel, at the first k
  int64_t panel_stride;
  float* y;
  int64_t y_stride, K;
  int64_t columns;    // how many of the tile's columns exist
  bool starts, ends;  // whether this is the first and the last stretch of k
  const float* bias;  // at the first column, or null
};

template <int kRows, int kPanels>
inline void load_sums(const float* y, int64_t stride, int64_t columns, bool fresh, Vec (&sums)[kRows][kPanels]) {
  for (int r = 0; r < kRows; ++r)
    for (int p = 0; p < kPanels; ++p)
      sums[r][p] = fresh ? Vec::zero() : Vec::load_n(y + r * stride + 16 * p, lanes_left(16 * p, columns));
}

template <int kRows, int kPanels, class W>
inline void store_sums(const GemmTile<W>& t, Vec (&sums)[kRows][kPanels]) {
  for (int p = 0; p < kPanels; ++p) {
    const int64_t n = lanes_left(16 * p, t.columns);
    const Vec bias = t.ends && t.bias ? Vec::load_n(t.bias + 16 * p, n) : Vec::zero();
    for (int r = 0; r < kRows; ++r) {
      const Vec sum = t.ends && t.bias ? sums[r][p] + bias : sums[r][p];
      sum.store_n(t.y + r * t.y_stride + 16 * p, n);
    }
  }
}

template <int kRows, int kPanels, bool kPacked, class W>
inline void multiply_k(const GemmTile<W>& t, int64_t k, const Vec (&w)[kPanels], Vec (&sums)[kRows][kPanels]) {
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
    const Vec x = Vec::set(kPacked ? t.x[k * kTileRows + r] : t.x[r * t.x_stride + k]);
#pragma GCC unroll 4
    for (int p = 0; p < kPanels; ++p) sums[r][p] = Vec::fma(x, w[p], sums[r][p]);
  }
}

inline void prefetch_weights(const void* at) { _mm_prefetch(static_cast<const char*>(at) + 2048, _MM_HINT_T0); }

template <int kRows, int kPanels, bool kPacked, class W>
void run_tile(const GemmTile<W>& t) {
  Vec sums[kRows][kPanels], w[kPanels];
  load_sums<kRows, kPanels>(t.y, t.y_stride, t.columns, t.starts, sums);
  if constexpr (std::is_same_v<W, bf16>) {
    for (int64_t k = 0; k < t.K; k += 2) {
      for (int p = 0; p < kPanels; ++p) prefetch_weights(t.w + p * t.panel_stride + k * 16);
      for (int p = 0; p < kPanels; ++p) w[p] = Vec::load_even(t.w + p * t.panel_stride + k * 16);
      multiply_k<kRows, kPanels, kPacked>(t, k, w, sums);
      for (int p = 0; p < kPanels; ++p) w[p] = Vec::load_odd(t.w + p * t.panel_stride + k * 16);
      multiply_k<kRows, kPanels, kPacked>(t, k + 1, w, sums);
    }
  } else {
    for (int64_t k = 0; k < t.K; ++k) {
      for (int p = 0; p < kPanels; ++p) prefetch_weights(t.w + p * t.panel_stride + k * 16);
      for (int p = 0; p < kPanels; ++p) w[p] = Vec::load(t.w + p * t.panel_stride + k * 16);
      multiply_k<kRows, kPanels, kPacked>(t, k, w, sums);
    }
  }
  store_sums(t, sums);
}

// run_tile for 1 .. kTileRows rows.
template <int kPanels, bool kPacked, class W>
void run_rows(const GemmTile<W>& tile, int64_t rows) {
  using Run = void (*)(const GemmTile<W>&);
  static constexpr auto kRuns = []<size_t... kIndex>(std::index_sequence<kIndex...>) {
    return std::array<Run, sizeof...(kIndex)>{run_tile<static_cast<int>(kIndex) + 1, kPanels, kPacked, W>...};
  }
  (std::make_index_sequence<kTileRows>());
  kRuns[rows - 1](tile);
}

// Where the kernels read x: as it came, or prepared in the scratch as float32 (rounded to bf16 and padded with zeros to
// Kp where the weights are bf16), packed in blocks of kTileRows rows once there is more than one.
struct PreparedX {
  explicit PreparedX(const GemmArgs& a)
      : K(gemm_padded_k(a.K, a.w_dtype)),
        packed(a.M > kTileRows),
        direct(!packed && a.x_dtype == DType::kF32 && a.w_dtype == DType::kF32),
        stride(direct ? a.x_stride : K),
        data(direct ? static_cast<const float*>(a.x) : reinterpret_cast<const float*>(a.scratch)) {}
  // `row` is a multiple of kTileRows.
  const float* at(int64_t row, int64_t k) const { return data + row * stride + (packed ? k * kTileRows : k); }

  const int64_t K;
  const bool packed, direct;
  const int64_t stride;
  const float* const data;
};

inline float activation(const GemmArgs& a, int64_t row, int64_t k) {
  const int64_t at = row * a.x_stride + k;
  if (a.x_dtype == DType::kBf16) return to_float(static_cast<const bf16*>(a.x)[at]);
  return rounded_activation(static_cast<const float*>(a.x)[at], a.w_dtype);
}

inline void prepare_rows(const GemmArgs& a, const PreparedX& x, int64_t first) {
  const int64_t rows = a.M - first < kTileRows ? a.M - first : kTileRows;
  float* to = reinterpret_cast<float*>(a.scratch) + first * x.stride;
  const int64_t row_step = x.packed ? 1 : x.stride, k_step = x.packed ? kTileRows : 1;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t k = 0; k < a.K; ++k) to[r * row_step + k * k_step] = activation(a, first + r, k);
    for (int64_t k = a.K; k < x.K; ++k) to[r * row_step + k * k_step] = 0;
  }
}

// All rows against the panels [panel, panel + kPanels); the panels' stretch of k stays in the first-level cache.
template <int kPanels, class W>
void run_panels(const GemmArgs& a, const PreparedX& x, int64_t panel) {
  constexpr int64_t kStretch = 16384 / (kPanels * 16 * static_cast<int64_t>(sizeof(W))) * 2;
  const int64_t step = x.packed ? kStretch : x.K, column = panel * 16;
  for (int64_t k = 0; k < x.K; k += step)
    for (int64_t row = 0; row < a.M; row += kTileRows) {
      const GemmTile<W> tile{.x = x.at(row, k),
                             .x_stride = x.stride,
                             .w = static_cast<const W*>(a.w) + (panel * x.K + k) * 16,
                             .panel_stride = x.K * 16,
                             .y = a.y + row * a.y_stride + column,
                             .y_stride = a.y_stride,
                             .K = x.K - k < step ? x.K - k : step,
                             .columns = a.N - column,
                             .starts = k == 0,
                             .ends = k + step >= x.K,
                             .bias = a.bias ? a.bias + column : nullptr};
      const int64_t rows = a.M - row < kTileRows ? a.M - row : kTileRows;
      if (x.packed)
        run_rows<kPanels, true>(tile, rows);
      else
        run_rows<kPanels, false>(tile, rows);
    }
}

// All rows against panels [item * kTilePanels, ...), as many as a tile has or are left.
template <class W>
void run_item(const GemmArgs& a, const PreparedX& x, int64_t item) {
  const int64_t panel = item * kTilePanels, panels = (a.N + 15) / 16;
  if (panel + kTilePanels <= panels) return run_panels<kTilePanels, W>(a, x, panel);
  for (int64_t p = panel; p < panels; ++p) run_panels<1, W>(a, x, p);
}
inline int64_t items_of(const GemmArgs& a) { return (a.N + 16 * kTilePanels - 1) / (16 * kTilePanels); }

template <class W>
void gemm_of(const GemmArgs& a) {
  const PreparedX x(a);
  RunQueue queue(items_of(a));
  const auto work = [&](const TeamMember& me) {
    if (!x.direct) {
      for (int64_t row = me.index * kTileRows; row < a.M; row += me.size * kTileRows) prepare_rows(a, x, row);
      me.barrier();
    }
    queue.each(me, [&](int64_t item) { run_item<W>(a, x, item); });
  };
  parallel_team(work, gemm_threads(a));
}

void gemm_f32(const GemmArgs& a) { gemm_of<float>(a); }
void gemm_f16(const GemmArgs& a) { gemm_of<f16>(a); }
void gemm_bf16(const GemmArgs& a) { gemm_of<bf16>(a); }

template <class W>
void gemm_grouped_of(const GroupedGemmArgs& grouped) {
  static constexpr GemmSteps<GemmArgs> kSteps{
      .preparations =
          [](const GemmArgs& a) { return PreparedX(a).direct ? 0 : (a.M + kTileRows - 1) / kTileRows; },
      .prepare = [](const GemmArgs& a, int64_t i) { prepare_rows(a, PreparedX(a), i * kTileRows); },
      .items = items_of,
      .run = [](const GemmArgs& a, int64_t item, std::byte*) { run_item<W>(a, PreparedX(a), item); },
      .own_bytes = 0};
  run_grouped(grouped.products, grouped.scratch, kSteps);
}

void gemm_grouped_f32(const GroupedGemmArgs& a) { gemm_grouped_of<float>(a); }
void gemm_grouped_f16(const GroupedGemmArgs& a) { gemm_grouped_of<f16>(a); }
void gemm_grouped_bf16(const GroupedGemmArgs& a) { gemm_grouped_of<bf16>(a); }
