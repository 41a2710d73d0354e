// Passes over one row of logits [V]: what greedy choice, sampling and log-probabilities are made of. One thread each;
// rows are independent. Minus infinity is a banned token; NaN counts as minus infinity.
#pragma once
#include <cstdint>
#include <span>

#include "kernels/impl.h"

namespace millrace {

// One implementation of all passes.
struct LogitKernels {
  // The largest value; minus infinity where there is none.
  float (*largest)(const float* x, int64_t n);
  // The lowest index whose value equals `value`; n where none does.
  int64_t (*find)(const float* x, int64_t n, float value);
  // Sum of e^(x[i] - shift), in blocks of float32 added up in double. shift is finite.
  double (*sum_exp)(const float* x, int64_t n, float shift);
  // How many values are larger than `bound`.
  int64_t (*count_larger)(const float* x, int64_t n, float bound);
  // Indices, rising, of values >= bound from `from` on; stops when `most` were found. Returns how many; *next is where
  // the scan stopped.
  int64_t (*collect)(const float* x, int64_t n, float bound, int64_t from, int32_t* indices, int64_t most,
                     int64_t* next);
  // to[i] = e^(x[i] - shift); 0 where x[i] is minus infinity. shift is finite.
  void (*exps)(const float* x, int64_t n, float shift, float* to);
  // x[i] *= factor.
  void (*scale)(float* x, int64_t n, float factor);
  // Values that are not at least `bound` become minus infinity.
  void (*ban_below)(float* x, int64_t n, float bound);
  // Sum of terms[i] where x[i] >= bound, in blocks of float32 added up in double.
  double (*sum_from)(const float* x, const float* terms, int64_t n, float bound);
  // bits[i]: word (first + i) % 4 of philox(seed, (first + i) / 4, position) (base/random.h). first and n are multiples
  // of 64.
  void (*noise)(uint64_t seed, uint64_t position, int64_t first, int64_t n, uint32_t* bits);
};
const LogitKernels& logit_kernels();
struct LogitImpl {
  std::string_view name;
  Isa needs;
  LogitKernels kernels;
};
std::span<const LogitImpl> logit_impls();

}  // namespace millrace
