#include "bench/arrivals.h"

#include <cmath>

#include "base/random.h"

namespace millrace::bench {
namespace {

// Mean 1.
double gamma_gap(double shape, Random& random) {
  if (shape < 1) {  // Gamma(b) = Gamma(b + 1) U^(1/b)
    const double boosted = gamma_gap(shape + 1, random) * (shape + 1);
    return boosted * std::pow(static_cast<double>(random.uniform()), 1 / shape) / shape;
  }
  const double d = shape - 1.0 / 3, c = 1 / std::sqrt(9 * d);
  while (true) {
    const double x = random.normal(), v = std::pow(1 + c * x, 3);
    if (v <= 0) continue;
    if (std::log(static_cast<double>(random.uniform())) < 0.5 * x * x + d - d * v + d * std::log(v))
      return d * v / shape;
  }
}

double gap(const Arrivals& arrivals, Random& random) {
  switch (arrivals.kind) {
    case ArrivalKind::kConstant:
      return 1;
    case ArrivalKind::kExponential:
      return -std::log(static_cast<double>(random.uniform()));
    default:
      return gamma_gap(arrivals.burstiness, random);
  }
}

bool is_ramp(const Arrivals& a) {
  return a.kind == ArrivalKind::kRampLinear || a.kind == ArrivalKind::kRampExponential;
}

double rate_at(const Arrivals& a, int64_t tick, int64_t ticks) {
  if (!is_ramp(a)) return a.rate;
  const double share = ticks > 1 ? static_cast<double>(tick) / static_cast<double>(ticks - 1) : 0;
  if (a.kind == ArrivalKind::kRampLinear) return a.start_rate + (a.end_rate - a.start_rate) * share;
  return a.start_rate * std::pow(a.end_rate / a.start_rate, share);
}

Status check(const Arrivals& a) {
  if (is_ramp(a) ? !(a.start_rate > 0 && a.end_rate > 0) : !(a.rate > 0))
    return invalid_argument("a request rate must be above 0 per second");
  if (!(a.burstiness > 0)) return invalid_argument("the burstiness must be above 0; it is {}", a.burstiness);
  if (a.per_tick < 1) return invalid_argument("each arrival must bring at least one request");
  return {};
}

}  // namespace

Result<std::vector<double>> arrival_times(const Arrivals& arrivals, int64_t requests, uint64_t seed) {
  MR_RETURN_IF_ERROR(check(arrivals));
  std::vector<double> times(static_cast<size_t>(requests), 0.0);
  if (!is_ramp(arrivals) && std::isinf(arrivals.rate)) return times;
  Random random(seed);
  const int64_t ticks = (requests + arrivals.per_tick - 1) / arrivals.per_tick;
  double now = 0;
  for (int64_t tick = 0; tick < ticks; ++tick) {
    now += gap(arrivals, random) / rate_at(arrivals, tick, ticks);
    for (int64_t i = tick * arrivals.per_tick; i < std::min(requests, (tick + 1) * arrivals.per_tick); ++i)
      times[static_cast<size_t>(i)] = now;
  }
  if (is_ramp(arrivals) || now == 0) return times;
  const double scale = static_cast<double>(ticks) / arrivals.rate / now;
  for (double& time : times) time *= scale;
  return times;
}

}  // namespace millrace::bench
