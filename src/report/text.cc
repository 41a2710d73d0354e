#include "report/text.h"

#include <unicode/uchar.h>

#include <algorithm>
#include <cmath>

#include "base/text.h"
#include "base/utf8.h"

namespace millrace::report {
namespace {

bool is_bidi_control(char32_t c) { return (c >= 0x202A && c <= 0x202E) || (c >= 0x2066 && c <= 0x2069); }

int character_width(char32_t code) {
  if (code < 0x7F) return code >= 0x20 ? 1 : 0;
  const auto c = static_cast<UChar32>(code);
  const int type = u_charType(c);
  if (type == U_NON_SPACING_MARK || type == U_ENCLOSING_MARK || type == U_FORMAT_CHAR || type == U_CONTROL_CHAR)
    return 0;
  const int width = u_getIntPropertyValue(c, UCHAR_EAST_ASIAN_WIDTH);
  return width == U_EA_WIDE || width == U_EA_FULLWIDTH ? 2 : 1;
}

std::string escape_of(char32_t c) {
  if (c == '\n') return "\\n";
  if (c == '\r') return "\\r";
  if (c == '\t') return "\\t";
  return c < 0x100 ? fmt::format("\\x{:02x}", static_cast<uint32_t>(c))
                   : fmt::format("\\u{:04x}", static_cast<uint32_t>(c));
}

}  // namespace

int display_width(std::string_view text) {
  int width = 0;
  for (size_t at = 0; at < text.size();) {
    const Utf8Char c = utf8_at(text, at);
    width += character_width(c.code);
    at += static_cast<size_t>(c.bytes);
  }
  return width;
}

std::string printable(std::string_view text) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const Utf8Char c = utf8_at(text, at);
    at += static_cast<size_t>(c.bytes);
    if (c.code < 0x20 || (c.code >= 0x7F && c.code < 0xA0) || is_bidi_control(c.code))
      out += escape_of(c.code);
    else
      append_utf8(out, c.code);
  }
  return out;
}

std::string cut_to_width(std::string_view text, int width) {
  if (display_width(text) <= width) return std::string(text);
  if (width < 1) return "";
  int used = 1;
  size_t at = 0;
  while (at < text.size()) {
    const Utf8Char c = utf8_at(text, at);
    if (used + character_width(c.code) > width) break;
    used += character_width(c.code);
    at += static_cast<size_t>(c.bytes);
  }
  return std::string(text.substr(0, at)) + "…";
}

std::string format_number(double value, int significant) {
  if (std::isnan(value)) return "n/a";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  if (value == 0) return "0";
  const double size = std::abs(value);
  if (size >= 1e9 || size < 1e-6) return fmt::format("{:.{}e}", value, significant - 1);
  const int decimals = std::max(0, significant - 1 - static_cast<int>(std::floor(std::log10(size))));
  const std::string text = fmt::format("{:.{}f}", value, decimals);
  return decimals == 0 ? format_count(std::llround(value)) : text;
}

std::string format_with_interval(double value, const std::optional<Interval>& interval, int significant) {
  if (!interval) return format_number(value, significant) + " [?]";
  return fmt::format("{} [{}, {}]", format_number(value, significant), format_number(interval->low, significant),
                     format_number(interval->high, significant));
}

std::string progress_bar(double share, int width) {
  static constexpr const char* kParts[] = {" ", "▏", "▎", "▍", "▌", "▋", "▊", "▉", "█"};
  const double filled = std::clamp(std::isnan(share) ? 0 : share, 0.0, 1.0) * width;
  std::string bar;
  for (int i = 0; i < width; ++i) bar += kParts[static_cast<int>(std::clamp(filled - i, 0.0, 1.0) * 8)];
  return bar;
}

std::string sparkline(std::span<const double> values, int width) {
  static constexpr const char* kHeights[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
  if (values.size() > static_cast<size_t>(width)) values = values.last(static_cast<size_t>(width));
  double top = 0;
  for (double value : values)
    if (std::isfinite(value)) top = std::max(top, value);
  std::string line;
  for (double value : values) {
    if (!std::isfinite(value) || value < 0)
      line += " ";
    else
      line += kHeights[top == 0 ? 0 : std::lround(value / top * 7)];
  }
  return line;
}

}  // namespace millrace::report
