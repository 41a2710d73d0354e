// Many streaming clients, a third of whom hang up somewhere: nothing leaks and every finished answer is right. And
// /health while a long prompt is being computed. MILLRACE_SOAK_SECONDS sets how long (10 unless set).
#include <gtest/gtest.h>
#include <signal.h>

#include <atomic>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/file.h"
#include "base/random.h"
#include "tests/api/server_process.h"

namespace millrace {
namespace {

using Clock = std::chrono::steady_clock;
constexpr int kClients = 200, kKinds = 40;

int soak_seconds() {
  const char* text = std::getenv("MILLRACE_SOAK_SECONDS");
  return text ? std::max(1, std::atoi(text)) : 10;
}

std::string make_demo(const TemporaryDirectory& folder, const std::string& more = "{}") {
  const CommandResult made =
      run_millrace({"init", folder.file("m"), "--family", "qwen2", "--size", "tiny", "--config-overrides", more});
  EXPECT_EQ(made.exit_code, 0) << made.output;
  return folder.file("m");
}

Json request(int kind) {
  Random random(kind);
  Json prompt = Json::array();
  for (uint32_t i = 0, n = 1 + random.below(120); i < n; ++i) prompt.push_back(random.below(250));
  return {{"model", "m"},
          {"prompt", prompt},
          {"max_tokens", 8 + random.below(60)},
          {"temperature", kind % 2 ? 0.8 : 0.0},
          {"seed", kind},
          {"ignore_eos", true},
          {"stream", true},
          {"return_token_ids", true}};
}

HttpCall call_for(const ServerProcess& server, const Json& body) {
  HttpCall call{.port = server.port(), .method = "POST", .target = "/v1/completions", .body = dump_json(body)};
  call.headers = {{"Content-Type", "application/json"}};
  return call;
}

// The tokens of a whole stream; stops after `most_events` events.
Result<std::vector<int32_t>> stream(HttpClient& client, ServerProcess& server, int kind, int most_events,
                                    bool& finished) {
  std::vector<int32_t> tokens;
  int events = 0;
  finished = false;
  const Result<HttpResponse> reply = client.stream_events(call_for(server, request(kind)), [&](std::string_view data) {
    if (data == "[DONE]")
      finished = true;
    else if (const Result<Json> json = parse_json(data); json.ok() && json->contains("choices"))
      for (const Json& choice : (*json)["choices"])
        for (const Json& id : choice.value("token_ids", Json::array())) tokens.push_back(id);
    return ++events < most_events;
  });
  if (!reply.ok() && events < most_events) return reply.status();
  return tokens;
}

// Waits until the server runs nothing and holds only the descriptors it had before.
bool settles(ServerProcess& server, int descriptors) {
  for (int i = 0; i < 300; ++i) {
    if (server.open_descriptors() <= descriptors + 2) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return false;
}

TEST(Soak, ClientsThatHangUpLeaveNothingBehind) {
  const TemporaryDirectory folder;
  auto started = ServerProcess::start({"--model", make_demo(folder), "--served-model-name", "m",
                                       "--num-gpu-blocks-override", "600", "--dtype", "float32"});
  ASSERT_TRUE(started.ok()) << started.status().message();
  ServerProcess& server = **started;
  std::vector<std::vector<int32_t>> want(kKinds);
  for (int kind = 0; kind < kKinds; ++kind) {
    bool finished = false;
    want[kind] = *stream(server.client(), server, kind, INT32_MAX, finished);
    ASSERT_TRUE(finished && !want[kind].empty());
  }
  const int descriptors = server.open_descriptors(), threads = server.threads();
  std::atomic<int> finished_answers{0}, hung_up{0}, wrong{0}, failed{0};
  std::atomic<int64_t> resident_after_warm_up{0};
  const Clock::time_point start = Clock::now(), end = start + std::chrono::seconds(soak_seconds());
  std::vector<std::thread> clients;
  for (int c = 0; c < kClients; ++c)
    clients.emplace_back([&, c] {
      HttpClient client;
      Random random(9000 + c);
      while (Clock::now() < end) {
        const int kind = static_cast<int>(random.below(kKinds));
        const bool hangs_up = random.below(3) == 0;
        bool finished = false;
        const auto tokens =
            stream(client, server, kind, hangs_up ? 1 + static_cast<int>(random.below(12)) : INT32_MAX, finished);
        if (!tokens.ok())
          ++failed;
        else if (hangs_up && !finished)
          ++hung_up;
        else
          ++finished_answers, wrong += *tokens != want[kind];
        if (resident_after_warm_up == 0 && Clock::now() - start > (end - start) / 3)
          resident_after_warm_up = server.resident_bytes();
      }
    });
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(failed, 0);
  EXPECT_GT(finished_answers, kClients / 4);
  EXPECT_GT(hung_up, 10);
  EXPECT_TRUE(settles(server, descriptors)) << server.open_descriptors() << " descriptors, before " << descriptors;
  EXPECT_EQ(server.threads(), threads);
  EXPECT_LT(server.resident_bytes(), resident_after_warm_up + (16 << 20));
  // All blocks are free: a sequence that needs nearly every one of them is served.
  bool finished = false;
  EXPECT_EQ(*stream(server.client(), server, 0, INT32_MAX, finished), want[0]);
  EXPECT_EQ(server.stop(SIGTERM), 0) << server.log();
  RecordProperty("finished_answers", finished_answers);
}

TEST(Soak, HealthAnswersWhileALongPromptIsComputed) {
  const TemporaryDirectory folder;
  const std::string model = make_demo(
      folder,
      R"({"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12, "max_position_embeddings": 4096})");
  auto started = ServerProcess::start({"--model", model, "--served-model-name", "m", "--no-enable-prefix-caching"});
  ASSERT_TRUE(started.ok()) << started.status().message();
  ServerProcess& server = **started;
  std::atomic<bool> done{false};
  std::thread prefill([&] {
    for (int i = 0; i < 3; ++i) {
      const Result<Json> reply = server.post(
          "/v1/completions", {{"model", "m"}, {"prompt", std::vector<int>(2000, 65 + i)}, {"max_tokens", 1}});
      EXPECT_TRUE(reply.ok()) << reply.status().message();
    }
    done = true;
  });
  std::vector<double> latencies_ms;
  HttpClient client;
  while (!done) {
    const Clock::time_point start = Clock::now();
    const auto reply = client.get("127.0.0.1", server.port(), "/health");
    EXPECT_TRUE(reply.ok() && reply->status == 200);
    latencies_ms.push_back(std::chrono::duration<double, std::milli>(Clock::now() - start).count());
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  prefill.join();
  std::sort(latencies_ms.begin(), latencies_ms.end());
  ASSERT_GT(latencies_ms.size(), 20u);
  EXPECT_LT(latencies_ms[latencies_ms.size() * 99 / 100], 100) << latencies_ms.size() << " answers";
}

TEST(Shutdown, SigtermFinishesRunningStreams) {
  const TemporaryDirectory folder;
  auto started = ServerProcess::start({"--model", make_demo(folder), "--served-model-name", "m"});
  ASSERT_TRUE(started.ok());
  ServerProcess& server = **started;
  bool finished = false;
  std::atomic<bool> begun{false};
  size_t tokens = 0;
  std::thread client([&] {
    HttpClient http;
    const Json body = {{"model", "m"},       {"prompt", {1, 2, 3}}, {"max_tokens", 200},
                       {"ignore_eos", true}, {"stream", true},      {"return_token_ids", true}};
    const auto reply = http.stream_events(call_for(server, body), [&](std::string_view data) {
      begun = true;
      if (data == "[DONE]") return finished = true;
      const Result<Json> json = parse_json(data);
      for (const Json& choice : json->at("choices")) tokens += choice.value("token_ids", Json::array()).size();
      return true;
    });
  });
  while (!begun) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  EXPECT_EQ(server.stop(SIGTERM), 0);
  client.join();
  EXPECT_TRUE(finished);
  EXPECT_EQ(tokens, 200u);
}

}  // namespace
}  // namespace millrace
