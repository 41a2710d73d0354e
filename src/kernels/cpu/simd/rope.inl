// Rotary embedding on Vec.

inline void rotate_halves(float* head, const float* cos, const float* sin, int64_t pairs) {
  for (int64_t i = 0; i < pairs; i += 16) {
    const int64_t n = lanes_left(i, pairs);
    Vec a = Vec::load_n(head + i, n), b = Vec::load_n(head + pairs + i, n);
    rotate(a, b, Vec::load_n(cos + i, n), Vec::load_n(sin + i, n));
    a.store_n(head + i, n);
    b.store_n(head + pairs + i, n);
  }
}

inline void rotate_interleaved(float* head, const float* cos, const float* sin, int64_t pairs) {
  for (int64_t i = 0; i < pairs; i += 16) {
    const int64_t n = lanes_left(i, pairs), low_n = n < 8 ? 2 * n : 16, high_n = 2 * n - low_n;
    float* at = head + 2 * i;
    Vec low = Vec::load_n(at, low_n), high = high_n ? Vec::load_n(at + 16, high_n) : Vec::zero(), a, b;
    Vec::split_pairs(low, high, a, b);
    rotate(a, b, Vec::load_n(cos + i, n), Vec::load_n(sin + i, n));
    Vec::join_pairs(a, b, low, high);
    low.store_n(at, low_n);
    if (high_n) high.store_n(at + 16, high_n);
  }
}

void rope(const RopeArgs& a) {
  const int64_t pairs = a.dims / 2;
  for (int64_t t = 0; t < a.T; ++t)
    for (int64_t h = 0; h < a.heads; ++h) {
      float* head = a.x + t * a.token_stride + h * a.head_dim;
      if (a.interleaved)
        rotate_interleaved(head, a.cos + t * pairs, a.sin + t * pairs, pairs);
      else
        rotate_halves(head, a.cos + t * pairs, a.sin + t * pairs, pairs);
    }
}
