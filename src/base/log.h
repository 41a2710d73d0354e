// Log lines on stderr: "2026-01-31 12:00:00 INFO  message". Any thread. VLLM_LOGGING_LEVEL or MILLRACE_LOG_LEVEL sets
// the least level shown (DEBUG, INFO, WARNING, ERROR).
#pragma once
#include <fmt/format.h>

#include <string>
#include <string_view>

namespace millrace {

enum class LogLevel { kDebug, kInfo, kWarning, kError };
void set_log_level(LogLevel level);
bool log_enabled(LogLevel level);
void log_line(LogLevel level, std::string_view message);

template <class... A>
void log_debug(fmt::format_string<A...> format, A&&... args) {
  if (log_enabled(LogLevel::kDebug)) log_line(LogLevel::kDebug, fmt::format(format, std::forward<A>(args)...));
}
template <class... A>
void log_info(fmt::format_string<A...> format, A&&... args) {
  log_line(LogLevel::kInfo, fmt::format(format, std::forward<A>(args)...));
}
template <class... A>
void log_warning(fmt::format_string<A...> format, A&&... args) {
  log_line(LogLevel::kWarning, fmt::format(format, std::forward<A>(args)...));
}
template <class... A>
void log_error(fmt::format_string<A...> format, A&&... args) {
  log_line(LogLevel::kError, fmt::format(format, std::forward<A>(args)...));
}
// The first call with this key logs a warning; later ones do nothing. At most 1,000 keys are remembered.
void warn_once(const std::string& key, std::string_view message);

}  // namespace millrace
