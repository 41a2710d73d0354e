// Base64 with padding (RFC 4648).
#pragma once
#include <optional>
#include <string>
#include <string_view>

namespace millrace {
// Nothing if a character or the padding is wrong.
std::optional<std::string> decode_base64(std::string_view text);
}  // namespace millrace
