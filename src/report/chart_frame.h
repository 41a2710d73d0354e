// What charts share, inside report/ only: title, legend, axes, limits, the plot area and the values for the pointer.
// Usage: give the frame its axes, open(), append shapes to body() in pixels of map x() and y(), close().
#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/json.h"
#include "report/axis.h"
#include "report/chart.h"

namespace millrace::report {

struct LegendEntry {
  std::string name;
  std::string css;      // classes of the sample
  bool filled = false;  // a square instead of a line
};
// The widest interval of values that an axis can show; starts empty.
class Extent {
 public:
  explicit Extent(const AxisSpec& spec) : log_(spec.scale == Scale::kLog) {}
  void add(double value);
  bool empty() const { return low_ > high_; }
  Interval interval() const { return empty() ? Interval{log_ ? 1.0 : 0.0, log_ ? 10.0 : 1.0} : Interval{low_, high_}; }

 private:
  bool log_;
  double low_ = 1e308, high_ = -1e308;
};

struct FrameText {
  std::string title, x_label, y_label, note, invalid_reason;
  std::vector<LegendEntry> legend;
};

class ChartFrame {
 public:
  // Axes are placed inside; `y_ticks` false leaves the y axis without numbers and grid.
  ChartFrame(const ChartSize& size, FrameText text, Axis x, Axis y, bool x_ticks = true, bool y_ticks = true);
  const Axis& x() const { return x_; }
  const Axis& y() const { return y_; }
  double left() const { return left_; }
  double right() const { return right_; }
  double top() const { return top_; }
  double bottom() const { return bottom_; }
  std::string& body() { return body_; }
  // A text below the x axis, for charts without x ticks.
  void add_x_label(double px, const std::string& text, double room_px);
  void add_limits(const std::vector<Limit>& limits);
  // Values under the pointer: p are pixels along x (or y when by_y), x and y what is read out.
  void add_hover(const std::string& name, Json p, Json x, Json y);
  void hover_by_y() { hover_["by"] = "y"; }
  void count_left_out(int64_t count) { left_out_ += count; }
  void set_empty() { empty_ = true; }
  std::string close();

 private:
  void draw_axes(std::string& out) const;
  void draw_legend(std::string& out) const;
  std::string note() const;
  ChartSize size_;
  FrameText text_;
  Axis x_, y_;
  bool x_ticks_, y_ticks_, empty_ = false;
  double left_ = 0, right_ = 0, top_ = 0, bottom_ = 0;
  int64_t left_out_ = 0;
  std::string body_, over_;
  Json hover_;
};

// "12.3" with at most one decimal
std::string px(double value);
std::string colour_class(char kind, int index);  // 'c' stroke, 'f' fill
double text_width_px(const std::string& text);   // an estimate at 12 px
double rounded(double value, int significant = 5);

}  // namespace millrace::report
