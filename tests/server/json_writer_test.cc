#include "server/json_writer.h"

#include <gtest/gtest.h>

#include <chrono>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "base/random.h"
#include "server/completion_format.h"
#include "server/fields.h"

namespace millrace {
namespace {

TEST(JsonWriter, PutsCommasWhereTheyBelong) {
  std::string out;
  JsonWriter json(out);
  json.begin_object().field("a", 1).key("b").begin_array().value("x").null().begin_object().end_object().end_array();
  json.field("c", true).key("d").ids(std::vector<int32_t>{1, 2}).key("e").raw("{}").end_object();
  EXPECT_EQ(out, R"({"a":1,"b":["x",null,{}],"c":true,"d":[1,2],"e":{}})");
}

TEST(JsonWriter, AnyBytesBecomeAValidStringThatReadsBack) {
  Random random(5);
  for (int round = 0; round < 2000; ++round) {
    std::string text;
    for (uint32_t i = 0, size = random.below(20); i < size; ++i)
      text += static_cast<char>(random.below(2) ? random.below(128) : random.below(256));
    std::string out;
    JsonWriter(out).value(text);
    const Json back = Json::parse(out);
    EXPECT_EQ(back.get<std::string>(), Json::parse(dump_json(Json(text))).get<std::string>()) << out;
  }
}

TEST(JsonWriter, FloatsReadBackAsTheSameFloat) {
  Random random(6);
  for (int round = 0; round < 5000; ++round) {
    const float number = -random.uniform() * std::pow(10.f, static_cast<float>(random.below(12)) - 6);
    std::string out;
    JsonWriter(out).value(number);
    EXPECT_EQ(static_cast<float>(Json::parse(out).get<double>()), number) << out;
    EXPECT_TRUE(Json::parse(out).is_number_float()) << out;
  }
}

TEST(JsonWriter, AStreamChunkCostsMicroseconds) {
  GenerationOptions options;
  CompletionFormat format({.id = "cmpl-0123456789abcdef0123456789abcdef", .model = "m"}, options,
                          std::vector<PreparedPrompt>(1), TokenNames(nullptr, false), false);
  RequestOutput output;
  output.sequences.push_back({.token_ids = {1}, .text = " hello"});
  constexpr int kChunks = 20'000;
  double best_us = 1e9;
  for (int attempt = 0; attempt < 5; ++attempt) {
    std::string events;
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < kChunks; ++i) {
      events.clear();
      format.append_events(0, output, {}, events);
    }
    const std::chrono::duration<double, std::micro> spent = std::chrono::steady_clock::now() - start;
    best_us = std::min(best_us, spent.count() / kChunks);
  }
  RecordProperty("microseconds", std::to_string(best_us));
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  EXPECT_LT(best_us, 5.0);
#endif
}

TEST(Fields, NullMeansAbsentAndTheFirstErrorIsKept) {
  const Json body = Json::parse(R"({"a":null,"b":"x","c":2.0,"d":1})");
  Fields fields(body);
  int64_t a = 7, b = 7, c = 7;
  fields.read("a", a);
  fields.read("c", c);
  EXPECT_EQ(a, 7);
  EXPECT_EQ(c, 2) << "a whole number written with a point";
  EXPECT_TRUE(fields.ok());
  fields.read("b", b);
  fields.fail(invalid_argument("later"));
  EXPECT_NE(fields.finish().message().find("b is \"x\""), std::string::npos);
}

}  // namespace
}  // namespace millrace
