#include "report/axis.h"

#include <algorithm>
#include <cmath>

namespace millrace::report {
namespace {

// The smallest of 1, 2, 5 times a power of ten that is at least `value` > 0.
double nice_step(double value) {
  const double decade = std::pow(10, std::floor(std::log10(value)));
  for (double factor : {1.0, 2.0, 5.0})
    if (factor * decade >= value * (1 - 1e-9)) return factor * decade;
  return 10 * decade;
}

// Labels of one axis share their number of decimals; very large and very small values take a power of ten.
std::string label_of(double value, double step) {
  const double size = std::max(std::abs(value), step);
  if (size >= 1e7 || size < 1e-4) return fmt::format("{:.3g}", value);
  const int decimals = std::clamp(-static_cast<int>(std::floor(std::log10(step) + 1e-9)), 0, 8);
  return fmt::format("{:.{}f}", std::abs(value) < step * 1e-6 ? 0 : value, decimals);
}

std::string log_label(double value) {
  return value >= 1e6 || value < 1e-3 ? fmt::format("{:.0e}", value) : fmt::format("{:g}", value);
}

// The nearest of 1, 2, 5 times a power of ten below or above.
double nice_below(double value) {
  const double decade = std::pow(10, std::floor(std::log10(value) + 1e-9));
  for (double factor : {5.0, 2.0})
    if (factor * decade <= value * (1 + 1e-9)) return factor * decade;
  return decade;
}

}  // namespace

std::vector<Tick> linear_ticks(double low, double high, int wanted) {
  std::vector<Tick> ticks;
  if (!(high > low) || wanted < 1) return ticks;
  const double step = nice_step((high - low) / wanted);
  const double slack = step * 1e-6;
  for (int i = 0; i <= 10 * wanted; ++i) {
    const double value = (std::ceil((low - slack) / step) + i) * step;
    if (value > high + slack) break;
    ticks.push_back({value, label_of(value, step)});
  }
  return ticks;
}

std::vector<Tick> log_ticks(double low, double high, int wanted) {
  std::vector<Tick> ticks;
  const int last = static_cast<int>(std::floor(std::log10(high) + 1e-9));
  int first = static_cast<int>(std::ceil(std::log10(low) - 1e-9));
  const int decades = std::max(1, last - first + 1);
  const bool between = 3 * decades <= 2 * wanted;
  const int stride = between ? 1 : std::max(1, (decades + wanted - 1) / std::max(1, wanted));
  if (between) --first;  // its 2 and 5 may lie above `low`
  for (int exponent = first; exponent <= last; exponent += stride)
    for (double factor : {1.0, 2.0, 5.0}) {
      const double value = factor * std::pow(10, exponent);
      if (factor != 1 && !between) continue;
      if (value >= low * (1 - 1e-9) && value <= high * (1 + 1e-9)) ticks.push_back({value, log_label(value)});
    }
  return ticks;
}

Axis::Axis(const AxisSpec& spec, Interval data, bool from_zero, int wanted_ticks)
    : scale_(spec.scale), low_(spec.min.value_or(data.low)), high_(spec.max.value_or(data.high)) {
  if (scale_ == Scale::kLog) {
    if (!(low_ > 0)) low_ = high_ > 0 ? high_ / 1000 : 1;
    if (!(high_ >= low_)) high_ = low_;
    if (!spec.min) low_ = nice_below(low_);
    if (!spec.max) high_ = nice_step(high_);
    if (high_ <= low_) high_ = low_ * 10;
    ticks_ = log_ticks(low_, high_, wanted_ticks);
    return;
  }
  if (from_zero && !spec.min && low_ >= 0) low_ = 0;
  if (!(high_ > low_)) high_ = low_ + std::max(std::abs(low_) * 0.1, low_ == 0 ? 1.0 : 1e-9);
  const double step = nice_step((high_ - low_) / wanted_ticks);
  if (!spec.min) low_ = std::floor(low_ / step + 1e-9) * step;
  if (!spec.max) high_ = std::ceil(high_ / step - 1e-9) * step;
  ticks_ = linear_ticks(low_, high_, wanted_ticks);
}

double Axis::pixel(double value) const {
  const double share =
      scale_ == Scale::kLog ? std::log(value / low_) / std::log(high_ / low_) : (value - low_) / (high_ - low_);
  return from_px_ + share * (to_px_ - from_px_);
}

bool Axis::can_show(double value) const { return std::isfinite(value) && (scale_ == Scale::kLinear || value > 0); }

}  // namespace millrace::report
