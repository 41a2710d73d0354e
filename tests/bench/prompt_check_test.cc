// Prompts against a server whose tokens are so many bytes each.
#include "bench/prompt_check.h"

#include <gtest/gtest.h>

#include "tests/bench/mock_llm.h"

namespace millrace::bench {
namespace {

LoadTarget target_of(const MockLlm& server) {
  const BackEnd* chat = *find_back_end("openai-chat");
  return {.port = server.port(), .path = chat->path, .back_end = chat, .options = {.model = "m"}};
}
std::vector<LoadRequest> prompts(const std::vector<std::string>& texts, int64_t tokens) {
  std::vector<LoadRequest> requests;
  for (const std::string& text : texts) requests.push_back({.prompt = text, .prompt_tokens = tokens});
  return requests;
}

TEST(PromptCheck, PromptsTheServerCountsAlikeAreLeftAlone) {
  const MockLlm server({.bytes_per_token = 2});
  auto requests = prompts({"aabbcc", "xx"}, 3);
  const auto check = check_prompts(target_of(server), true, 0, requests);
  ASSERT_TRUE(check.ok());
  EXPECT_TRUE(check->asked);
  EXPECT_EQ(check->note, "");
  EXPECT_EQ(requests[1].prompt, "xx");  // one prompt speaks for all
}

TEST(PromptCheck, OthersAreCutAndExtendedToTheServersCount) {
  const MockLlm server({.bytes_per_token = 2});
  auto requests = prompts({"aaaaaaaa", "bb"}, 3);
  const auto check = check_prompts(target_of(server), true, 0, requests);
  ASSERT_TRUE(check.ok()) << check.status().message();
  EXPECT_EQ(check->recreated, 2);
  EXPECT_EQ(check->inexact, 0);
  EXPECT_EQ(requests[0].prompt, "aaaaaa");
  EXPECT_EQ(requests[1].prompt, "bbbbbb");
  EXPECT_EQ(check->note,
            "the server counts 4 tokens in a prompt of 3; 2 made anew by its count, 0 of them still miss it");
}

TEST(PromptCheck, TextsOfADataSetAreReportedNotChanged) {
  const MockLlm server({.bytes_per_token = 1});
  auto requests = prompts({"hello"}, 2);
  const auto check = check_prompts(target_of(server), false, 0, requests);
  EXPECT_EQ(check->note, "the server counts 5 tokens in a prompt of 2");
  EXPECT_EQ(requests[0].prompt, "hello");
}

TEST(PromptCheck, ASharedFrontStaysShared) {
  const MockLlm server({.bytes_per_token = 1});
  auto requests = prompts({"FRONTabc", "FRONTx"}, 7);
  const auto check = check_prompts(target_of(server), true, 5, requests);
  ASSERT_TRUE(check.ok());
  EXPECT_EQ(requests[0].prompt, "FRONTab");
  EXPECT_EQ(requests[1].prompt, "FRONTxF");
}

TEST(PromptCheck, IdsAndServersWithoutTokenizersAreNotAsked) {
  const MockLlm server({});
  auto requests = prompts({"a"}, 3);
  EXPECT_FALSE(check_prompts(target_of(server), true, 0, requests)->asked);
  const MockLlm able({.bytes_per_token = 1});
  std::vector<LoadRequest> ids = {{.prompt_ids = {1, 2}, .prompt_tokens = 2}};
  EXPECT_FALSE(check_prompts(target_of(able), true, 0, ids)->asked);
}

}  // namespace
}  // namespace millrace::bench
