// Rows of x in blocks: the dwords of a block's rows lie beside each other, so that a tile reads x front to back.

// Where a block begins, `row` rows of x lie before it.
struct RowBlocks {
  int64_t width_at(int64_t row) const { return std::min(width, rows - row); }
  int64_t count() const { return rows > 0 ? (rows + width - 1) / width : 0; }
  int64_t rows, width;
};

// run<kRows>() for the multiple of kUnit that `rows` is, at most kMost.
template <int kMost, int kUnit, class Run>
inline void with_rows(int64_t rows, const Run& run) {
  [&]<int... kIndex>(std::integer_sequence<int, kIndex...>) {
    (void)((rows == (kIndex + 1) * kUnit && (run.template operator()<(kIndex + 1) * kUnit>(), true)) || ...);
  }
  (std::make_integer_sequence<int, kMost / kUnit>());
}
