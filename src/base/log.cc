#include "base/log.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <cstdlib>
#include <mutex>
#include <set>

namespace millrace {
namespace {

spdlog::level::level_enum spdlog_level(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return spdlog::level::debug;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarning:
      return spdlog::level::warn;
    case LogLevel::kError:
      return spdlog::level::err;
  }
  return spdlog::level::info;
}

spdlog::level::level_enum level_from_environment() {
  const char* text = std::getenv("MILLRACE_LOG_LEVEL");
  if (!text) text = std::getenv("VLLM_LOGGING_LEVEL");
  const std::string name = text ? text : "";
  if (name == "DEBUG") return spdlog::level::debug;
  if (name == "WARNING") return spdlog::level::warn;
  if (name == "ERROR") return spdlog::level::err;
  return spdlog::level::info;
}

spdlog::logger& logger() {
  static const std::shared_ptr<spdlog::logger> instance = [] {
    auto made = std::make_shared<spdlog::logger>("millrace", std::make_shared<spdlog::sinks::stderr_sink_mt>());
    made->set_pattern("%Y-%m-%d %H:%M:%S %-7l %v");
    made->set_level(level_from_environment());
    return made;
  }();
  return *instance;
}

}  // namespace

void set_log_level(LogLevel level) { logger().set_level(spdlog_level(level)); }
bool log_enabled(LogLevel level) { return logger().should_log(spdlog_level(level)); }
void log_line(LogLevel level, std::string_view message) {
  logger().log(spdlog_level(level), spdlog::string_view_t(message.data(), message.size()));
}

void warn_once(const std::string& key, std::string_view message) {
  static std::mutex mutex;
  static std::set<std::string> seen;
  {
    const std::lock_guard lock(mutex);
    if (seen.size() >= 1000 || !seen.insert(key).second) return;
  }
  log_line(LogLevel::kWarning, message);
}

}  // namespace millrace
