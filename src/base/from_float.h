// From float32 to an element type; the other way is to_float (base/dtype.h).
#pragma once
#include <type_traits>

#include "base/dtype.h"

namespace millrace {

// bf16 and f16 to nearest even; others as static_cast does.
template <class To>
inline To from_float(float x) {
  if constexpr (std::is_same_v<To, bf16>)
    return to_bf16(x);
  else if constexpr (std::is_same_v<To, f16>)
    return to_f16(x);
  else
    return static_cast<To>(x);
}

}  // namespace millrace
