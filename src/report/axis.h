// The scale of a chart: values to pixels, and where its ticks stand. Plain data, one thread.
#pragma once
#include <span>
#include <string>
#include <vector>

#include "report/chart.h"

namespace millrace::report {

struct Tick {
  double value = 0;
  std::string label;
};

// Linear ticks at 1, 2 or 5 times a power of ten, about `wanted` of them, within [low, high].
std::vector<Tick> linear_ticks(double low, double high, int wanted);
// Log ticks within [low, high], 0 < low: decades (thinned to about `wanted`), with 2 and 5 between where there is room.
std::vector<Tick> log_ticks(double low, double high, int wanted);

class Axis {
 public:
  // Covers `data` (both finite, low <= high; positive on a log scale), widened to whole ticks where the spec does not
  // fix an end. `from_zero` starts a linear axis of non-negative data at 0.
  Axis(const AxisSpec& spec, Interval data, bool from_zero, int wanted_ticks);
  void place(double from_px, double to_px) { from_px_ = from_px, to_px_ = to_px; }
  double pixel(double value) const;
  // Whether the scale has a place for the value at all: finite, and positive on a log scale.
  bool can_show(double value) const;
  bool within(double value) const { return value >= low_ && value <= high_; }
  double low() const { return low_; }
  double high() const { return high_; }
  std::span<const Tick> ticks() const { return ticks_; }

 private:
  Scale scale_;
  double low_, high_, from_px_ = 0, to_px_ = 1;
  std::vector<Tick> ticks_;
};

}  // namespace millrace::report
