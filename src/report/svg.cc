#include "report/svg.h"

#include <fmt/format.h>

#include "base/utf8.h"

namespace millrace::report {
namespace {

bool allowed_in_xml(char32_t c) {
  if (c < 0x20) return c == '\t' || c == '\n' || c == '\r';
  return c != 0x7F && c != 0xFFFE && c != 0xFFFF;
}

std::string theme_rules(const Theme& theme) {
  std::string css = fmt::format(
      ".chart text{{fill:{0}}}.bg{{fill:{1}}}.grid{{stroke:{2}}}.axis{{stroke:{3}}}.limit{{stroke:{4}}}"
      ".chart .limit-name,.chart .bad-text{{fill:{4}}}.cbad{{stroke:{4}}}.fbad{{fill:{4}}}",
      theme.text, theme.background, theme.grid, theme.axis, theme.bad);
  for (int i = 0; i < kSeriesColours; ++i)
    css += fmt::format(".c{0}{{stroke:{1}}}.f{0}{{fill:{1}}}", i, theme.series[i]);
  return css;
}

}  // namespace

const Theme kLightTheme = {"#ffffff",
                           "#1b1f24",
                           "#e4e7eb",
                           "#6b7280",
                           "#c4001a",
                           "#0b7a3b",
                           {"#0062b8", "#c24b00", "#007a5e", "#9a3d86", "#7a6200", "#3d4654", "#a8324e", "#00788f"}};
const Theme kDarkTheme = {"#15181d",
                          "#e6e9ee",
                          "#2c323a",
                          "#8a94a3",
                          "#ff6b6b",
                          "#4cd07d",
                          {"#5cb0ff", "#ff9a52", "#3fcf9f", "#e58ad0", "#e3c04a", "#c3cad5", "#ff8fa6", "#4fd1e6"}};

std::string escape_markup(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const Utf8Char c = utf8_at(text, at);
    at += static_cast<size_t>(c.bytes);
    switch (c.code) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        append_utf8(out, allowed_in_xml(c.code) ? c.code : char32_t{0xFFFD});
    }
  }
  return out;
}

std::string chart_style() {
  return ".chart text{font:12px system-ui,sans-serif}.chart .title{font-size:14px;font-weight:600}"
         ".chart .note{font-size:11px;opacity:.8}.grid,.axis{stroke-width:1;fill:none}"
         ".limit{stroke-width:1.5;stroke-dasharray:7 "
         "4;fill:none}.line{fill:none;stroke-width:1.8;stroke-linejoin:round}"
         ".dashed{stroke-dasharray:7 4}.dotted{stroke-dasharray:1.5 4;stroke-linecap:round}.band{opacity:.18}"
         ".chart .bad-text{font-size:26px;font-weight:700;opacity:.45}" +
         theme_rules(kLightTheme) + "@media(prefers-color-scheme:dark){" + theme_rules(kDarkTheme) + "}";
}

std::string standalone_svg(std::string_view svg) {
  const size_t head = svg.find('>') + 1;
  std::string out = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";
  out.append(svg.substr(0, head));
  out += "<style>" + chart_style() + "</style><rect class=\"bg\" width=\"100%\" height=\"100%\"/>";
  return out.append(svg.substr(head));
}

}  // namespace millrace::report
