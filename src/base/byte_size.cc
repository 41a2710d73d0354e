#include "base/byte_size.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <string>

#include "base/text.h"

namespace millrace {
namespace {

struct Unit {
  std::string_view name;  // lower case
  double bytes;
};
constexpr Unit kUnits[] = {{"", 1},     {"b", 1},    {"kib", 1024.0}, {"mib", 1048576.0}, {"kb", 1e3},
                           {"mb", 1e6}, {"gb", 1e9}, {"tb", 1e12},    {"gib", 0x1p30},    {"tib", 0x1p40}};

std::string lower(std::string_view text) {
  std::string out(text);
  std::ranges::transform(out, out.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return out;
}

}  // namespace

Result<int64_t> parse_byte_size(std::string_view text) {
  const Status refused = invalid_argument("'{}' is not a size of memory; write 32GiB, 80GB or a number of bytes", text);
  const std::string_view whole = trim(text);
  double number = 0;
  const auto [end, error] =
      std::from_chars(whole.data(), whole.data() + whole.size(), number, std::chars_format::fixed);
  if (error != std::errc()) return refused;
  const std::string unit = lower(trim(whole.substr(static_cast<size_t>(end - whole.data()))));
  const Unit* known = std::ranges::find(kUnits, std::string_view(unit), &Unit::name);
  if (known == std::end(kUnits)) return refused;
  const double bytes = number * known->bytes;
  if (!(bytes >= 1 && bytes < 0x1p60)) return refused;
  return static_cast<int64_t>(bytes);
}

}  // namespace millrace
