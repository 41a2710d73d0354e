// Writes compact JSON straight into a string, in the order of the calls: the token path's serialiser.
// Commas are put where they belong; brackets are the caller's to balance.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace millrace {

class JsonWriter {
 public:
  // Appends to `out`, which must outlive the writer. `after_value`: a value was just written there.
  explicit JsonWriter(std::string& out, bool after_value = false) : out_(out), comma_(after_value) {}

  JsonWriter& begin_object() { return open('{'); }
  JsonWriter& end_object() { return close('}'); }
  JsonWriter& begin_array() { return open('['); }
  JsonWriter& end_array() { return close(']'); }
  JsonWriter& key(std::string_view name);

  JsonWriter& value(std::string_view text);  // invalid UTF-8 becomes U+FFFD
  JsonWriter& value(const char* text) { return value(std::string_view(text)); }
  JsonWriter& value(int64_t number);
  JsonWriter& value(int number) { return value(static_cast<int64_t>(number)); }
  JsonWriter& value(bool truth) { return raw(truth ? "true" : "false"); }
  // The shortest decimal that reads back as the same float, always with a point or an exponent. Equal floats give
  // equal text. Requires a finite number.
  JsonWriter& value(float number);
  JsonWriter& null() { return raw("null"); }
  JsonWriter& ids(std::span<const int32_t> ids);  // [1,2,3]
  JsonWriter& raw(std::string_view json);         // a value that is JSON already

  template <class T>
  JsonWriter& field(std::string_view name, const T& v) {
    return key(name).value(v);
  }
  JsonWriter& null_field(std::string_view name) { return key(name).null(); }

 private:
  JsonWriter& open(char bracket);
  JsonWriter& close(char bracket);
  void before_value() {
    if (comma_) out_ += ',';
    comma_ = true;
  }
  std::string& out_;
  bool comma_;
};

// The text between the quotes.
void append_json_escaped(std::string& out, std::string_view text);

}  // namespace millrace
