// One operation, several implementations: an ordered list, fastest first, the portable definition last. The first one
// that this machine may run (cpu_has) is taken once; tests and benchmarks walk the whole list.
#pragma once
#include <span>
#include <string_view>

#include "base/check.h"
#include "base/cpu.h"

namespace millrace {

template <class Fn>
struct Impl {
  std::string_view name;
  Isa needs;
  Fn* run;
};

template <class Fn>
Fn* best_impl(std::span<const Impl<Fn>> impls) {
  for (const Impl<Fn>& impl : impls)
    if (cpu_has(impl.needs)) return impl.run;
  MR_CHECK(false, "{} implementations, none for {}", impls.size(), isa_name(best_isa()));
  return nullptr;
}

}  // namespace millrace
