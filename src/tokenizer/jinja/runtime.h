// What one rendering may still use up, and the only maker of values: every object is charged here before it exists and
// given back when its last user lets go. One thread. A permanent runtime belongs to a parsed template: its objects
// live as long as it does and may be read by any thread once parsing is over.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/jinja/limits.h"
#include "tokenizer/jinja/value.h"

namespace millrace::jinja {

class Runtime {
 public:
  enum class Lifetime { kRendering, kPermanent };
  Runtime(const TemplateLimits& limits, Lifetime lifetime);
  ~Runtime();
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;

  // Counts work; fails beyond the limit.
  void step(uint64_t count = 1) {
    steps_ += count;
    if (steps_ > limits_.max_steps) [[unlikely]]
      fail_steps();
  }
  // Counts the work of copying or searching so much text, or of looking at each of its characters.
  void step_text(size_t bytes) { step(bytes / 16); }
  void step_chars(size_t bytes) { step(bytes / 2); }
  // Fails if so many more bytes would not fit; call before building something whose size is known.
  void check_room(size_t bytes) const {
    if (bytes > limits_.max_memory_bytes - live_bytes_) [[unlikely]]
      fail_memory(bytes);
  }
  // The same for `count` pieces of `each` bytes.
  void check_room(size_t count, size_t each) const;
  void take(size_t bytes) {
    check_room(bytes);
    live_bytes_ += bytes;
  }
  void give(size_t bytes) { live_bytes_ -= bytes; }

  // `content` must be valid UTF-8.
  Value text(std::string content, bool markup = false);
  Value text(std::string_view content) { return text(std::string(content)); }
  Value text(const char* content) { return text(std::string(content)); }
  Value list(Values items);
  Value tuple(Values items);
  Value group(Value key, Value items);  // a tuple whose items are also called `grouper` and `list`
  Value dict(std::unique_ptr<Dict> dict);
  Value range(int64_t start, int64_t stop, int64_t step);
  Value view(Value dict, View::Part part);
  Value iterator(Values items, std::optional<Failure> failure = std::nullopt);
  Value function(const NativeEntry& entry, Value self = {});
  Value instance(std::unique_ptr<Instance> instance);
  Value undefined_variable(std::string_view name);
  Value undefined_hint(std::string_view sentence);

  // Keeps an instance that can hold values which lead back to it; it is cleared when the rendering ends.
  void remember(Instance& instance);

  const TemplateLimits& limits() const { return limits_; }
  // Seconds since 1970 and whether they are to be shown in UTC; nothing means the machine's clock and time zone.
  std::optional<int64_t> fixed_time;

 private:
  template <class T>
  Value adopt(Kind kind, std::unique_ptr<T> object);
  [[noreturn]] void fail_steps() const;
  [[noreturn]] void fail_memory(size_t bytes) const;

  const TemplateLimits limits_;
  const Lifetime lifetime_;
  size_t live_bytes_ = 0;
  uint64_t steps_ = 0;
  std::vector<std::unique_ptr<Object>> permanent_;
  Values remembered_;
};

// Text that grows piece by piece, never beyond the room that the runtime has.
class TextBuilder {
 public:
  explicit TextBuilder(Runtime& runtime) : runtime_(runtime) {}
  void append(std::string_view piece) {
    runtime_.check_room(text_.size() + piece.size());
    text_.append(piece);
  }
  void append(size_t count, std::string_view piece) {
    runtime_.check_room(text_.size());
    runtime_.check_room(count, piece.size());
    runtime_.step(count);
    for (size_t i = 0; i < count; ++i) text_.append(piece);
  }
  void push_back(char c) { append({&c, 1}); }
  size_t size() const { return text_.size(); }
  Runtime& runtime() { return runtime_; }
  std::string take() { return std::move(text_); }
  Value value(bool markup = false) { return runtime_.text(std::move(text_), markup); }

 private:
  Runtime& runtime_;
  std::string text_;
};

}  // namespace millrace::jinja
