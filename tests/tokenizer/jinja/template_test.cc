#include "tokenizer/jinja/template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <thread>

namespace millrace {
namespace {

using testing::HasSubstr;

OrderedJson json(const char* text) { return OrderedJson::parse(text); }

Result<std::string> try_render(const std::string& source, const OrderedJson& variables = OrderedJson::object(),
                               const RenderOptions& options = {}) {
  auto parsed = ChatTemplate::parse(source);
  if (!parsed.ok()) return parsed.status();
  return parsed->render(variables, options);
}

std::string rendered(const std::string& source, const OrderedJson& variables = OrderedJson::object()) {
  auto text = try_render(source, variables);
  EXPECT_TRUE(text.ok()) << source << "\n" << text.status().to_string();
  return text.ok() ? *text : "";
}

std::string error_of(const std::string& source, const OrderedJson& variables = OrderedJson::object()) {
  auto text = try_render(source, variables);
  EXPECT_FALSE(text.ok()) << source << " gives " << *text;
  EXPECT_EQ(text.status().code(), Code::kInvalidArgument);
  return text.status().message();
}

const char* const kChat = R"({"messages": [
  {"role": "system", "content": " Be brief. "},
  {"role": "user", "content": "Hi"},
  {"role": "assistant", "content": null, "tool_calls": [{"function": {"name": "f", "arguments": {"x": 1.0, "y": ["é", null]}}}]},
  {"role": "tool", "content": "42"}], "add_generation_prompt": true, "bos_token": "<s>"})";

TEST(ChatTemplate, AChatIsRenderedMessageByMessage) {
  const std::string source = R"({{- bos_token }}
{%- for message in messages %}
  {%- if message.tool_calls is defined %}
    {{- '[call]' ~ message.tool_calls[0].function.name ~ '(' ~ message.tool_calls[0].function.arguments | tojson ~ ')' }}
  {%- elif message['role'] == 'tool' %}
    {{- '[result]' + message.content }}
  {%- else %}
    {{- '[' + message.role + ']' + message.content | trim }}
  {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '[assistant]' }}{% endif %})";
  EXPECT_EQ(rendered(source, json(kChat)),
            "<s>[system]Be brief.[user]Hi[call]f({\"x\": 1.0, \"y\": [\"é\", null]})[result]42[assistant]");
}

TEST(ChatTemplate, BlocksAreTrimmedAsHuggingFaceTrimsThem) {
  EXPECT_EQ(rendered("a\n  {% if true %}\n  b\n  {% endif %}\nc\n"), "a\n  b\nc");
  EXPECT_EQ(rendered("a\n  {{ 1 }}\nb\n\n"), "a\n  1\nb\n");
  EXPECT_EQ(rendered("{%+ if true +%}\n x {%- endif -%}  \n y"), "\n xy");
}

TEST(ChatTemplate, KeysKeepTheirOrderInToJson) {
  EXPECT_EQ(
      rendered("{{ d | tojson }}|{{ d | tojson(indent=1) }}", json(R"({"d": {"b": 1, "a": {"z": true, "c": null}}})")),
      "{\"b\": 1, \"a\": {\"z\": true, \"c\": null}}|{\n \"b\": 1,\n \"a\": {\n  \"z\": true,\n  \"c\": null\n }\n}");
}

TEST(ChatTemplate, RaiseExceptionGivesItsTextAndNothingElse) {
  EXPECT_EQ(error_of("\n\n{{ raise_exception('Only user and assistant roles!') }}"), "Only user and assistant roles!");
}

TEST(ChatTemplate, StrftimeNowUsesTheGivenTime) {
  auto text = try_render("{{ strftime_now('%d %b %Y %H:%M') }}", OrderedJson::object(), {.fixed_time = 0});
  ASSERT_TRUE(text.ok());
  EXPECT_EQ(*text, "01 Jan 1970 00:00");
  EXPECT_EQ(rendered("{{ strftime_now('%Y') | length }}"), "4");
  EXPECT_EQ(rendered("{{ strftime_now('%1000000000d') | length < 99 }}"), "True");
}

