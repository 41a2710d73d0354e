// What products of tiles share whatever their weights are: rows of gated y, and a product as a whole, alone or as one
// of many. After simd/activations.inl.

// Up to sixteen columns of a plain product's y, which the product becomes or is added to.
class PlainRows {
 public:
  template <class Args>
  PlainRows(const Args& a, int64_t column)
      : y_(a.y + column),
        stride_(a.y_stride),
        lanes_(lanes_below(a.N - column)),
        adds_(a.add_scale != 0),
        scale_(Vec::set(a.add_scale)) {}
  inline __attribute__((always_inline)) void fetch(int64_t row) const { __builtin_prefetch(y_ + row * stride_, 1); }
  void store(int64_t row, Vec value) const {
    float* y = y_ + row * stride_;
    if (adds_) value = Vec::fma(scale_, value, {_mm512_maskz_loadu_ps(lanes_, y)});
    _mm512_mask_storeu_ps(y, lanes_, value.v);
  }

 private:
  float* const y_;
  const int64_t stride_;
  const __mmask16 lanes_;
  const bool adds_;
  const Vec scale_;
};

// Of sixteen columns, or what is there of them.
template <class Args>
Vec bias_at(const Args& a, int64_t column) {
  return a.bias && column < a.N ? Vec::load_n(a.bias + column, lanes_left(column, a.N)) : Vec::zero();
}

// The same from float32 sums, which get their bias.
class PlainColumns {
 public:
  template <class Args>
  PlainColumns(const Args& a, int64_t column) : bias_(bias_at(a, column)), rows_(a, column) {}
  inline __attribute__((always_inline)) void fetch(int64_t row) const { rows_.fetch(row); }
  void store(int64_t row, Vec sums) const { rows_.store(row, sums + bias_); }
  void store(int64_t row, const std::byte* sums) const { store(row, Vec::load(reinterpret_cast<const float*>(sums))); }

 private:
  const Vec bias_;
  const PlainRows rows_;
};

// Sixteen columns of a gated product's y, from `column` on.
class GatedRows {
 public:
  template <class Gated>
  GatedRows(const Gated& gated, int64_t column)
      : rounds_(gated.y_dtype == DType::kBf16),
        y_(static_cast<std::byte*>(gated.y) + column * dtype_bytes(gated.y_dtype)),
        stride_(gated.y_stride * dtype_bytes(gated.y_dtype)) {}
  inline __attribute__((always_inline)) void fetch(int64_t row) const { __builtin_prefetch(y_ + row * stride_, 1); }
  void store(int64_t row, Vec value) const {
    std::byte* y = y_ + row * stride_;
    if (rounds_)
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(y), reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(value.v)));
    else
      value.store(reinterpret_cast<float*>(y));
  }

 private:
  const bool rounds_;
  std::byte* const y_;
  const int64_t stride_;  // bytes
};

// Gated outputs on their way.
template <class Act>
struct GatedStages {
  struct Begun {
    Vec gate, up;
  };
  struct Half {
    Vec gate, up, begun;
  };
  static inline __attribute__((always_inline)) void carry_on(const Begun& b, Half& to) {
    to.gate = b.gate, to.up = b.up, to.begun = begin_of<Act>(b.gate);
  }
  static inline __attribute__((always_inline)) Vec output(const Half& h) { return end_of<Act>(h.gate, h.begun) * h.up; }
};

// Two of every lane, to a line of bf16.
template <class Act>
struct GatedLine {
  using One = GatedStages<Act>;
  struct Begun {
    typename One::Begun first, second;
  };
  struct Half {
    typename One::Half first, second;
  };
  static inline __attribute__((always_inline)) void carry_on(const Begun& b, Half& to) {
    One::carry_on(b.first, to.first), One::carry_on(b.second, to.second);
  }
  static inline __attribute__((always_inline)) __m512i line(const Half& h) {
    return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(One::output(h.second).v, One::output(h.first).v));
  }
};

// What the sums of a pair of panels become: a gate and its up.
template <class Act>
class GatedPairs {
 public:
  template <class Job>
  GatedPairs(const Job& job, int64_t pair) : rows_(*job.gates, pair * 16) {}
  inline __attribute__((always_inline)) void fetch(int64_t row) const { rows_.fetch(row); }
  void store(int64_t row, Vec gate, Vec up) const { rows_.store(row, Act::apply(gate) * up); }

 private:
  const GatedRows rows_;
};

