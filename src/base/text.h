// Small helpers on names and numbers in messages.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace millrace {

// The candidate nearest to `name` by edit distance, if it is near enough to be what was meant; else "".
std::string nearest_name(std::string_view name, std::span<const std::string> candidates);
// "; did you mean 'x'?" or "".
std::string did_you_mean(std::string_view name, std::span<const std::string> candidates);
std::vector<std::string> split(std::string_view text, char separator);
std::string_view trim(std::string_view text);
// 1536 -> "1.5 KiB"
std::string format_bytes(int64_t bytes);
// 1234567 -> "1,234,567"
std::string format_count(int64_t count);

}  // namespace millrace
