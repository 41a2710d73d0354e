#include "engine/stop.h"

#include <gtest/gtest.h>

#include "base/random.h"

namespace millrace {
namespace {

TEST(StopStrings, TextThatMayBeginAStopStringIsHeldBack) {
  const std::vector<std::string> stops = {"</tool>", "\n\n"};
  StopStrings text(stops, false);
  EXPECT_FALSE(text.append("hello</t", true).has_value());
  EXPECT_EQ(text.take(), "hello");
  EXPECT_FALSE(text.append("able\n", true).has_value());
  EXPECT_EQ(text.take(), "</table");
  EXPECT_EQ(text.append("\nmore", true), "\n\n");
  EXPECT_EQ(text.take(), "");
  EXPECT_EQ(text.take_rest(), "");
}

TEST(StopStrings, HeldBackTextComesWhenNothingFollows) {
  const std::vector<std::string> stops = {"STOP"};
  StopStrings text(stops, false);
  EXPECT_FALSE(text.append("STO", true).has_value());
  EXPECT_EQ(text.take(), "");
  EXPECT_EQ(text.take_rest(), "STO");
}

TEST(StopStrings, TheStringThatIsCompleteFirstWins) {
  const std::vector<std::string> stops = {"bcd", "ab", "cab"};
  StopStrings text(stops, false);
  EXPECT_EQ(text.append("xxcabcd", true), "cab") << "ends with ab, and is longer";
  EXPECT_EQ(text.take_rest(), "xx");
}

TEST(StopStrings, TheStopStringStaysWhereItIsAskedFor) {
  const std::vector<std::string> stops = {"ab"};
  StopStrings text(stops, true);
  EXPECT_FALSE(text.append("xa", true).has_value());
  EXPECT_EQ(text.append("byz", true), "ab");
  EXPECT_EQ(text.take(), "xab");
}

TEST(StopStrings, AMatchThatWasCompleteBeforeLookingDoesNotCount) {
  const std::vector<std::string> stops = {"b"};
  StopStrings text(stops, false);
  EXPECT_FALSE(text.append("abc", false).has_value());
  EXPECT_FALSE(text.append("d", true).has_value());
  EXPECT_EQ(text.append("ab", true), "b");
  EXPECT_EQ(text.take_rest(), "abcda");
}

TEST(StopStrings, WhereTextIsCutIntoPiecesChangesNothing) {
  Random random(9);
  for (int round = 0; round < 3000; ++round) {
    std::string whole(1 + random.below(20), ' ');
    for (char& c : whole) c = static_cast<char>('a' + random.below(2));
    std::vector<std::string> stops(1 + random.below(3));
    for (std::string& stop : stops) {
      stop.resize(1 + random.below(4));
      for (char& c : stop) c = static_cast<char>('a' + random.below(2));
    }
    size_t first_end = std::string::npos, first_start = 0;
    for (const std::string& stop : stops) {
      const size_t at = whole.find(stop);
      if (at == std::string::npos) continue;
      if (at + stop.size() < first_end || (at + stop.size() == first_end && at < first_start)) {
        first_end = at + stop.size(), first_start = at;
      }
    }
    const std::string wanted = first_end == std::string::npos ? whole : whole.substr(0, first_start);
    StopStrings text(stops, false);
    std::string sent;
    bool stopped = false;
    for (size_t at = 0; at < whole.size() && !stopped;) {
      const size_t size = 1 + random.below(4);
      stopped = text.append(std::string_view(whole).substr(at, size), true).has_value();
      sent += text.take();
      ASSERT_TRUE(wanted.starts_with(sent)) << "sent '" << sent << "' of '" << wanted << "'";
      at += size;
    }
    ASSERT_EQ(sent + text.take_rest(), wanted);
    ASSERT_EQ(stopped, first_end != std::string::npos);
  }
}

SamplingParams params_of(int64_t max_tokens) {
  SamplingParams params;
  params.max_tokens = max_tokens;
  return params;
}

TEST(CheckStop, OrderIsEosStopIdsThenLengths) {
  SamplingParams params = params_of(3);
  params.stop_token_ids = {7, 9};
  const std::vector<int32_t> eos = {7};
  const StopVerdict at_eos = check_stop(params, eos, 100, 7, 3, 10);
  EXPECT_EQ(at_eos.reason, FinishReason::kStop);
  EXPECT_FALSE(at_eos.stop_token_id.has_value());
  EXPECT_EQ(check_stop(params, eos, 100, 9, 3, 10).stop_token_id, 9);
  EXPECT_EQ(check_stop(params, eos, 100, 5, 3, 10).reason, FinishReason::kLength);
  EXPECT_EQ(check_stop(params, eos, 10, 5, 1, 10).reason, FinishReason::kLength);
  EXPECT_EQ(check_stop(params, eos, 11, 5, 1, 10).reason, FinishReason::kNone);
  params.ignore_eos = true;
  EXPECT_EQ(check_stop(params, eos, 100, 7, 1, 10).stop_token_id, 7);
  params.stop_token_ids.clear();
  EXPECT_EQ(check_stop(params, eos, 100, 7, 1, 10).reason, FinishReason::kNone);
}

TEST(CheckStop, NothingButLengthBeforeMinTokens) {
  SamplingParams params = params_of(5);
  params.min_tokens = 3;
  const std::vector<int32_t> eos = {7};
  EXPECT_EQ(check_stop(params, eos, 100, 7, 2, 10).reason, FinishReason::kNone);
  EXPECT_EQ(check_stop(params, eos, 100, 7, 3, 10).reason, FinishReason::kStop);
  EXPECT_EQ(check_stop(params, eos, 10, 7, 2, 10).reason, FinishReason::kLength);
}

}  // namespace
}  // namespace millrace
