// Distribution functions that intervals and tests rest on, in double precision: about 1e-12 absolute for the beta
// function's family, within the sizes of samples met here (up to some 10^8). Pure functions, any thread.
// Source of the incomplete beta function's continued fraction: Abramowitz and Stegun 26.5.8, evaluated after Lentz.
#pragma once
#include <cstdint>

namespace millrace::report {

// I_x(a, b), the regularized incomplete beta function; a > 0, b > 0, 0 <= x <= 1.
double regularized_beta(double a, double b, double x);

double normal_cdf(double z);
// 0 < p < 1
double normal_quantile(double p);

// Student's t with `df` > 0 degrees of freedom, which need not be whole.
double student_t_cdf(double t, double df);
double student_t_quantile(double p, double df);  // 0 < p < 1

// P(B <= k) for B ~ Binomial(n, p); k < 0 gives 0, k >= n gives 1.
double binomial_cdf(int64_t k, int64_t n, double p);

}  // namespace millrace::report
