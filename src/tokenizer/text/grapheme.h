// Extended grapheme clusters (UAX 29), as ICU cuts them.
#pragma once
#include <functional>
#include <string_view>

#include "base/result.h"

namespace millrace {

// Calls `fn` for each cluster of `text` (valid UTF-8) in order.
Status for_each_grapheme(std::string_view text, const std::function<void(std::string_view)>& fn);

}  // namespace millrace
