// MR_CHECK(cond, "fmt", args...): our own code is wrong if `cond` is false. Prints the place and the values, then
// aborts. Never reachable from user input.
#pragma once
#include <fmt/format.h>

#include <string>

namespace millrace {
[[noreturn]] void check_failed(const char* file, int line, const char* condition, const std::string& message);
}  // namespace millrace

#define MR_CHECK(cond, ...)                                                             \
  do {                                                                                  \
    if (!(cond)) [[unlikely]]                                                           \
      ::millrace::check_failed(__FILE__, __LINE__, #cond, fmt::format("" __VA_ARGS__)); \
  } while (0)
