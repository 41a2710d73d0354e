// Request lengths drawn from a normal distribution that is cut off at both ends. Any thread.
#pragma once
#include <cstdint>
#include <string_view>
#include <vector>

#include "base/random.h"
#include "base/result.h"

namespace millrace::data {

struct LengthSpread {
  int64_t min = 1, max = 1;
  double avg = 1, std = 0;  // of the normal before it is cut
};
// `what` names the lengths in errors ("input"). kInvalidArgument unless 1 <= min <= avg <= max and std >= 0.
Status check_spread(const LengthSpread& spread, std::string_view what);
// `count` whole numbers in [min, max]; draws outside are drawn again. Needs a checked spread.
std::vector<int64_t> draw_lengths(const LengthSpread& spread, int64_t count, Random& random);

}  // namespace millrace::data