// The same of halves of a head of queries, keys or values.
class HeadPairs {
 public:
  template <class Job>
  HeadPairs(const Job& job, int64_t pair) : HeadPairs(*job.a->heads, pair / job.apart, pair % job.apart * 16) {}
  inline __attribute__((always_inline)) void fetch(int64_t row) const {
    __builtin_prefetch(to_ + row * stride_, 1);
    if (!is_query_) __builtin_prefetch(to_ + row * stride_ + 4 * half_, 1);
  }
  void store(int64_t row, Vec low, Vec high) const {
    if (turns_) rotate(low, high, Vec::load(cos_ + row * half_), Vec::load(sin_ + row * half_));
    std::byte* const to = to_ + row * stride_;
    if (is_query_) return _mm512_storeu_si512(to, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high.v, low.v)));
    low.store(reinterpret_cast<float*>(to));
    high.store(reinterpret_cast<float*>(to) + half_);
  }

 private:
  // Sixteen elements from `at` on of either half.
  HeadPairs(const RotatedHeads& heads, int64_t head, int64_t at)
      : half_(heads.head_dim / 2),
        is_query_(head < heads.q_heads),
        turns_(head < heads.q_heads + heads.kv_heads),
        cos_(heads.cos + at),
        sin_(heads.sin + at),
        to_(is_query_ ? reinterpret_cast<std::byte*>(heads.q + head * 2 * half_ + query_place(at, 2 * half_))
                      : reinterpret_cast<std::byte*>(heads.kv + (head - heads.q_heads) * 2 * half_ + at)),
        stride_(is_query_ ? heads.q_stride * 2 : heads.kv_stride * 4) {}

  const int64_t half_;  // of a head
  const bool is_query_, turns_;
  const float *const cos_, *const sin_;
  std::byte* const to_;
  const int64_t stride_;  // bytes
};

// `Kind`: Args and Gated, the product's and the gated product's arguments; Job(const Args&, const Gated* or null);
// PlainEnds, PairEnds<GatedPairs<Act> or HeadPairs> and PackedEnds<Act> (products.h).
template <class Kind>
struct Products {
  using Job = typename Kind::Job;
  using Plain = typename Kind::Args;
  using Gated = typename Kind::Gated;

  static Job job_of(const Plain& a) { return Job(a, nullptr); }
  static Job job_of(const Gated& gated) { return Job(gated.product, &gated); }

  // run.operator()<Ends>(job) with the Ends of the arguments.
  template <class Run>
  static void with_ends(const Plain& a, const Run& run) {
    run.template operator()<typename Kind::PlainEnds>(job_of(a));
  }
  template <class Run>
  static void with_ends(const Gated& gated, const Run& run) {
    with_activation(gated.activation, gated.y_dtype, [&]<class Act>() {
      run.template operator()<typename Kind::template PairEnds<GatedPairs<Act>>>(job_of(gated));
    });
  }

  template <class Args>
  static void run_alone(const Args& args) {
    with_ends(args, []<class Ends>(const Job& job) { multiply<Job, Ends>(job); });
  }
  // To heads: many rows.
  static void run_rotated(const Plain& a) {
    multiply_thick<Job, typename Kind::template PairEnds<HeadPairs>>(job_of(a));
  }
  // To packed_y: many rows.
  static void run_packed(const Gated& gated) {
    with_activation(gated.activation, gated.y_dtype,
                    [&]<class Act>() { multiply_thick<Job, typename Kind::template PackedEnds<Act>>(job_of(gated)); });
  }

  template <class Args>
  static void run_step(const Args& args, int64_t item, std::byte* own) {
    with_ends(args, [&]<class Ends>(const Job& job) { run_item<Job, Ends>(job, item, own); });
  }
  template <class Args>
  static constexpr GemmSteps<Args> kSteps{
      .preparations = [](const Args& args) { return job_of(args).tile_rows; },
      .prepare = [](const Args& args, int64_t i) { pack_tile_row(job_of(args), i); },
      .items = [](const Args& args) { return items_of(job_of(args)); },
      .run = run_step<Args>,
      .own_bytes = Job::kOwn};

  template <class Grouped>
  static void run_many(const Grouped& a) {
    using Args = typename decltype(a.products)::value_type;
    run_grouped(a.products, a.scratch, kSteps<Args>);
  }
};

// Whether a pair's gates would share a panel with ups.
constexpr bool is_ragged(int64_t N) { return N % 32 != 0; }
template <class Gated>
bool is_ragged(const Gated& gated) {
  return is_ragged(gated.product.N);
}
// Whether a gated product's outputs [M, N/2] can stay packed.
constexpr bool gated_packs(int64_t M, int64_t N) { return !is_thin(M) && !is_ragged(N); }
template <class Gated>
bool any_ragged(std::span<Gated> gated) {
  return std::any_of(gated.begin(), gated.end(), is_ragged<Gated>);
}
