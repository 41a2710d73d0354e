#include "report/distributions.h"

#include <cmath>
#include <functional>
#include <limits>
#include <numbers>

namespace millrace::report {
namespace {

double away_from_zero(double value) { return std::abs(value) < 1e-300 ? 1e-300 : value; }

// The continued fraction of I_x(a, b); converges fast for x < (a + 1) / (a + b + 2).
double beta_fraction(double a, double b, double x) {
  double c = 1, d = 1 / away_from_zero(1 - (a + b) * x / (a + 1)), product = d;
  for (int m = 1; m < 100000; ++m) {
    const double even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
    d = 1 / away_from_zero(1 + even * d);
    c = away_from_zero(1 + even / c);
    product *= c * d;
    const double odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
    d = 1 / away_from_zero(1 + odd * d);
    c = away_from_zero(1 + odd / c);
    const double step = c * d;
    product *= step;
    if (std::abs(step - 1) < 1e-15) break;
  }
  return product;
}

// Where a rising function reaches `wanted`, by bisection between `low` and `high`.
double solve_rising(const std::function<double(double)>& f, double wanted, double low, double high) {
  for (int i = 0; i < 200 && low < high; ++i) {
    const double middle = low + (high - low) / 2;
    if (middle == low || middle == high) break;
    (f(middle) < wanted ? low : high) = middle;
  }
  return low + (high - low) / 2;
}

// The same for a distribution function symmetric about 0: the upper half is searched, doubling until it is bracketed.
double symmetric_quantile(const std::function<double(double)>& cdf, double p) {
  if (p == 0.5) return 0;
  const double upper = p > 0.5 ? p : 1 - p;
  double high = 1;
  while (cdf(high) < upper && high < 1e300) high *= 2;
  const double value = solve_rising(cdf, upper, 0, high);
  return p > 0.5 ? value : -value;
}

}  // namespace

double regularized_beta(double a, double b, double x) {
  if (x <= 0) return 0;
  if (x >= 1) return 1;
  const double log_front = std::lgamma(a + b) - std::lgamma(a) - std::lgamma(b) + a * std::log(x) + b * std::log1p(-x);
  if (x < (a + 1) / (a + b + 2)) return std::exp(log_front) * beta_fraction(a, b, x) / a;
  return 1 - std::exp(log_front) * beta_fraction(b, a, 1 - x) / b;
}

double normal_cdf(double z) { return 0.5 * std::erfc(-z / std::numbers::sqrt2); }

double normal_quantile(double p) { return symmetric_quantile(normal_cdf, p); }

double student_t_cdf(double t, double df) {
  const double tail = 0.5 * regularized_beta(df / 2, 0.5, df / (df + t * t));
  return t > 0 ? 1 - tail : tail;
}

double student_t_quantile(double p, double df) {
  return symmetric_quantile([df](double t) { return student_t_cdf(t, df); }, p);
}

double binomial_cdf(int64_t k, int64_t n, double p) {
  if (k < 0) return 0;
  if (k >= n) return 1;
  return regularized_beta(static_cast<double>(n - k), static_cast<double>(k + 1), 1 - p);
}

}  // namespace millrace::report
