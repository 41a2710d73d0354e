// Matrix product on Vec for panels of float, f16 and bf16, multiplying in float32. Each output is one chain of fused
// multiply-adds over k, whichever tile it falls into. kTileRows and kTilePanels say how large a tile the registers
// hold.

// One tile: `rows` rows of x against kTilePanels (or one) panels, k from 0 to K.
template <class W>
struct GemmTile {
  const float* x;  // first row; k is the fast axis
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

template <int kRows, int kPanels, class W>
inline void multiply_k(const GemmTile<W>& t, int64_t k, const Vec (&w)[kPanels], Vec (&sums)[kRows][kPanels]) {
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
    const Vec x = Vec::set(t.x[r * t.x_stride + k]);
#pragma GCC unroll 4
    for (int p = 0; p < kPanels; ++p) sums[r][p] = Vec::fma(x, w[p], sums[r][p]);
  }
}

inline void prefetch_weights(const void* at) { _mm_prefetch(static_cast<const char*>(at) + 2048, _MM_HINT_T0); }

template <int kRows, int kPanels, class W>
void run_tile(const GemmTile<W>& t) {
  Vec sums[kRows][kPanels], w[kPanels];
  load_sums<kRows, kPanels>(t.y, t.y_stride, t.columns, t.starts, sums);
  if constexpr (std::is_same_v<W, bf16>) {
    for (int64_t k = 0; k < t.K; k += 2) {
      for (int p = 0; p < kPanels; ++p) prefetch_weights(t.w + p * t.panel_stride + k * 16);
      for (int p = 0; p < kPanels; ++p) w[p] = Vec::load_even(t.w + p * t.panel_stride + k * 16);
      multiply_k<kRows, kPanels>(t, k, w, sums);
      for (int p = 0; p < kPanels; ++p) w[p] = Vec::load_odd(t.w + p * t.panel_stride + k * 16);
      multiply_k<kRows, kPanels>(t, k + 1, w, sums);
    }
  } else {
    for (int64_t k = 0; k < t.K; ++k) {
      for (int p = 0; p < kPanels; ++p) prefetch_weights(t.w + p * t.panel_stride + k * 16);
      for (int p = 0; p < kPanels; ++p) w[p] = Vec::load(t.w + p * t.panel_stride + k * 16);
      multiply_k<kRows, kPanels>(t, k, w, sums);
    }
  }
  store_sums(t, sums);
}

// run_tile for 1 .. kTileRows rows.
template <int kPanels, class W>
void run_rows(const GemmTile<W>& tile, int64_t rows) {
  using Run = void (*)(const GemmTile<W>&);
  static constexpr auto kRuns = []<size_t... kIndex>(std::index_sequence<kIndex...>) {
    return std::array<Run, sizeof...(kIndex)>{run_tile<static_cast<int>(kIndex) + 1, kPanels, W>...};
  }
  (std::make_index_sequence<kTileRows>());
  kRuns[rows - 1](tile);
}

// All rows against the panels [panel, panel + kPanels); the panels' stretch of k stays in the first-level cache.
template <int kPanels, class W>
void run_panels(const GemmArgs& a, const float* x, int64_t x_stride, int64_t K, int64_t panel) {
  constexpr int64_t kStretch = 16384 / (kPanels * 16 * static_cast<int64_t>(sizeof(W))) * 2;
  const int64_t step = a.M <= kTileRows ? K : kStretch;
  for (int64_t k = 0; k < K; k += step)
    for (int64_t row = 0; row < a.M; row += kTileRows) {
      const int64_t column = panel * 16;
      run_rows<kPanels>(GemmTile<W>{.x = x + row * x_stride + k,
                                    .x_stride = x_stride,
                                    .w = static_cast<const W*>(a.w) + (panel * K + k) * 16,
                                    .panel_stride = K * 16,
                                    .y = a.y + row * a.y_stride + column,
                                    .y_stride = a.y_stride,
                                    .K = K - k < step ? K - k : step,
                                    .columns = a.N - column,
                                    .starts = k == 0,
                                    .ends = k + step >= K,
                                    .bias = a.bias ? a.bias + column : nullptr},
                        a.M - row < kTileRows ? a.M - row : kTileRows);
    }
}

// Rows of x as the panels of W want them: float32, rounded to bf16 and padded with zeros where the weights are bf16.
inline void prepare_row(const GemmArgs& a, int64_t row, int64_t K, float* to) {
  int64_t k = 0;
  if (a.x_dtype == DType::kBf16) {
    const bf16* x = static_cast<const bf16*>(a.x) + row * a.x_stride;
    for (; k < a.K; ++k) to[k] = to_float(x[k]);
  } else {
    const float* x = static_cast<const float*>(a.x) + row * a.x_stride;
    const bool round = a.w_dtype == DType::kBf16;
    for (; k < a.K; ++k) to[k] = round ? to_float(to_bf16(x[k])) : x[k];
  }
  for (; k < K; ++k) to[k] = 0;
}

template <class W>
void gemm_of(const GemmArgs& a) {
  const int64_t K = gemm_padded_k(a.K, a.w_dtype), panels = (a.N + 15) / 16;
  const bool direct = a.x_dtype == DType::kF32 && a.w_dtype != DType::kBf16;
  float* const scratch = reinterpret_cast<float*>(a.scratch);
  const float* const x = direct ? static_cast<const float*>(a.x) : scratch;
  const int64_t x_stride = direct ? a.x_stride : K;
  WorkQueue queue((panels + kTilePanels - 1) / kTilePanels);
  const auto work = [&](const TeamMember& me) {
    if (!direct) {
      for (int64_t row = me.index; row < a.M; row += me.size) prepare_row(a, row, K, scratch + row * K);
      me.barrier();
    }
    for (int64_t item = queue.next(); item >= 0; item = queue.next()) {
      const int64_t panel = item * kTilePanels;
      if (panel + kTilePanels <= panels)
        run_panels<kTilePanels, W>(a, x, x_stride, K, panel);
      else
        for (int64_t p = panel; p < panels; ++p) run_panels<1, W>(a, x, x_stride, K, p);
    }
  };
  parallel_team(work, gemm_threads(a));
}

void gemm_f32(const GemmArgs& a) { gemm_of<float>(a); }
void gemm_f16(const GemmArgs& a) { gemm_of<f16>(a); }
void gemm_bf16(const GemmArgs& a) { gemm_of<bf16>(a); }
