// Golden folders served by the real program: log-probabilities of a prompt by `echo`, and greedy continuations.
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "tests/api/server_process.h"
#include "tests/golden_folders.h"
#include "weights/safetensors.h"

namespace millrace {
namespace {

constexpr double kLogprobTolerance = 2e-3;

class Golden : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    golden_ = *read_json_file(GetParam() + "/golden.json");
    auto server = ServerProcess::start(
        {"--model", GetParam(), "--skip-tokenizer-init", "--dtype", "float32", "--served-model-name", "golden"});
    ASSERT_TRUE(server.ok()) << server.status().message();
    server_ = std::move(*server);
  }
  // The reply's only choice.
  Json complete(Json body) {
    body["model"] = "golden";
    Result<Json> reply = server_->post("/v1/completions", body);
    EXPECT_TRUE(reply.ok()) << reply.status().message();
    return reply.ok() ? (*reply)["choices"][0] : Json();
  }
  Json golden_;
  std::unique_ptr<ServerProcess> server_;
};

// {"token_id:7": -1.5, ...} as (id, logprob), best first.
std::vector<std::pair<int, double>> by_logprob(const Json& top) {
  std::vector<std::pair<int, double>> entries;
  for (const auto& [name, value] : top.items()) entries.emplace_back(std::stoi(name.substr(9)), value.get<double>());
  std::sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) { return a.second > b.second; });
  return entries;
}

// The golden's five best at a position are our five best, and their distances agree.
void check_top5(const Json& want, const Json& top, const std::string& where) {
  const auto got = by_logprob(top);
  ASSERT_GE(got.size(), 5u) << where;
  for (int k = 0; k < 5; ++k) {
    EXPECT_EQ(got[k].first, want["top5_ids"][k].get<int>()) << where << " rank " << k;
    const double distance = want["top5_values"][k].get<double>() - want["top5_values"][0].get<double>();
    EXPECT_NEAR(got[k].second - got[0].second, distance, kLogprobTolerance) << where << " rank " << k;
  }
}

// Row `position` of the full logits gives every log-probability that the reply states.
void check_full_row(const Tensor& logits, int64_t position, const Json& top, const std::string& where) {
  const int64_t vocab = logits.size(1);
  double sum = 0;
  for (int64_t v = 0; v < vocab; ++v) sum += std::exp(element_as_float(logits, position * vocab + v));
  for (const auto& [id, logprob] : by_logprob(top))
    EXPECT_NEAR(logprob, element_as_float(logits, position * vocab + id) - std::log(sum), kLogprobTolerance) << where;
}

TEST_P(Golden, EchoedPromptHasTheReferenceLogprobs) {
  const std::string tensors = GetParam() + "/golden.safetensors";
  for (size_t p = 0; p < golden_["prompts"].size(); ++p) {
    const Json& prompt = golden_["prompts"][p];
    const Json choice = complete({{"prompt", prompt["ids"]}, {"echo", true}, {"max_tokens", 0}, {"logprobs", 5}});
    ASSERT_TRUE(choice.contains("logprobs"));
    const Json& top = choice["logprobs"]["top_logprobs"];
    const Json& chosen = choice["logprobs"]["token_logprobs"];
    const auto length = prompt["length"].get<size_t>();
    ASSERT_EQ(top.size(), length);
    EXPECT_TRUE(top[0].is_null() && chosen[0].is_null());
    for (const auto& [position, want] : prompt["logits"]["positions"].items())
      if (const size_t next = std::stoul(position) + 1; next < length)
        check_top5(want, top[next], fmt::format("prompt {} position {}", p, position));
    if (!file_exists(tensors)) continue;
    const Result<std::unique_ptr<TensorFile>> file = open_safetensors(tensors);
    ASSERT_TRUE(file.ok()) << file.status().message();
    const Tensor logits = *(*file)->tensor(fmt::format("p{}.logits", p));
    for (size_t i = 0; i + 1 < length; ++i)
      check_full_row(logits, static_cast<int64_t>(i), top[i + 1], fmt::format("prompt {} position {}", p, i));
  }
}

TEST_P(Golden, GreedyTokensAreTheReferences) {
  for (const Json& prompt : golden_["prompts"]) {
    const Json choice = complete({{"prompt", prompt["ids"]},
                                  {"max_tokens", 24},
                                  {"temperature", 0},
                                  {"ignore_eos", true},
                                  {"return_token_ids", true}});
    EXPECT_EQ(choice["token_ids"], prompt["greedy_24"]) << "prompt of " << prompt["length"];
    EXPECT_EQ(choice["finish_reason"], "length");
  }
}

INSTANTIATE_TEST_SUITE_P(Folders, Golden, testing::ValuesIn(golden_folders()),
                         [](const auto& info) { return std::filesystem::path(info.param).filename().string(); });

}  // namespace
}  // namespace millrace
