// Extended grapheme clusters (UAX 29), as ICU cuts them.
#pragma once
#include <functional>
#include <string_view>

#include "base/result.h"

namespace millrace {

// Calls `cluster` for each cluster of `text` (valid UTF-8) in order, or `ascii` for a run of ASCII characters each of
// which is one.
using GraphemeFn = std::function<void(std::string_view)>;
Status for_each_grapheme(std::string_view text, const GraphemeFn& ascii, const GraphemeFn& cluster);

}  // namespace millrace
