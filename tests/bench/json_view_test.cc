#include "bench/json_view.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <random>

#include "base/json.h"

namespace millrace::bench {
namespace {

std::string string_at(std::string_view text, std::string_view key) {
  std::string out;
  JsonView::parse(text)->at(key).append_string(out);
  return out;
}

TEST(JsonView, MembersAreFoundWhereTheyLie) {
  const auto view =
      JsonView::parse(R"( {"a":{"text":"inner"},"text":"out\"er","n":-12,"list":[1,{"x":[]},"y"],"e":{}} )");
  ASSERT_TRUE(view);
  EXPECT_EQ(view->at("text").text(), R"("out\"er")");
  EXPECT_EQ(view->at("a").at("text").text(), R"("inner")");
  EXPECT_EQ(view->at("n").integer(), -12);
  EXPECT_EQ(view->at("list").front().integer(), 1);
  EXPECT_TRUE(view->at("list").is_array());
  EXPECT_TRUE(view->at("nothing").at("below").front().is_null());
  EXPECT_TRUE(view->at("e").is_object());
  std::vector<std::string> elements;
  view->at("list").for_each([&](JsonView element) { elements.emplace_back(element.text()); });
  EXPECT_EQ(elements, (std::vector<std::string>{"1", R"({"x":[]})", R"("y")"}));
}

TEST(JsonView, StringsAreDecoded) {
  EXPECT_EQ(string_at(R"({"t":"a\n\u00e9\ud83d\ude00\/\\"})", "t"), "a\né😀/\\");
  EXPECT_EQ(string_at(R"({"t":"\ud83d x \ude00 \ud83d\u0041"})", "t"), "\uFFFD x \uFFFD \uFFFDA");
  EXPECT_EQ(string_at(R"({"\u0074":"b","u":1})", "t"), "b");
  EXPECT_EQ(string_at(R"({"t":1,"t":"last"})", "t"), "last");
  EXPECT_EQ(string_at(R"({"t":7})", "t"), "");
}

TEST(JsonView, IntegersAreWholeAndFit) {
  const auto integer = [](const char* text) { return JsonView::parse(text)->integer(); };
  EXPECT_EQ(integer("9223372036854775807"), INT64_MAX);
  EXPECT_EQ(integer("9223372036854775808"), std::nullopt);
  EXPECT_EQ(integer("1.0"), std::nullopt);
  EXPECT_EQ(integer("1e3"), std::nullopt);
  EXPECT_EQ(integer("\"1\""), std::nullopt);
}

TEST(JsonView, DeepNestingIsRefused) {
  const auto nested = [](size_t depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  EXPECT_TRUE(JsonView::parse(nested(128)));
  EXPECT_FALSE(JsonView::parse(nested(129)));
}

void compare(const Json& json, JsonView view) {
  EXPECT_EQ(json.is_object(), view.is_object());
  EXPECT_EQ(json.is_array(), view.is_array());
  EXPECT_EQ(json.is_null(), view.is_null());
  if (json.is_string()) {
    std::string text;
    view.append_string(text);
    EXPECT_EQ(json.get<std::string>(), text);
  }
  if (json.is_number_integer() && json <= INT64_MAX) {
    EXPECT_EQ(json.get<int64_t>(), view.integer());
  }
  if (json.is_object())
    for (const auto& [key, value] : json.items()) compare(value, view.at(key));
  size_t i = 0;
  view.for_each([&](JsonView element) { compare(json.at(i++), element); });
  EXPECT_EQ(i, json.is_array() ? json.size() : 0);
}

TEST(JsonView, ATreeHasTheWantedMembersAlone) {
  constexpr std::string_view kWanted[] = {"a", "b"};
  const auto view = JsonView::parse(R"({"a":[{"b":1,"c":2},null,true,-1.5],"c":{"a":1},"b":"\u00e9"})");
  EXPECT_EQ(view->to_json(kWanted), Json::parse(R"({"a":[{"b":1},null,true,-1.5],"b":"é"})"));
}

// Texts that are nearly JSON are taken and refused as the other parser takes and refuses them, and read alike.
TEST(JsonView, AgreesWithTheOtherParserOnMutatedTexts) {
  const std::vector<std::string> seeds = {
      R"({"id":"x","choices":[{"index":0,"text":" tok\u00e9n","logprobs":null,"f":true}],"usage":{"n":-0.5e+3,"m":12}})",
      R"([ [ ] , { } , "" , 0 , false , {"a" : [ 1 , 2 ] , "b":"é😀" } ])", R"("just text")", "-17"};
  const std::string_view spice = "{}[]\",:\\0159eE+-. untrfls\t\n\x01\xC3";
  std::mt19937 random(11);
  int valid = 0;
  for (int i = 0; i < 50'000; ++i) {
    std::string text = seeds[random() % seeds.size()];
    for (size_t edits = 1 + random() % 3; edits > 0 && !text.empty(); --edits) {
      const size_t at = random() % text.size();
      const char c = spice[random() % spice.size()];
      if (random() % 3 == 0)
        text.erase(at, 1 + random() % 3);
      else if (random() % 2 == 0)
        text.insert(at, 1, c);
      else
        text[at] = c;
    }
    const Result<Json> json = parse_json(text);
    const auto view = JsonView::parse(text);
    const bool overflow = !json.ok() && json.status().message().find("number overflow") != std::string::npos;
    ASSERT_EQ(json.ok() || overflow, view.has_value()) << text;
    if (overflow) continue;  // a double cannot hold it; a view need not
    if (!view) continue;
    ++valid;
    compare(*json, *view);
  }
  EXPECT_GT(valid, 2'000);
}

}  // namespace
}  // namespace millrace::bench
