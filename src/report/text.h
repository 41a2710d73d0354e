// Text of any origin made fit for a terminal: columns counted, control characters shown instead of obeyed.
// Text is UTF-8; invalid bytes count and print as U+FFFD. Pure functions, any thread.
#pragma once
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "report/statistics.h"

namespace millrace::report {

// Columns a terminal gives to `text`: 2 for East Asian wide and full-width characters and emoji, 0 for combining marks
// and joiners, 1 for others. Sequences joined by U+200D count as their parts.
int display_width(std::string_view text);
// Control characters, line breaks and bidirectional overrides written as \n, \x1b or \u202e; the rest unchanged.
std::string printable(std::string_view text);
// At most `width` columns of `text`; what is cut ends in "…" (which needs one column).
std::string cut_to_width(std::string_view text, int width);

// 1234.5678 -> "1,235"; 12.345678 -> "12.35"; 0.0012345 -> "0.001234"; 1.5e9 -> "1.500e+09"; NaN -> "n/a".
std::string format_number(double value, int significant = 4);
// "12.35 [11.90, 12.80]"; without an interval "12.35 [?]".
std::string format_with_interval(double value, const std::optional<Interval>& interval, int significant = 4);

// A bar `width` columns long of which `share` (0 to 1) is filled, in eighths of a column.
std::string progress_bar(double share, int width);
// One character per value, its height relative to the largest; the last `width` values. NaN and negative are blank.
std::string sparkline(std::span<const double> values, int width);

}  // namespace millrace::report
