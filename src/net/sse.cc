#include "net/sse.h"

namespace millrace {

std::string sse_event(std::string_view data) {
  std::string out;
  out.reserve(data.size() + 8);
  return out.append("data: ").append(data).append("\n\n");
}

void SseParser::end_line(const std::function<void(std::string_view)>& on_event) {
  if (line_.empty()) {
    if (has_data_) on_event(data_);
    data_.clear();
    has_data_ = false;
    return;
  }
  const size_t colon = line_.find(':');
  const std::string_view line = line_, name = line.substr(0, colon);
  std::string_view value = colon == std::string::npos ? std::string_view{} : line.substr(colon + 1);
  if (!value.empty() && value[0] == ' ') value.remove_prefix(1);
  if (name == "data") {
    if (has_data_) data_ += '\n';
    data_ += value;
    has_data_ = true;
  }
  line_.clear();
}

bool SseParser::feed(std::string_view bytes, const std::function<void(std::string_view)>& on_event) {
  while (!bytes.empty() && !failed_) {
    if (after_cr_ && bytes[0] == '\n') bytes.remove_prefix(1);
    after_cr_ = false;
    const size_t end = bytes.find_first_of("\r\n");
    line_ += bytes.substr(0, end);
    failed_ = line_.size() + data_.size() > max_event_bytes_;
    if (end == std::string_view::npos || failed_) break;
    after_cr_ = bytes[end] == '\r';
    bytes.remove_prefix(end + 1);
    end_line(on_event);
  }
  return !failed_;
}

}  // namespace millrace
