// A JSON text looked into where it lies: it is checked once from end to end, and nothing is built that is not wanted.
// For short texts of which a few members matter, such as the events of a stream. A view borrows the text.
#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/json.h"

namespace millrace::bench {

class JsonView {
 public:
  JsonView() = default;  // null
  // Nothing when the text is not one JSON value (RFC 8259, valid UTF-8) or is nested deeper than 128.
  static std::optional<JsonView> parse(std::string_view text);

  bool is_null() const { return text_.front() == 'n'; }
  bool is_object() const { return text_.front() == '{'; }
  bool is_array() const { return text_.front() == '['; }
  bool is_string() const { return text_.front() == '"'; }

  // The member of that name, the last if there are several; null where there is none or this is no object.
  JsonView at(std::string_view key) const;
  // A list's first element; null where there is none.
  JsonView front() const;
  template <class Visit>
  void for_each(const Visit& visit) const {  // of a list's elements
    if (!is_array()) return;
    for (size_t at = 1; const std::optional<JsonView> element = next_element(at);) visit(*element);
  }
  // As a tree, without members whose names are not among `keys`, which are sorted.
  Json to_json(std::span<const std::string_view> keys) const;
  // A number without fraction and exponent that fits.
  std::optional<int64_t> integer() const;
  // A string's characters; a surrogate without its other half becomes U+FFFD. Nothing for other kinds.
  void append_string(std::string& out) const;
  std::string_view text() const { return text_; }

 private:
  explicit JsonView(std::string_view text) : text_(text) {}
  std::optional<JsonView> next_element(size_t& at) const;
  std::string_view text_ = "null";  // from the value's first character to its last
};

}  // namespace millrace::bench
