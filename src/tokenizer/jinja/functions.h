// The functions a template can call by name, and the objects they make.
#pragma once
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tokenizer/jinja/value.h"

namespace millrace::jinja {

// range, dict, namespace, cycler, joiner, raise_exception, strftime_now; null for any other name.
const NativeEntry* find_function(std::string_view name);

// {% set ns = namespace(found=false) %}: the only object whose attributes a template can set.
class Namespace final : public Instance {
 public:
  explicit Namespace(Runtime& runtime) : Instance(runtime, sizeof(Namespace)) {}
  std::string_view type_name() const override { return "Namespace"; }
  std::optional<Value> attribute(std::string_view name) override;
  std::string repr(int depth) override;
  void clear() override { attributes_.clear(); }
  void set(std::string_view name, Value value);

 private:
  std::vector<std::pair<std::string, Value>> attributes_;
  bool showing_ = false;  // while repr() runs, which may meet this namespace again
};

}  // namespace millrace::jinja
