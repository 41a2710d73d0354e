// gemm_a16 a stretch of eight columns at a time: it is unpacked into the first-level cache, then met by all rows as dot
// products along k. Each output is summed over a stretch in the same order, whichever tile it falls into; stretches are
// added in rising order. `Dot`: Element, kStretch, kMostRows, prepare(), unpack(), and how 32 of k are multiplied: W, X,
// load_w(), load_x(), step(); where kMostThinRows is not 0, thin(), which needs no unpacked copy for that many rows.
// add_sums() adds up the lanes of sums.

constexpr int64_t kDotRows = 512;   // that meet a panel at a time
constexpr int64_t kDotColumns = 8;  // of a panel that are unpacked at a time

// x prepared, as rows of padded_k elements.
template <class Dot>
struct A16Job {
  using Element = typename Dot::Element;
  explicit A16Job(const GemmA16Args& args) : a(args), layout(args), x(reinterpret_cast<Element*>(args.scratch)) {}

  const GemmA16Args& a;
  const A16Layout layout;
  Element* const x;
};

// `first`: of the columns.
template <class Dot>
void unpack_stretch(const A16Job<Dot>& job, int64_t panel, int64_t first, int64_t k, int64_t count,
                    typename Dot::Element* to) {
  const A16Layout& l = job.layout;
  for (int64_t done = 0; done < count; done += kA16ChunkK) {
    const std::byte* chunk = job.a.w + panel * l.panel_bytes + (k + done) / kA16ChunkK * l.chunk_bytes;
    const auto* columns = reinterpret_cast<const char*>(chunk + l.chunk_scales * 64 + first * 64);
    for (int64_t n = 0; n < kDotColumns; ++n) _mm_prefetch(columns + n * 64 + 4096, _MM_HINT_T0);
    Dot::unpack(chunk, l.chunk_scales, first, to + done);
  }
}

// kRows rows of x against four columns; adds to sums, rows 16 apart.
template <class Dot, int kRows>
inline void dot_tile(const typename Dot::Element* x, int64_t x_stride, const typename Dot::Element* w, int64_t count,
                     bool fresh, float* sums) {
  Vec acc[kRows][4];
#pragma GCC unroll 16  // constant indices keep operands and sums in registers
  for (int i = 0; i < kRows * 4; ++i) acc[i / 4][i % 4] = Vec::zero();
  for (int64_t k = 0; k < count; k += 32) {
    typename Dot::W columns[4];
#pragma GCC unroll 4
    for (int n = 0; n < 4; ++n) columns[n] = Dot::load_w(w + n * Dot::kStretch + k);
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      const typename Dot::X row = Dot::load_x(x + r * x_stride + k);
#pragma GCC unroll 4
      for (int n = 0; n < 4; ++n) acc[r][n] = Dot::step(acc[r][n], row, columns[n]);
    }
  }
  add_sums(acc, fresh, sums);
}

// Against the unpacked columns.
template <class Dot>
inline void dot_rows(const typename Dot::Element* x, int64_t x_stride, const typename Dot::Element* w, int64_t count,
                     bool fresh, int64_t rows, float* sums) {
  for (int n = 0; n < kDotColumns; n += 4) {
    const typename Dot::Element* columns = w + n * Dot::kStretch;
    if (rows == 1) dot_tile<Dot, 1>(x, x_stride, columns, count, fresh, sums + n);
    if constexpr (Dot::kMostRows > 1) {
      if (rows == 2) dot_tile<Dot, 2>(x, x_stride, columns, count, fresh, sums + n);
      if (rows == 3) dot_tile<Dot, 3>(x, x_stride, columns, count, fresh, sums + n);
      if (rows == 4) dot_tile<Dot, 4>(x, x_stride, columns, count, fresh, sums + n);
    }
  }
}

// Few rows against a stretch that is unpacked in registers and nowhere else, up to twelve at a time; adds to sums. An
// odd last row comes with one that does not count, for whose sums there is room behind.
template <class Dot, int kScales>
void thin_rows_of(const A16Job<Dot>& job, const std::byte* chunk, int64_t k, int64_t count, int64_t row, int64_t rows,
                  float* sums) {
  const int64_t stride = job.layout.padded_k;
  for (int64_t groups = (rows + 11) / 12; groups > 0; --groups) {
    const int64_t share = (rows + groups - 1) / groups, even = share == 1 ? 1 : (share + 1) / 2 * 2;
    const int64_t some = std::min(even, rows);
    const typename Dot::Element* x = job.x + row * stride + k;
    if (even == 1) Dot::template thin<kScales, 1>(chunk, count, x, stride, some, k == 0, sums);
    if (even == 2) Dot::template thin<kScales, 2>(chunk, count, x, stride, some, k == 0, sums);
    if (even == 4) Dot::template thin<kScales, 4>(chunk, count, x, stride, some, k == 0, sums);
    if constexpr (Dot::kMostThinRows > 4) {
      if (even == 6) Dot::template thin<kScales, 6>(chunk, count, x, stride, some, k == 0, sums);
      if (even == 8) Dot::template thin<kScales, 8>(chunk, count, x, stride, some, k == 0, sums);
      if (even == 10) Dot::template thin<kScales, 10>(chunk, count, x, stride, some, k == 0, sums);
      if (even == 12) Dot::template thin<kScales, 12>(chunk, count, x, stride, some, k == 0, sums);
    }
    row += some, rows -= some, sums += some * 16;
  }
}
template <class Dot>
void thin_rows(const A16Job<Dot>& job, int64_t panel, int64_t k, int64_t count, int64_t row, int64_t rows,
               float* sums) {
  const A16Layout& l = job.layout;
  const std::byte* chunk = job.a.w + panel * l.panel_bytes + k / kA16ChunkK * l.chunk_bytes;
  if (l.chunk_scales == 1) return thin_rows_of<Dot, 1>(job, chunk, k, count, row, rows, sums);
  if (l.chunk_scales == 2) return thin_rows_of<Dot, 2>(job, chunk, k, count, row, rows, sums);
  thin_rows_of<Dot, 4>(job, chunk, k, count, row, rows, sums);
}

