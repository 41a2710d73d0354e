#include "tokenizer/text/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <array>

#include "tokenizer/text/unicode.h"

namespace millrace {
namespace {

constexpr uint32_t kMatchLimit = 200'000'000;  // backtracking steps from one starting place
constexpr size_t kJitStackBytes = size_t{32} << 20, kJitStackStartBytes = size_t{64} << 10;

std::string error_text(int code) {
  std::array<PCRE2_UCHAR, 256> buffer{};
  pcre2_get_error_message(code, buffer.data(), buffer.size());
  return reinterpret_cast<const char*>(buffer.data());
}

}  // namespace

struct Regex::Code {
  pcre2_code* code = nullptr;
  bool has_jit = false;
  Code() = default;
  Code(const Code&) = delete;
  Code& operator=(const Code&) = delete;
  ~Code() { pcre2_code_free(code); }
};

struct Regex::Scratch::Data {
  pcre2_match_data* match;
  pcre2_match_context* context;
  pcre2_jit_stack* stack = nullptr;

  explicit Data(const pcre2_code* code)
      : match(pcre2_match_data_create_from_pattern(code, nullptr)), context(pcre2_match_context_create(nullptr)) {
    pcre2_set_match_limit(context, kMatchLimit);
  }
  Data(const Data&) = delete;
  Data& operator=(const Data&) = delete;
  ~Data() {
    pcre2_match_data_free(match);
    pcre2_match_context_free(context);
    if (stack) pcre2_jit_stack_free(stack);
  }
  // The match at or after `at`, with a larger stack on the second try. Below zero: PCRE2's error.
  int run(const Code& code, std::string_view text, size_t at) {
    const int rc = run_once(code, text, at);
    if (rc != PCRE2_ERROR_JIT_STACKLIMIT || stack) return rc;
    stack = pcre2_jit_stack_create(kJitStackStartBytes, kJitStackBytes, nullptr);
    pcre2_jit_stack_assign(context, nullptr, stack);
    return run_once(code, text, at);
  }
  int run_once(const Code& code, std::string_view text, size_t at) const {
    const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
    if (code.has_jit) return pcre2_jit_match(code.code, subject, text.size(), at, 0, match, context);
    return pcre2_match(code.code, subject, text.size(), at, PCRE2_NO_UTF_CHECK, match, context);
  }
};

Regex::Scratch::Scratch(const Regex& regex) : data_(std::make_unique<Data>(regex.code_->code)) {}
Regex::Scratch::~Scratch() = default;

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
  code->has_jit = pcre2_jit_compile(code->code, PCRE2_JIT_COMPLETE) == 0;
  Regex regex;
  regex.pattern_ = oniguruma_pattern;
  regex.code_ = std::move(code);
  return regex;
}

Status Regex::find_all(std::string_view text, Piece range, Scratch& scratch, std::vector<Piece>& matches) const {
  const std::string_view inside = text.substr(range.begin, range.end - range.begin);
  const size_t* offsets = pcre2_get_ovector_pointer(scratch.data_->match);
  for (size_t at = 0; at <= inside.size();) {
    const int rc = scratch.data_->run(*code_, inside, at);
    if (rc == PCRE2_ERROR_NOMATCH) return {};
    if (rc < 0)
      return resource_exhausted("pattern '{}' gave up at byte {} of {}: {}", pattern_, at, inside.size(),
                                error_text(rc));
    matches.push_back(
        {range.begin + static_cast<uint32_t>(offsets[0]), range.begin + static_cast<uint32_t>(offsets[1])});
    at = offsets[1];
    if (offsets[0] == offsets[1]) at += at < inside.size() ? decode_valid(inside.data() + at).bytes : 1;
  }
  return {};
}

}  // namespace millrace
