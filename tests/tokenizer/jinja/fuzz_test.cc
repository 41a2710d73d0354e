// Broken and random templates end in a text or a Status, never in a crash or a hang.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/json.h"
#include "base/random.h"
#include "base/text.h"
#include "base/utf8.h"
#include "tokenizer/jinja/template.h"

namespace millrace {
namespace {

const std::string kFolder = MILLRACE_SOURCE_DIR "/tests/tokenizer/jinja/";
constexpr TemplateLimits kSmall = {
    .max_output_bytes = 1 << 16, .max_memory_bytes = 1 << 20, .max_steps = 20'000, .max_depth = 100};

OrderedJson variables() {
  auto json = read_ordered_json_file(kFolder + "snippet_variables.json");
  EXPECT_TRUE(json.ok());
  return json.ok() ? *json : OrderedJson::object();
}

// True if the template could be parsed.
bool survives(const std::string& source, const OrderedJson& given) {
  auto parsed = ChatTemplate::parse(source, kSmall);
  if (!parsed.ok()) {
    EXPECT_FALSE(parsed.status().message().empty());
    return false;
  }
  auto text = parsed->render(given, {.fixed_time = 1});
  if (text.ok()) {
    EXPECT_TRUE(is_valid_utf8(*text)) << source;
    EXPECT_LE(text->size(), kSmall.max_output_bytes);
  }
  return true;
}

// Cuts, doubles, swaps or overwrites a few bytes.
std::string mutated(std::string text, Random& random) {
  constexpr std::string_view kBytes = "{}%#-+|.,:()[]'\"\\ \n~*=<>!abif0159_\xc3\xa9\xff";
  for (uint32_t edits = 1 + random.below(4); edits > 0 && !text.empty(); --edits) {
    const size_t at = random.below(static_cast<uint32_t>(text.size())), size = 1 + random.below(12);
    switch (random.below(4)) {
      case 0:
        text.erase(at, size);
        break;
      case 1:
        text.insert(at, text.substr(random.below(static_cast<uint32_t>(text.size())), size));
        break;
      case 2:
        text[at] = kBytes[random.below(static_cast<uint32_t>(kBytes.size()))];
        break;
      default:
        text.insert(at, 1, kBytes[random.below(static_cast<uint32_t>(kBytes.size()))]);
    }
  }
  return text;
}

std::vector<std::string> seeds() {
  std::vector<std::string> sources;
  for (const char* name : {"expressions.txt", "statements.txt"}) {
    auto text = read_file(kFolder + name);
    EXPECT_TRUE(text.ok());
    if (!text.ok()) continue;
    for (const std::string& line : split(*text, '\n'))
      if (!line.empty() && !line.starts_with("# ") && line != "====") sources.push_back(line);
  }
  return sources;
}

TEST(JinjaFuzz, MutatedTemplatesGiveATextOrAStatus) {
  Random random(11);
  const std::vector<std::string> sources = seeds();
  const OrderedJson given = variables();
  ASSERT_FALSE(sources.empty());
  int parsed = 0;
  for (int i = 0; i < 4000; ++i)
    parsed += survives(mutated(sources[random.below(static_cast<uint32_t>(sources.size()))], random), given);
  EXPECT_GT(parsed, 400) << "mutations that always fail to parse test nothing but the parser";
}

TEST(JinjaFuzz, RandomTokensGiveATextOrAStatus) {
  constexpr std::string_view kTokens[] = {
      "{{",      "}}",     "{%",        "%}",    "{%-",     "-%}",    "{#",       "#}",        "if",       "else",
      "elif",    "endif",  "for",       "in",    "endfor",  "set",    "endset",   "macro",     "endmacro", "call",
      "endcall", "filter", "endfilter", "with",  "endwith", "break",  "continue", "is",        "not",      "and",
      "or",      "list",   "dict",      "users", "n",       "word",   "loop",     "namespace", "range",    "missing",
      "defined", "upper",  "map",       "sort",  "tojson",  "join",   "(",        ")",         "[",        "]",
      "{",       "}",      ",",         ":",     ".",       "|",      "~",        "+",         "-",        "*",
      "/",       "//",     "%",         "**",    "==",      "<",      "=",        "1",         "0",        "2.5",
      "'a'",     "\"b\"",  "\n",        "text",  "raw",     "endraw", "recursive"};
  Random random(12);
  const OrderedJson given = variables();
  for (int i = 0; i < 20000; ++i) {
    std::string source;
    for (uint32_t count = 1 + random.below(25); count > 0; --count)
      source += std::string(kTokens[random.below(std::size(kTokens))]) + (random.below(3) ? " " : "");
    survives(source, given);
  }
}

// Expressions that parse, so that the random part reaches filters, methods and operators with all kinds of values.
class ExpressionMaker {
 public:
  explicit ExpressionMaker(uint64_t seed) : random_(seed) {}
  std::string make(int depth) {
    if (depth == 0) return pick(kAtoms);
    switch (random_.below(8)) {
      case 0:
        return fmt::format("({} {} {})", make(depth - 1), pick(kOperators), make(depth - 1));
      case 1:
        return fmt::format("({})|{}", make(depth - 1), pick(kFilters));
      case 2:
        return fmt::format("({})|{}({})", make(depth - 1), pick(kFilters), make(depth - 1));
      case 3:
        return fmt::format("({})|{}({}, {})", make(depth - 1), pick(kFilters), make(0), make(0));
      case 4:
        return fmt::format("({}).{}({})", make(depth - 1), pick(kMethods), random_.below(2) ? make(depth - 1) : "");
      case 5:
        return fmt::format("({})[{}:{}:{}]", make(depth - 1), make(0), make(0), make(0));
      case 6:
        return fmt::format("({} is {} if {} else [{}])", make(depth - 1), pick(kTests), make(0), make(depth - 1));
      default:
        return fmt::format("({})[{}]", make(depth - 1), make(depth - 1));
    }
  }

 private:
  template <size_t N>
  std::string pick(const std::string_view (&words)[N]) {
    return std::string(words[random_.below(N)]);
  }
  static constexpr std::string_view kAtoms[] = {"0",
                                                "1",
                                                "-1",
                                                "7",
                                                "-9223372036854775807",
                                                "9223372036854775807",
                                                "1e308",
                                                "-0.5",
                                                "'é🙂'",
                                                "''",
                                                "'%s %(a)d %*.*f'",
                                                "'{0} {a} {:>{}}'",
                                                "list",
                                                "mixed",
                                                "users",
                                                "dict",
                                                "deep",
                                                "nothing",
                                                "missing",
                                                "words",
                                                "range(3)",
                                                "true",
                                                "lines",
                                                "html",
                                                "namespace(a=1)",
                                                "cycler(1)",
                                                "joiner()",
                                                "range",
                                                "(1, 'a')",
                                                "'upper'",
                                                "'name'",
                                                "'0.a,b'"};
  static constexpr std::string_view kOperators[] = {"+", "-",  "*",  "/",  "//",  "%",  "**",     "~",
                                                    "<", "==", "in", ">=", "and", "or", "not in", "!="};
  static constexpr std::string_view kFilters[] = {
      "abs",       "attr",      "batch",     "capitalize", "center",     "default",        "dictsort",
      "e",         "first",     "float",     "format",     "groupby",    "indent",         "int",
      "items",     "join",      "last",      "length",     "list",       "lower",          "map",
      "max",       "min",       "pprint",    "reject",     "rejectattr", "replace",        "reverse",
      "round",     "safe",      "select",    "selectattr", "slice",      "sort",           "string",
      "striptags", "sum",       "title",     "tojson",     "trim",       "truncate",       "unique",
      "upper",     "urlencode", "wordcount", "wordwrap",   "xmlattr",    "filesizeformat", "forceescape"};
  static constexpr std::string_view kMethods[] = {
      "strip",        "split",      "rsplit",     "splitlines", "replace",  "startswith", "endswith", "upper",
      "title",        "join",       "find",       "rfind",      "index",    "count",      "format",   "center",
      "ljust",        "zfill",      "partition",  "get",        "keys",     "items",      "values",   "append",
      "removeprefix", "expandtabs", "format_map", "copy",       "swapcase", "next",       "a"};
  static constexpr std::string_view kTests[] = {"defined", "none",     "string", "sequence", "even",
                                                "upper",   "callable", "eq 1",   "in [1]"};
  Random random_;
};

TEST(JinjaFuzz, RandomExpressionsGiveATextOrAStatus) {
  ExpressionMaker maker(13);
  const OrderedJson given = variables();
  int parsed = 0;
  for (int i = 0; i < 6000; ++i) parsed += survives("{{ " + maker.make(1 + i % 4) + " }}", given);
  EXPECT_GT(parsed, 3000) << "most random expressions should be valid syntax";
}

}  // namespace
}  // namespace millrace
