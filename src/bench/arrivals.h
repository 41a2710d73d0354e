// When the requests of an open loop are due. Pure functions of their arguments; gaps are drawn from `seed`.
// Gamma gaps: shape b, scale 1/(rate b), so the mean is 1/rate and the coefficient of variation 1/sqrt(b); b = 1 is the
// exponential (Poisson) process, b -> infinity a constant gap. Sampling: Marsaglia and Tsang, 2000.
#pragma once
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "base/result.h"

namespace millrace::bench {

enum class ArrivalKind { kExponential, kConstant, kGamma, kRampLinear, kRampExponential };

struct Arrivals {
  ArrivalKind kind = ArrivalKind::kExponential;
  double rate = std::numeric_limits<double>::infinity();  // per second; infinity: all at 0
  double burstiness = 1;                                  // kGamma and the ramps
  double start_rate = 0, end_rate = 0;                    // ramps: over the request index
  int64_t per_tick = 1;                                   // so many requests at each arrival
};

// Rising seconds from the start. Except for ramps the whole is scaled so that the last tick is exactly at
// ticks / rate: no drift between seeds. kInvalidArgument for rates that are not above 0.
Result<std::vector<double>> arrival_times(const Arrivals& arrivals, int64_t requests, uint64_t seed);

}  // namespace millrace::bench
