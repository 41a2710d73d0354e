#include "kernels/logits.h"

#include "kernels/cpu/rows.h"

namespace millrace {

std::span<const LogitImpl> logit_impls() {
  static const LogitImpl impls[] = {{"avx512", Isa::kAvx512, avx512::logit_kernels()},
                                    {"avx2", Isa::kAvx2, avx2::logit_kernels()},
                                    {"portable", Isa::kPortable, portable::logit_kernels()}};
  return impls;
}

const LogitKernels& logit_kernels() {
  static const LogitKernels& kernels = []() -> const LogitKernels& {
    for (const LogitImpl& impl : logit_impls())
      if (cpu_has(impl.needs)) return impl.kernels;
    return logit_impls().back().kernels;
  }();
  return kernels;
}

}  // namespace millrace
