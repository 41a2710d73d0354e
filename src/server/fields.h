// Reads a JSON object field by field: every field is named once, null means absent, and what nobody asked for is
// refused with the nearest known name. The first error is kept; later reads leave their outputs as they are.
#pragma once
#include <cstdint>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"

namespace millrace {

class Fields {
 public:
  // `where` names the object in messages: "" for the request itself, "stream_options", "messages[2]". `object` must
  // outlive this.
  explicit Fields(const Json& object, std::string where = "");

  // The field's value; nullptr when absent or null. The name counts as known.
  const Json* find(const char* name);
  bool has(const char* name) { return find(name) != nullptr; }
  // Present with the value null: for the few fields where that differs from absent.
  bool is_null(const char* name);

  void read(const char* name, bool& out);
  void read(const char* name, int64_t& out);
  void read(const char* name, int& out);  // refuses what does not fit 32 bits
  void read(const char* name, double& out);
  void read(const char* name, std::string& out);
  template <class T>
  void read(const char* name, std::optional<T>& out) {
    if (!has(name)) return;
    T value{};
    read(name, value);
    if (ok()) out = std::move(value);
  }
  void read_strings(const char* name, std::vector<std::string>& out, size_t max_count);  // a string or a list of them
  void read_ids(const char* name, std::vector<int32_t>& out, size_t max_count);

  // A field that is understood but not built: refused unless absent, null or one of `neutral` (as JSON texts).
  // `instead` says what is supported.
  void unsupported(const char* name, std::string_view instead, std::initializer_list<const char*> neutral = {});
  // A field that changes nothing here.
  void ignored(const char* name) { find(name); }

  void fail(Status status);
  bool ok() const { return status_.ok(); }
  // The first error, or that there is a field nobody asked for.
  Status finish();

  // "messages[2].role", for messages.
  std::string full_name(std::string_view name) const;

 private:
  void wrong_kind(const char* name, const Json& found, std::string_view wanted);
  const Json& object_;
  std::string where_;
  std::vector<std::string> known_;
  Status status_;
};

// "<name> is <excerpt>; it must be <wanted>"
Status wrong_value(std::string_view name, const Json& found, std::string_view wanted);
// An integer, or a number that is one.
std::optional<int64_t> json_integer(const Json& value);

}  // namespace millrace
