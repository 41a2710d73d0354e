// What every drawing shares: escaping, colours of both themes, the style sheet. Pure functions, any thread.
#pragma once
#include <string>
#include <string_view>

namespace millrace::report {

// Text for XML and HTML content and attributes: & < > " ' escaped, characters XML forbids and invalid UTF-8 replaced by
// U+FFFD.
std::string escape_markup(std::string_view text);

// Series colours, chosen to be told apart with the common colour blindnesses and to keep a contrast of at least 3:1
// (WCAG 2.1, 1.4.11) with the background of their theme. More series than colours take them again from the first.
struct Theme {
  const char *background, *text, *grid, *axis, *bad, *good;
  const char* series[8];
};
inline constexpr int kSeriesColours = 8;
extern const Theme kLightTheme, kDarkTheme;

// CSS for charts: classes c0..c7 (strokes), f0..f7 (fills) and those of axes and text, light, and dark where the reader
// prefers it.
std::string chart_style();
// A chart as a file of its own: with style sheet and background.
std::string standalone_svg(std::string_view svg);

}  // namespace millrace::report
