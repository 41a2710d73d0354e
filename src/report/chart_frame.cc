#include "report/chart_frame.h"

#include <algorithm>
#include <cmath>

#include "report/svg.h"
#include "report/text.h"

namespace millrace::report {
namespace {

constexpr double kLegendLine = 18, kRightMargin = 18;

std::string line(double x1, double y1, double x2, double y2, std::string_view css) {
  return fmt::format("<path class=\"{}\" d=\"M{} {}L{} {}\"/>", css, px(x1), px(y1), px(x2), px(y2));
}

std::string text_at(double x, double y, const char* anchor, const std::string& text, std::string_view extra = "") {
  return fmt::format("<text x=\"{}\" y=\"{}\" text-anchor=\"{}\"{}>{}</text>", px(x), px(y), anchor, extra,
                     escape_markup(text));
}

struct Place {
  double x, y;
};
// Legend entries from left to right, wrapped; the last element is the end.
std::vector<Place> legend_places(const std::vector<LegendEntry>& legend, double left, double right) {
  std::vector<Place> places;
  Place at{left, 0};
  for (const LegendEntry& entry : legend) {
    const double width = 40 + text_width_px(entry.name);
    if (at.x + width > right && at.x > left) at = {left, at.y + kLegendLine};
    places.push_back(at);
    at.x += width;
  }
  return places;
}

}  // namespace

std::string px(double value) {
  const double tenths = std::round(value * 10);
  const auto whole = static_cast<int64_t>(tenths / 10);
  const auto rest = static_cast<int64_t>(std::abs(tenths)) % 10;
  if (rest == 0) return std::to_string(whole);
  return fmt::format("{}{}.{}", tenths < 0 && whole == 0 ? "-" : "", whole, rest);
}

std::string colour_class(char kind, int index) { return fmt::format("{}{}", kind, index % kSeriesColours); }

double text_width_px(const std::string& text) { return 6.8 * display_width(text); }

double rounded(double value, int significant) {
  if (value == 0 || !std::isfinite(value)) return value;
  return std::stod(fmt::format("{:.{}g}", value, significant));
}

void Extent::add(double value) {
  if (!std::isfinite(value) || (log_ && value <= 0)) return;
  low_ = std::min(low_, value);
  high_ = std::max(high_, value);
}

ChartFrame::ChartFrame(const ChartSize& size, FrameText text, Axis x, Axis y, bool x_ticks, bool y_ticks)
    : size_(size), text_(std::move(text)), x_(std::move(x)), y_(std::move(y)), x_ticks_(x_ticks), y_ticks_(y_ticks) {
  double labels = 0;
  if (y_ticks_)
    for (const Tick& tick : y_.ticks()) labels = std::max(labels, text_width_px(tick.label));
  left_ = 32 + labels;
  right_ = size_.width - kRightMargin;
  const auto places = legend_places(text_.legend, left_, right_);
  top_ = 34 + (places.empty() ? 0 : places.back().y + kLegendLine);
  bottom_ = size_.height - (text_.note.empty() ? 44 : 58);
  x_.place(left_, right_);
  y_.place(bottom_, top_);
  hover_ = {{"by", "x"}, {"x", text_.x_label}, {"y", text_.y_label}, {"series", Json::array()}};
}

void ChartFrame::draw_axes(std::string& out) const {
  if (y_ticks_)
    for (const Tick& tick : y_.ticks()) {
      out += line(left_, y_.pixel(tick.value), right_, y_.pixel(tick.value), "grid");
      out += text_at(left_ - 6, y_.pixel(tick.value) + 4, "end", tick.label);
    }
  if (x_ticks_)
    for (const Tick& tick : x_.ticks()) {
      out += line(x_.pixel(tick.value), bottom_, x_.pixel(tick.value), bottom_ + 4, "axis");
      out += text_at(x_.pixel(tick.value), bottom_ + 17, "middle", tick.label);
    }
  out += line(left_, bottom_, right_, bottom_, "axis") + line(left_, top_, left_, bottom_, "axis");
  out += text_at((left_ + right_) / 2, bottom_ + 34, "middle", text_.x_label);
  const double middle = (top_ + bottom_) / 2;
  out += text_at(14, middle, "middle", text_.y_label, fmt::format(" transform=\"rotate(-90 14 {})\"", px(middle)));
}

void ChartFrame::draw_legend(std::string& out) const {
  const auto places = legend_places(text_.legend, left_, right_);
  for (size_t i = 0; i < places.size(); ++i) {
    const LegendEntry& entry = text_.legend[i];
    const double x = places[i].x, y = places[i].y + 38;
    if (entry.filled)
      out += fmt::format("<rect class=\"{}\" x=\"{}\" y=\"{}\" width=\"12\" height=\"12\"/>", entry.css, px(x + 6),
                         px(y - 6));
    else
      out += line(x, y, x + 22, y, entry.css);
    out += text_at(x + 27, y + 4, "start", entry.name);
  }
}

void ChartFrame::add_x_label(double px_at, const std::string& text, double room_px) {
  const std::string shown = cut_to_width(text, std::max(1, static_cast<int>(room_px / 6.8)));
  over_ += text_at(px_at, bottom_ + 17, "middle", shown);
}

void ChartFrame::add_limits(const std::vector<Limit>& limits) {
  for (const Limit& limit : limits) {
    const Axis& axis = limit.vertical ? x_ : y_;
    if (!axis.can_show(limit.value) || !axis.within(limit.value)) continue;
    const double at = axis.pixel(limit.value);
    over_ += limit.vertical ? line(at, top_, at, bottom_, "limit") : line(left_, at, right_, at, "limit");
    over_ += limit.vertical ? text_at(at + 4, top_ + 12, "start", limit.name, " class=\"limit-name\"")
                            : text_at(right_ - 4, at - 4, "end", limit.name, " class=\"limit-name\"");
  }
}

void ChartFrame::add_hover(const std::string& name, Json p, Json x, Json y) {
  hover_["series"].push_back({{"n", name}, {"p", std::move(p)}, {"x", std::move(x)}, {"y", std::move(y)}});
}

std::string ChartFrame::note() const {
  std::string note = text_.note;
  if (left_out_ > 0)
    note +=
        fmt::format("{}{} values have no place on these axes and are not drawn", note.empty() ? "" : "; ", left_out_);
  return note;
}

std::string ChartFrame::close() {
  hover_["box"] = {px(left_), px(top_), px(right_), px(bottom_)};
  const bool invalid = !text_.invalid_reason.empty();
  std::string out = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"chart\" viewBox=\"0 0 {0} {1}\" width=\"{0}\" height=\"{1}\" "
      "role=\"img\" aria-label=\"{2}\" data-valid=\"{3}\" data-hover=\"{4}\">",
      size_.width, size_.height, escape_markup(text_.title), !invalid, escape_markup(dump_json(hover_)));
  out += text_at(left_, 20, "start", text_.title, " class=\"title\"");
  draw_legend(out);
  draw_axes(out);
  constexpr double kEdge = 4;  // room for markers on the border
  out +=
      fmt::format("<svg x=\"{0}\" y=\"{1}\" width=\"{2}\" height=\"{3}\" viewBox=\"{0} {1} {2} {3}\">",
                  px(left_ - kEdge), px(top_ - kEdge), px(right_ - left_ + 2 * kEdge), px(bottom_ - top_ + 2 * kEdge));
  out += body_ + "</svg>" + over_;
  const double centre_x = (left_ + right_) / 2, centre_y = (top_ + bottom_) / 2;
  if (empty_) out += text_at(centre_x, centre_y, "middle", "no data");
  if (invalid) out += text_at(centre_x, centre_y - 20, "middle", "INVALID", " class=\"bad-text\"");
  if (invalid) out += "<desc>INVALID: " + escape_markup(text_.invalid_reason) + "</desc>";
  if (!note().empty()) out += text_at(right_, size_.height - 6, "end", note(), " class=\"note\"");
  return out + "</svg>";
}

}  // namespace millrace::report