inline void finish_panel(const GemmA16Args& a, int64_t panel, int64_t begin, int64_t end, const float* sums) {
  const int64_t column = panel * 16, n = lanes_left(column, a.N);
  for (int64_t m = begin; m < end; ++m) {
    Vec y = Vec::load(sums + (m - begin) * 16);
    if (a.bias) y = y + Vec::load_n(a.bias + column, n);
    y.store_n(a.y + m * a.y_stride + column, n);
  }
}

// Rows [begin, end) against a panel. `own`: kA16DotOwnBytes, a stretch of the columns, then [kDotRows][16] sums.
template <class Dot>
void run_dot_rows(const A16Job<Dot>& job, int64_t panel, int64_t begin, int64_t end, std::byte* own) {
  auto* const stretch = reinterpret_cast<typename Dot::Element*>(own);
  auto* const sums = reinterpret_cast<float*>(own + kA16DotStretchBytes);
  const int64_t padded_k = job.layout.padded_k;
  for (int64_t k = 0; k < padded_k; k += Dot::kStretch) {
    const int64_t count = std::min<int64_t>(Dot::kStretch, padded_k - k);
    if constexpr (Dot::kMostThinRows > 0)
      if (end - begin <= Dot::kMostThinRows) {
        thin_rows<Dot>(job, panel, k, count, begin, end - begin, sums);
        continue;
      }
    for (int64_t first = 0; first < 16; first += kDotColumns) {
      unpack_stretch(job, panel, first, k, count, stretch);
      for (int64_t row = begin; row < end; row += Dot::kMostRows)
        dot_rows<Dot>(job.x + row * padded_k + k, padded_k, stretch, count, k == 0,
                      std::min<int64_t>(Dot::kMostRows, end - row), sums + (row - begin) * 16 + first);
    }
  }
  finish_panel(job.a, panel, begin, end, sums);
}

template <class Dot>
void run_dot_panel(const GemmA16Args& a, int64_t panel, std::byte* own) {
  const A16Job<Dot> job(a);
  for (int64_t row = 0; row < a.M; row += kDotRows)
    run_dot_rows(job, panel, row, std::min(a.M, row + kDotRows), own);
}

template <class Dot>
constexpr GemmSteps<GemmA16Args> kDotSteps{
    .preparations = [](const GemmA16Args& a) { return a.M; },
    .prepare =
        [](const GemmA16Args& a, int64_t row) {
          const A16Job<Dot> job(a);
          Dot::prepare(a, row, job.layout.padded_k, job.x);
        },
    .items = [](const GemmA16Args& a) { return A16Layout(a).panels; },
    .run = run_dot_panel<Dot>,
    .own_bytes = kA16DotOwnBytes};

template <class Dot>
void gemm_a16_of(const GemmA16Args& a) {
  const int64_t x_bytes = a.M * a16_padded_k(a.K) * static_cast<int64_t>(sizeof(typename Dot::Element));
  run_alone(a, kDotSteps<Dot>, gemm_a16_threads(a), a.scratch + round_up_to_64(x_bytes));
}

template <class Dot>
void gemm_a16_grouped_of(const GroupedA16Args& a) {
  run_grouped(a.products, a.scratch, kDotSteps<Dot>);
}

// Element k of a row as the product takes it, zero from K on.
inline float rounded_x(const GemmA16Args& a, int64_t row, int64_t k) {
  if (k >= a.K) return 0;
  const int64_t at = row * a.x_stride + k;
  if (a.x_dtype == DType::kBf16) return to_float(static_cast<const bf16*>(a.x)[at]);
  return to_float(to_bf16(static_cast<const float*>(a.x)[at]));
}

// 32 of k in float32. A format says where it puts element k of a row: place(k).
struct FloatElements {
  using Element = float;
  struct W {
    Vec first, second;
  };
  using X = W;
  static constexpr int64_t kStretch = kA16DotStretchBytes / kDotColumns / sizeof(float);

  static W load_w(const float* at) { return {Vec::load(at), Vec::load(at + 16)}; }
  static X load_x(const float* at) { return load_w(at); }
  static Vec step(Vec sum, const X& x, const W& w) {
    return Vec::fma(x.second, w.second, Vec::fma(x.first, w.first, sum));
  }
  template <class Place>
  static void prepare_row(const GemmA16Args& a, int64_t row, int64_t padded_k, float* x, const Place& place) {
    float* to = x + row * padded_k;
    for (int64_t k = 0; k < padded_k; ++k) to[place(k)] = rounded_x(a, row, k);
  }
};
