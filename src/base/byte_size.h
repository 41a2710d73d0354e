// Sizes of memory as people write them. Any thread.
#pragma once
#include <cstdint>
#include <string_view>

#include "base/result.h"

namespace millrace {

// "32GiB", "1.5 TiB", "80GB" (10^9), "4096": a number, then B, KiB, MiB, GiB, TiB, kB, MB, GB, TB (upper or lower case)
// or nothing for bytes. The size is at least 1 and less than 2^60. kInvalidArgument otherwise.
Result<int64_t> parse_byte_size(std::string_view text);

}  // namespace millrace
