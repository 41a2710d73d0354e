// A real trained model: stories260K, turned into a Hugging Face folder, continues as recorded.
#include "tests/api/server_process.h"
#include "tests/stories_folder.h"

namespace millrace {
namespace {

TEST(Stories, GreedyTokensAndTextAreTheRecorded) {
  if (!file_exists(kStories)) GTEST_SKIP() << "needs ../shared/data/models/stories260K";
  const TemporaryDirectory folder;
  convert_stories(folder.path());
  const Json golden = *read_json_file(kStories + "/golden_greedy.json");
  auto server = ServerProcess::start({"--model", folder.path(), "--served-model-name", "stories"});
  ASSERT_TRUE(server.ok()) << server.status().message();
  const auto recorded = golden["tokens"].get<std::vector<int32_t>>();
  const Result<Json> reply = (*server)->post("/v1/completions", {{"model", "stories"},
                                                                 {"prompt", Json::array({recorded[0]})},
                                                                 {"max_tokens", recorded.size() - 1},
                                                                 {"temperature", 0},
                                                                 {"ignore_eos", true},
                                                                 {"return_token_ids", true}});
  ASSERT_TRUE(reply.ok()) << reply.status().message();
  const Json& choice = (*reply)["choices"][0];
  EXPECT_EQ(choice["token_ids"].get<std::vector<int32_t>>(),
            std::vector<int32_t>(recorded.begin() + 1, recorded.end()));
  EXPECT_LE(choice["text"].get<std::string>().find("Once upon a time, there was a little girl named Lily."), 1u)
      << choice["text"];
  // The same text, sent as text: the tokenizer gives the same ids back.
  const Result<Json> again = (*server)->post("/tokenize", {{"prompt", choice["text"]}});
  ASSERT_TRUE(again.ok()) << again.status().message();
  const auto ids = (*again)["tokens"].get<std::vector<int32_t>>();
  EXPECT_EQ(std::vector<int32_t>(ids.begin(), ids.begin() + 60),
            std::vector<int32_t>(recorded.begin(), recorded.begin() + 60));
}

}  // namespace
}  // namespace millrace
