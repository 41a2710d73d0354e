// The implementations of row operations, for the lists in kernels/*.cc.
#pragma once
#include "kernels/cast_rows.h"
#include "kernels/expert_rows.h"
#include "kernels/glu.h"
#include "kernels/logits.h"
#include "kernels/norm.h"
#include "kernels/rope.h"

#define MILLRACE_ROW_OPERATIONS(isa)         \
  namespace millrace::isa {                  \
  void rms_norm(const NormArgs&);            \
  void layer_norm(const NormArgs&);          \
  void rope(const RopeArgs&);                \
  void glu(const GluArgs&);                  \
  void combine_rows(const CombineRowsArgs&); \
  void cast_rows(const CastRowsArgs&);       \
  LogitKernels logit_kernels();              \
  }
MILLRACE_ROW_OPERATIONS(portable)
MILLRACE_ROW_OPERATIONS(avx2)
MILLRACE_ROW_OPERATIONS(avx512)
#undef MILLRACE_ROW_OPERATIONS

namespace millrace::portable {
// LogitKernels::contenders.
int64_t contenders(const float* x, int64_t n, float best, const NoiseKey& key, int64_t from, int32_t* indices,
                   uint32_t* bits, int64_t most, int64_t* next);
}  // namespace millrace::portable
