// The version that --version, GET /version and written files state.
#pragma once

namespace millrace {
inline constexpr const char* kVersion = "0.1.0";
}  // namespace millrace