TEST(ChatTemplate, ErrorsNameTheLineWhatWasFoundAndWhatIsWanted) {
  EXPECT_EQ(error_of("x\n{% if a %}\n{% endfor %}"),
            "chat template, line 3: there is no statement 'endfor'; 'elif' or 'else' or 'endif' is still due");
  EXPECT_EQ(error_of("\n{{ a b }}"), "chat template, line 2: 'b' found; wanted '}}'");
  EXPECT_EQ(error_of("{{ 'x' | uper }}"), "chat template, line 1: there is no filter 'uper'; did you mean 'upper'?");
  EXPECT_EQ(error_of("a\n\n{{ messages[0].content + 1 }}", json(R"({"messages": [{"content": "x"}]})")),
            "chat template, line 3: '+' cannot be used between 'str' and 'int'");
  EXPECT_EQ(error_of("{{ message.content.x }}", json(R"({"message": {"role": "user"}})")),
            "chat template, line 1: 'dict object' has no attribute 'content'");
  EXPECT_EQ(error_of("{{ nobody.name }}"), "chat template, line 1: 'nobody' is undefined");
  EXPECT_THAT(error_of("{% macro m() %}\n{{ 1 / 0 }}{% endmacro %}\n\n{{ m() }}"),
              HasSubstr("line 2: division by zero"));
  EXPECT_THAT(error_of("{{ [].append(1) }}"), HasSubstr("'append' of 'list' object is unsafe"));
  EXPECT_THAT(error_of("{{ [1] | random }}"), HasSubstr("the same text every time"));
  EXPECT_THAT(error_of("\xff"), HasSubstr("not valid UTF-8"));
}

TEST(ChatTemplate, IntegersThatDoNotFitAreRefusedNotWrapped) {
  EXPECT_THAT(error_of("{{ 9223372036854775807 + 1 }}"), HasSubstr("64 bits"));
  EXPECT_THAT(error_of("{{ 99999999999999999999 }}"), HasSubstr("64 bits"));
  EXPECT_THAT(error_of("{{ 2 ** 64 }}"), HasSubstr("64 bits"));
  EXPECT_THAT(error_of("{{ n }}", json("{\"n\": 18446744073709551615}")), HasSubstr("18446744073709551615"));
  EXPECT_EQ(rendered("{{ n }}", json("{\"n\": -9223372036854775808}")), "-9223372036854775808");
}

TEST(ChatTemplate, OnlyTheGivenVariablesAndTheBuiltInFunctionsExist) {
  EXPECT_EQ(
      rendered(
          "{% for f in ['range', 'x'] %}{% endfor %}{{ range is defined }}{{ os is defined }}{{ self is defined }}"),
      "TrueFalseFalse");
  EXPECT_EQ(rendered("{{ range }}", json(R"({"range": "given"})")), "given");
  EXPECT_THAT(error_of("{% include '/etc/passwd' %}"), HasSubstr("stands alone"));
  EXPECT_THAT(error_of("{{ ''.__class__.__mro__ }}"), HasSubstr("has no attribute '__class__'"));
}

TEST(ChatTemplate, InvalidUtf8InVariablesIsReplaced) {
  OrderedJson variables;
  variables["text"] = std::string("a\xff") + "b";
  EXPECT_EQ(rendered("{{ text }}{{ text | length }}", variables),
            "a\xef\xbf\xbd"
            "b3");
}

TEST(ChatTemplate, VariablesMustBeAnObject) {
  auto parsed = ChatTemplate::parse("x");
  ASSERT_TRUE(parsed.ok());
  EXPECT_EQ(parsed->render(json("[1]")).status().code(), Code::kInvalidArgument);
}

TEST(ChatTemplate, ManyThreadsRenderOneTemplateAtOnce) {
  auto parsed = ChatTemplate::parse(
      "{% macro m(x) %}<{{ x | upper }}>{% endmacro %}{% set ns = namespace(all='') %}"
      "{% for i in range(50) %}{% set ns.all = ns.all ~ m('k' ~ i) %}{% endfor %}{{ ns.all | length }}{{ 'const' }}{{ "
      "id }}");
  ASSERT_TRUE(parsed.ok());
  std::vector<std::string> texts(8);
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 20; ++i) {
        auto text = parsed->render(OrderedJson{{"id", t}});
        texts[static_cast<size_t>(t)] = text.ok() ? *text : text.status().to_string();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (int t = 0; t < 8; ++t) EXPECT_EQ(texts[static_cast<size_t>(t)], "240const" + std::to_string(t));
}

TEST(ChatTemplate, RenderingTwiceStartsFresh) {
  auto parsed = ChatTemplate::parse("{{ x is defined }}{% set x = 1 %}{% set c = cycler(1, 2) %}{{ c.next() }}");
  ASSERT_TRUE(parsed.ok());
  for (int i = 0; i < 2; ++i) {
    auto text = parsed->render(OrderedJson::object());
    ASSERT_TRUE(text.ok());
    EXPECT_EQ(*text, "False1");
  }
}

}  // namespace
}  // namespace millrace
