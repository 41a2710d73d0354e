#include "data/lengths.h"

#include <algorithm>
#include <cmath>

namespace millrace::data {

Status check_spread(const LengthSpread& s, std::string_view what) {
  if (s.min < 1 || s.max < s.min || s.max > (int64_t{1} << 24))
    return invalid_argument("{} lengths from {} to {} are no range of 1 to 16777216 tokens", what, s.min, s.max);
  if (!(s.avg >= static_cast<double>(s.min) && s.avg <= static_cast<double>(s.max)))
    return invalid_argument("the average {} length {} is not between {} and {}", what, s.avg, s.min, s.max);
  if (!(s.std >= 0))
    return invalid_argument("the standard deviation of the {} lengths is {}; 0 or more is wanted", what, s.std);
  return {};
}

namespace {

int64_t draw(const LengthSpread& s, Random& random) {
  constexpr int kTries = 1000;  // the range holds the average, so this many misses do not happen unless it is a point
  for (int i = 0; i < kTries; ++i) {
    const double value = std::round(s.avg + s.std * static_cast<double>(random.normal()));
    if (value >= static_cast<double>(s.min) && value <= static_cast<double>(s.max)) return static_cast<int64_t>(value);
  }
  return std::clamp(static_cast<int64_t>(std::round(s.avg)), s.min, s.max);
}

}  // namespace

std::vector<int64_t> draw_lengths(const LengthSpread& spread, int64_t count, Random& random) {
  std::vector<int64_t> lengths(static_cast<size_t>(std::max<int64_t>(count, 0)));
  for (int64_t& length : lengths) length = draw(spread, random);
  return lengths;
}

}  // namespace millrace::data
