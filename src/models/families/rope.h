// The frequencies of rotary position embeddings under every scaling. Number arithmetic only; any thread.
#pragma once
#include <cstdint>
#include <vector>

#include "models/families/spec.h"

namespace millrace {

struct RopeFrequencies {
  std::vector<double> inv_freq;  // [dims / 2]: radians per position
  double attention_factor = 1;   // multiplies cos and sin
};

// For a whole sequence of `length` tokens (it matters only where rope.depends_on_length()). Formulas: transformers
// 4.46.3, modeling_rope_utils.py. Every step is rounded to float32 as there, so that angles agree at positions far
// beyond 10^5 too; each inv_freq is a float32 value.
// Requires dims even and at least 2 (4 for dynamic), and for longrope dims / 2 short and long factors.
RopeFrequencies rope_frequencies(const Rope& rope, int64_t length);

// Which lengths share their rotation. Up to `limit` tokens (0: any number) all do.
struct RotationLengths {
  enum class Beyond : uint8_t { kEveryLength, kDoublings, kOnce };  // when the rotation changes beyond the limit
  int64_t limit = 0;
  Beyond beyond = Beyond::kEveryLength;

  // Equal for two lengths exactly if their rotation is; 0 up to the limit.
  int64_t group(int64_t length) const;
  // The longest length whose group is that of `length`.
  int64_t last_of_group(int64_t length) const;
};
RotationLengths rotation_lengths(const Rope& rope);

}  // namespace millrace
