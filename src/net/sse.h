// Server-sent events (WHATWG HTML, section 9.2): the text format of streamed answers.
#pragma once
#include <functional>
#include <string>
#include <string_view>

namespace millrace {

// "data: <data>\n\n". `data` holds no line break (compact JSON never does).
std::string sse_event(std::string_view data);

// Cuts a byte stream into events, whatever the pieces it arrives in. Comments and fields other than `data` are
// skipped; an event's data lines are joined with '\n'. Lines end with \n, \r\n or \r. An event that grows past
// `max_event_bytes` is an error, reported by feed() from then on.
class SseParser {
 public:
  explicit SseParser(size_t max_event_bytes = size_t{64} << 20) : max_event_bytes_(max_event_bytes) {}
  // Calls on_event(data) for every event that is now complete. False: too long.
  [[nodiscard]] bool feed(std::string_view bytes, const std::function<void(std::string_view)>& on_event);

 private:
  void end_line(const std::function<void(std::string_view)>& on_event);
  size_t max_event_bytes_;
  std::string line_, data_;
  bool has_data_ = false, after_cr_ = false, failed_ = false;
};

}  // namespace millrace
