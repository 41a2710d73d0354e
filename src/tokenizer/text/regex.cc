#include "tokenizer/text/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <array>

#include "tokenizer/text/unicode.h"

namespace millrace {
namespace {

constexpr uint32_t kMatchLimit = 200'000'000;  // backtracking steps from one starting place
constexpr size_t kJitStackBytes = size_t{32} << 20, kJitStackStartBytes = size_t{64} << 10;

struct MatchData {
  pcre2_match_data* data;
  pcre2_match_context* context;
  pcre2_jit_stack* stack = nullptr;
  explicit MatchData(const pcre2_code* code)
      : data(pcre2_match_data_create_from_pattern(code, nullptr)), context(pcre2_match_context_create(nullptr)) {
    pcre2_set_match_limit(context, kMatchLimit);
  }
  MatchData(const MatchData&) = delete;
  MatchData& operator=(const MatchData&) = delete;
  ~MatchData() {
    pcre2_match_data_free(data);
    pcre2_match_context_free(context);
    if (stack) pcre2_jit_stack_free(stack);
  }
  void grow_stack() {
    stack = pcre2_jit_stack_create(kJitStackStartBytes, kJitStackBytes, nullptr);
    pcre2_jit_stack_assign(context, nullptr, stack);
  }
};

std::string error_text(int code) {
  std::array<PCRE2_UCHAR, 256> buffer{};
  pcre2_get_error_message(code, buffer.data(), buffer.size());
  return reinterpret_cast<const char*>(buffer.data());
}

}  // namespace

struct Regex::Code {
  pcre2_code* code = nullptr;
  Code() = default;
  Code(const Code&) = delete;
  Code& operator=(const Code&) = delete;
  ~Code() { pcre2_code_free(code); }

  // The match at or after `at`, with a larger stack on the second try. Below zero: PCRE2's error.
  int match(std::string_view text, size_t at, MatchData& data) const {
    const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
    int rc = pcre2_match(code, subject, text.size(), at, PCRE2_NO_UTF_CHECK, data.data, data.context);
    if (rc != PCRE2_ERROR_JIT_STACKLIMIT || data.stack) return rc;
    data.grow_stack();
    return pcre2_match(code, subject, text.size(), at, PCRE2_NO_UTF_CHECK, data.data, data.context);
  }
};

Result<Regex> Regex::compile(std::string_view oniguruma_pattern) {
  MR_ASSIGN_OR_RETURN(const std::string pattern, oniguruma_to_pcre2(oniguruma_pattern));
  auto code = std::make_shared<Code>();
  int error = 0;
  size_t offset = 0;
  code->code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                    PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &error, &offset, nullptr);
  if (!code->code)
    return invalid_argument("pattern '{}' is not a regular expression this reader knows: {} (at byte {} of '{}')",
                            oniguruma_pattern, error_text(error), offset, pattern);
  pcre2_jit_compile(code->code, PCRE2_JIT_COMPLETE);  // without a JIT pcre2_match interprets
  Regex regex;
  regex.pattern_ = oniguruma_pattern;
  regex.code_ = std::move(code);
  return regex;
}

Result<Regex> Regex::literal(std::string_view text) {
  std::string escaped;
  for (const char c : text) {
    if (static_cast<uint8_t>(c) < 0x80 && !std::isalnum(static_cast<uint8_t>(c)) && c != '_') escaped += '\\';
    escaped += c;
  }
  return compile(escaped);
}

Status Regex::for_each_match(std::string_view text, const MatchFn& fn) const {
  MatchData data(code_->code);
  const size_t* offsets = pcre2_get_ovector_pointer(data.data);
  for (size_t at = 0; at <= text.size();) {
    const int rc = code_->match(text, at, data);
    if (rc == PCRE2_ERROR_NOMATCH) return {};
    if (rc < 0)
      return resource_exhausted("pattern '{}' gave up at byte {} of {}: {}", pattern_, at, text.size(), error_text(rc));
    fn(offsets[0], offsets[1]);
    at = offsets[1];
    if (offsets[0] == offsets[1]) at += at < text.size() ? decode_valid(text.data() + at).bytes : 1;
  }
  return {};
}

}  // namespace millrace
