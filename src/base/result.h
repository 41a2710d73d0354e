// Status and Result<T>: how Millrace reports that the world is not as asked (bad file, bad request, no room).
// Broken invariants of our own code are MR_CHECK (base/check.h); exceptions thrown by libraries are caught at the
// engine step, the HTTP handler and main, and turned into a Status there.
#pragma once
#include <fmt/format.h>

#include <optional>
#include <string>
#include <utility>

namespace millrace {

// What the caller can do about it:
enum class Code {
  kOk,
  kInvalidArgument,     // the request or file is wrong: change it
  kNotFound,            // no such model, file or id
  kAlreadyExists,       // the name or port is taken
  kFailedPrecondition,  // right request, wrong state (no tokenizer loaded, say)
  kResourceExhausted,   // no memory, no blocks, queue full: ask for less or later
  kUnimplemented,       // understood, not built
  kUnavailable,         // shutting down or not up yet: try again
  kCancelled,           // the caller went away
  kDataLoss,            // a file is truncated or contradicts itself
  kInternal,            // our bug or a library's
};
const char* code_name(Code code);

class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(Code code, std::string message) : code_(code), message_(std::move(message)) {}
  bool ok() const { return code_ == Code::kOk; }
  Code code() const { return code_; }
  const std::string& message() const { return message_; }
  // The same error with "where: " in front of its message; an ok status stays ok.
  Status at(const std::string& where) const { return ok() ? *this : Status(code_, where + ": " + message_); }
  std::string to_string() const { return ok() ? "ok" : fmt::format("{}: {}", code_name(code_), message_); }

 private:
  Code code_ = Code::kOk;
  std::string message_;
};

// A value or the Status that says why there is none. value() requires ok().
template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}          // NOLINT: implicit, so that `return x;` works
  Result(Status status) : status_(std::move(status)) {}  // NOLINT
  bool ok() const { return value_.has_value(); }
  const Status& status() const { return status_; }
  T& value() & { return *value_; }
  const T& value() const& { return *value_; }
  T&& value() && { return std::move(*value_); }
  T& operator*() & { return *value_; }
  const T& operator*() const& { return *value_; }
  T* operator->() { return &*value_; }
  const T* operator->() const { return &*value_; }

 private:
  std::optional<T> value_;
  Status status_;
};

#define MR_STATUS_MAKER(name, code)                                     \
  template <class... A>                                                 \
  Status name(fmt::format_string<A...> format, A&&... args) {           \
    return Status(code, fmt::format(format, std::forward<A>(args)...)); \
  }
MR_STATUS_MAKER(invalid_argument, Code::kInvalidArgument)
MR_STATUS_MAKER(not_found, Code::kNotFound)
MR_STATUS_MAKER(already_exists, Code::kAlreadyExists)
MR_STATUS_MAKER(failed_precondition, Code::kFailedPrecondition)
MR_STATUS_MAKER(resource_exhausted, Code::kResourceExhausted)
MR_STATUS_MAKER(unimplemented, Code::kUnimplemented)
MR_STATUS_MAKER(unavailable, Code::kUnavailable)
MR_STATUS_MAKER(cancelled, Code::kCancelled)
MR_STATUS_MAKER(data_loss, Code::kDataLoss)
MR_STATUS_MAKER(internal_error, Code::kInternal)
#undef MR_STATUS_MAKER

#define MR_CONCAT_INNER(a, b) a##b
#define MR_CONCAT(a, b) MR_CONCAT_INNER(a, b)
// Leaves the function with the error, if there is one.
#define MR_RETURN_IF_ERROR(expr)                                                  \
  do {                                                                            \
    if (::millrace::Status mr_status = (expr); !mr_status.ok()) return mr_status; \
  } while (0)
// MR_ASSIGN_OR_RETURN(auto x, f()); declares x or leaves with f's error.
#define MR_ASSIGN_OR_RETURN(decl, expr) MR_ASSIGN_OR_RETURN_INNER(MR_CONCAT(mr_result_, __LINE__), decl, expr)
#define MR_ASSIGN_OR_RETURN_INNER(tmp, decl, expr) \
  auto tmp = (expr);                               \
  if (!tmp.ok()) return tmp.status();              \
  decl = std::move(tmp).value()

}  // namespace millrace
