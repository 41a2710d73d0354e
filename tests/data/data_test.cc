#include <gtest/gtest.h>

#include <numeric>

#include "base/file.h"
#include "data/lengths.h"
#include "data/text_pairs.h"
#include "data/trace.h"

namespace millrace::data {
namespace {

class Files : public testing::Test {
 protected:
  std::string file(std::string_view text) {
    const std::string path = folder_.file(std::to_string(count_++));
    EXPECT_TRUE(write_file(path, text).ok());
    return path;
  }
  TemporaryDirectory folder_;
  int count_ = 0;
};
using TextPairs = Files;
using Traces = Files;

TEST_F(TextPairs, EachFormatGivesPromptAndReference) {
  const struct {
    const char *format, *text;
  } cases[] = {
      {"sharegpt", R"([{"id":"0","conversations":[{"from":"human","value":"q"},{"from":"gpt","value":"a"},{"value":3}]},
                       {"conversations":[{"from":"human","value":"alone"}]}])"},
      {"alpaca", R"([{"instruction":"i","input":"q","output":"a"}])"},
      {"custom", R"([{"input":"q","output":"a"}])"},
      {"custom", "{\"prompt\":\"q\",\"completion\":\"a\"}\n\n"},
      {"human-eval", R"({"task_id":"0","prompt":"q","canonical_solution":"a","test":"t"})"},
  };
  for (const auto& c : cases) {
    const auto pairs = read_pairs(file(c.text), *find_pair_format(c.format));
    ASSERT_TRUE(pairs.ok()) << pairs.status().message();
    ASSERT_EQ(pairs->size(), 1u) << c.format;
    EXPECT_EQ((*pairs)[0].prompt, "q");
    EXPECT_EQ((*pairs)[0].reference, "a");
  }
  EXPECT_EQ((*read_pairs(file(R"({"turns":["x","y"]})"), PairFormat::kSpecBench))[0].prompt, "x");
  const auto filled = read_pairs(file(cases[1].text), PairFormat::kAlpaca, AlpacaPrompt::kTemplate);
  EXPECT_NE((*filled)[0].prompt.find("### Instruction:\ni\n\n### Input:\nq"), std::string::npos);
}

TEST_F(TextPairs, ErrorsNameFileRowAndKey) {
  const struct {
    const char *format, *text, *message;
  } cases[] = {
      {"alpaca", R"([{"output":"a"},{"input":"q"}])", "row 2: \"output\" is missing"},
      {"alpaca", "[5]", "row 1: an integer; an object is wanted"},
      {"sharegpt", R"([{"conversations":[1,2]}])", "no object"},
      {"sharegpt", R"([{"conversations":[]}])", "no usable row of format sharegpt"},
      {"custom", "{\"prompt\":7}", "\"prompt\" is an integer; a string is wanted"},
      {"human-eval", "{\"prompt\":\"q\"}\n{", "line 2"},
  };
  for (const auto& c : cases) {
    const auto pairs = read_pairs(file(c.text), *find_pair_format(c.format));
    ASSERT_FALSE(pairs.ok()) << c.text;
    EXPECT_NE(pairs.status().message().find(c.message), std::string::npos) << pairs.status().message();
  }
  EXPECT_FALSE(read_pairs("/nowhere/x.json", PairFormat::kAlpaca).ok());
  EXPECT_NE(find_pair_format("sharegtp").status().message().find("did you mean 'sharegpt'"), std::string::npos);
}

TEST_F(Traces, BothFormatsAreReadInOrderOfTime) {
  const auto mooncake =
      read_trace(file("{\"timestamp\":3000,\"input_length\":5,\"output_length\":6,\"hash_ids\":[1,2]}\n"
                      "{\"timestamp\":1000,\"input_length\":7,\"output_length\":8}\n"));
  ASSERT_TRUE(mooncake.ok()) << mooncake.status().message();
  EXPECT_EQ((*mooncake)[0].input_tokens, 7);
  EXPECT_EQ((*mooncake)[1].at_s, 2);
  EXPECT_EQ((*mooncake)[1].hash_ids, (std::vector<int64_t>{1, 2}));
  const auto burst =
      read_trace(file("Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\r\n"
                      "5,ChatGPT,472,18,490,Conversation log\r\n45,GPT-4,1087,230,1317,x\r\n"
                      "118,GPT-4,417,0,417,x\r\n120,GPT-4,10,3,13,x\r\n"));
  ASSERT_TRUE(burst.ok()) << burst.status().message();
  ASSERT_EQ(burst->size(), 2u);
  EXPECT_EQ((*burst)[0].output_tokens, 230);
  EXPECT_EQ((*burst)[1].at_s, 75);
}

TEST_F(Traces, BrokenOnesAreRefused) {
  for (const char* text :
       {"", "a,b\n1,2\n", "{\"timestamp\":1}", "{\"timestamp\":0,\"input_length\":0,\"output_length\":1}",
        "{\"timestamp\":0,\"input_length\":1e18,\"output_length\":1}", "{",
        "Timestamp,Model,Request tokens,Response tokens\n1,GPT-4\n"})
    EXPECT_FALSE(read_trace(file(text)).ok()) << text;
}

TEST(Lengths, FollowTheSpread) {
  Random random(4);
  const LengthSpread spread{.min = 50, .max = 150, .avg = 100, .std = 20};
  ASSERT_TRUE(check_spread(spread, "input").ok());
  const std::vector<int64_t> lengths = draw_lengths(spread, 20'000, random);
  const double mean = static_cast<double>(std::accumulate(lengths.begin(), lengths.end(), int64_t{0})) / 20'000;
  double squares = 0;
  for (const int64_t length : lengths) {
    ASSERT_TRUE(length >= 50 && length <= 150);
    squares += (static_cast<double>(length) - mean) * (static_cast<double>(length) - mean);
  }
  EXPECT_NEAR(mean, 100, 0.6);
  EXPECT_NEAR(std::sqrt(squares / 20'000), 19.1, 0.4);  // a normal cut at 2.5 sigma
  EXPECT_EQ(draw_lengths({.min = 7, .max = 7, .avg = 7, .std = 3}, 2, random), (std::vector<int64_t>{7, 7}));
}

TEST(Lengths, ImpossibleSpreadsAreRefused) {
  for (const LengthSpread& bad : {LengthSpread{.min = 0}, LengthSpread{.min = 5, .max = 4, .avg = 4},
                                  LengthSpread{.min = 1, .max = 4, .avg = 5}, LengthSpread{.std = -1}})
    EXPECT_FALSE(check_spread(bad, "input").ok());
}

}  // namespace
}  // namespace millrace::data
