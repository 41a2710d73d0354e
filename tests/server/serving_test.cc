// The server as a whole: access, the small endpoints, disconnects, load, shutdown.
#include <atomic>
#include <latch>

#include "net/sse.h"
#include "tests/net/raw_socket.h"
#include "tests/server/test_server.h"

namespace millrace {
namespace {

using std::chrono::milliseconds;
constexpr const char* kCompletions = "/v1/completions";

std::string raw_post(const std::string& body) {
  return "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" +
         body;
}

TEST(Serving, TheSmallEndpointsAnswer) {
  TestServer s;
  EXPECT_EQ(s.send("GET", "/health").status, 200);
  EXPECT_EQ(s.send("GET", "/health").body, "");
  EXPECT_EQ(s.send("GET", "/ping").status, 200);
  EXPECT_EQ(s.send("POST", "/ping").status, 200);
  EXPECT_EQ(s.send("GET", "/version").body, R"({"version":"0.1.0"})");
  const std::string rest =
      R"("object":"model","created":0,"owned_by":"vllm","root":"/models/m","parent":null,"max_model_len":100,)"
      R"("permission":[{"id":"modelperm-ID","object":"model_permission","created":0,"allow_create_engine":false,)"
      R"("allow_sampling":true,"allow_logprobs":true,"allow_search_indices":false,"allow_view":true,)"
      R"("allow_fine_tuning":false,"organization":"*","group":null,"is_blocking":false}]})";
  EXPECT_EQ(TestServer::anonymous(s.send("GET", "/v1/models").body),
            R"({"object":"list","data":[{"id":"m",)" + rest + R"(,{"id":"alias",)" + rest + "]}");
}

TEST(Serving, TokenizeAndDetokenizeAreInverse) {
  TestServer s;
  EXPECT_EQ(s.post("/tokenize", R"({"prompt":"ab"})").body, R"({"count":3,"max_model_len":100,"tokens":[256,97,98]})");
  EXPECT_EQ(
      s.post("/tokenize", R"({"model":"m","prompt":"ab","add_special_tokens":false,"return_token_strs":true})").body,
      R"({"count":2,"max_model_len":100,"tokens":[97,98],"token_strs":["a","b"]})");
  const Json chat =
      s.post_json("/tokenize", R"({"messages":[{"role":"u","content":"x"}],"add_generation_prompt":false})");
  EXPECT_EQ(chat["count"], 5) << "<u>x and a line break";
  EXPECT_EQ(s.post("/detokenize", R"({"tokens":[97,98]})").body, R"({"prompt":"ab"})");
}

TEST(Serving, KeysProtectEverythingButHealth) {
  ServerConfig config;
  config.api_key = {"first", "second"};
  TestServer s(speak({"x"}), config);
  const HttpResponse refused = s.post(kCompletions, R"({"prompt":"x"})");
  EXPECT_EQ(refused.status, 401);
  EXPECT_EQ(refused.body, R"({"error":"Unauthorized"})");
  for (const char* path : {"/v1/models", "/version", "/tokenize", "/nothing"})
    EXPECT_EQ(s.send("GET", path).status, 401) << path;
  for (const char* path : {"/health", "/ping"}) EXPECT_EQ(s.send("GET", path).status, 200) << path;
  for (const char* wrong : {"Bearer", "Bearer ", "Bearer firs", "Bearer first2", "Basic first", "first"})
    EXPECT_EQ(s.send("GET", "/version", "", {{"Authorization", wrong}}).status, 401) << wrong;
  for (const char* right : {"Bearer first", "Bearer second", "bearer first"})
    EXPECT_EQ(s.send("GET", "/version", "", {{"Authorization", right}}).status, 200) << right;
}

TEST(Serving, BrowsersAreAnsweredAsTheCorsFlagsSay) {
  ServerConfig config;
  config.api_key = {"k"};
  TestServer open(speak({"x"}), config);
  const HttpResponse preflight = open.send("OPTIONS", kCompletions, "",
                                           {{"Origin", "http://page"},
                                            {"Access-Control-Request-Method", "POST"},
                                            {"Access-Control-Request-Headers", "authorization"}});
  EXPECT_EQ(preflight.status, 200);
  EXPECT_EQ(preflight.header("Access-Control-Allow-Origin"), "*");
  EXPECT_EQ(preflight.header("Access-Control-Allow-Headers"), "authorization");
  EXPECT_EQ(open.send("GET", "/health", "", {{"Origin", "http://page"}}).header("Access-Control-Allow-Origin"), "*");
  EXPECT_EQ(open.send("GET", "/health").header("Access-Control-Allow-Origin"), "");
  config.allowed_origins = {"http://mine"};
  config.allow_credentials = true;
  TestServer narrow(speak({"x"}), config);
  EXPECT_EQ(narrow.send("GET", "/health", "", {{"Origin", "http://page"}}).header("Access-Control-Allow-Origin"), "");
  const HttpResponse mine = narrow.send("GET", "/health", "", {{"Origin", "http://mine"}});
  EXPECT_EQ(mine.header("Access-Control-Allow-Origin"), "http://mine");
  EXPECT_EQ(mine.header("Access-Control-Allow-Credentials"), "true");
}

TEST(Serving, AClientThatHangsUpAbortsAllItsRequests) {
  for (const bool stream : {true, false}) {
    SCOPED_TRACE(stream);
    TestServer s(nullptr);
    RawSocket socket(s.server->port());
    socket.send(raw_post(std::string(R"({"prompt":["a","b","c"],"stream":)") + (stream ? "true}" : "false}")));
    s.engine->wait_for_requests(3);
    if (stream) socket.read_until("\r\n\r\n");
    socket.close();
    auto aborted = s.engine->wait_for_aborts(3);
    std::sort(aborted.begin(), aborted.end());
    EXPECT_EQ(aborted, (std::vector<EngineClient::RequestKey>{1, 2, 3}));
    EXPECT_EQ(s.engine->open_requests(), 0u);
  }
}

TEST(Serving, AnOutputAfterTheClientLeftHurtsNobody) {
  TestServer s(nullptr);
  {
    RawSocket socket(s.server->port());
    socket.send(raw_post(R"({"prompt":"a","stream":true})"));
    s.engine->wait_for_requests(1);
    s.engine->emit(1, {.sequences = {say({}, 0, "x")}});
    socket.read_until("\"x\"");
  }
  s.engine->wait_for_aborts(1);
  s.engine->emit(1, {.sequences = {say({}, 0, "y", FinishReason::kStop)}, .finished = true});
  EXPECT_EQ(s.send("GET", "/health").status, 200);
}

TEST(Serving, RoleChunksWaitForTheEnginesFirstResult) {
  TestServer s(nullptr);
  RawSocket socket(s.server->port());
  const std::string body = R"({"messages":[{"role":"user","content":"x"}],"stream":true})";
  socket.send("POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: " + std::to_string(body.size()) +
              "\r\n\r\n" + body);
  s.engine->wait_for_requests(1);
  EXPECT_NE(socket.read_until("\r\n\r\n").find("200 OK"), std::string::npos);
  EXPECT_EQ(socket.read_until("data:", 50), "") << "nothing before the first result";
  s.engine->emit(1, {.sequences = {say({}, 0, "x")}});
  EXPECT_NE(socket.read_until("\"x\"").find(R"("role":"assistant")"), std::string::npos);
}

// While clients stream and others send prompts that take long to read, /health answers from the event loop.
TEST(Serving, HealthIsQuickWhileRequestsAreBusy) {
  EngineLimits limits{.vocab_size = 300, .max_model_len = 1 << 20, .max_logprobs = 20};
  TestServer s(nullptr, {}, true, limits);
  std::string ids = "[1";
  for (int i = 0; i < 50'000; ++i) ids += ",1";
  constexpr int kBusy = 20;
  std::latch done(kBusy);
  for (int i = 0; i < kBusy; ++i)
    s.client.start(
        {.port = s.server->port(), .method = "POST", .target = kCompletions, .body = R"({"prompt":)" + ids + "]}"},
        {.on_done = [&](const Status&) { done.count_down(); }});
  std::vector<double> waits_ms;
  for (int i = 0; i < 100; ++i) {
    const auto start = std::chrono::steady_clock::now();
    EXPECT_EQ(s.send("GET", "/health").status, 200);
    waits_ms.push_back(std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count());
  }
  std::sort(waits_ms.begin(), waits_ms.end());
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  EXPECT_LT(waits_ms[90], 100.0) << "of 100, sorted; a worker's parsing would hold all of them up for longer";
#endif
  s.engine->wait_for_requests(kBusy);
  s.server->shutdown(milliseconds(0));
  done.wait();
}

// Many streams at once, a third of which hang up in the middle: no request stays behind, finished answers are right.
TEST(Serving, ManyStreamsWithHangUpsLeaveNothingBehind) {
  const auto script = speak({"one ", "two ", "three ", "four"});
  TestServer s(script);
  constexpr int kClients = 200;
  struct Client {
    SseParser parser;
    std::string text;
    bool finished = false;
  };
  std::vector<Client> clients(kClients);
  std::latch done(kClients);
  std::atomic<int> wrong{0};
  for (int i = 0; i < kClients; ++i) {
    Client& client = clients[static_cast<size_t>(i)];
    const bool hangs_up = i % 3 == 0;
    const auto on_event = [&client](std::string_view data) {
      if (data == "[DONE]")
        client.finished = true;
      else
        client.text += Json::parse(data)["choices"][0]["text"].get<std::string>();
    };
    s.client.start({.port = s.server->port(),
                    .method = "POST",
                    .target = kCompletions,
                    .body = R"({"prompt":"x","stream":true,"max_tokens":50})"},
                   {.on_data = [&client, hangs_up, on_event](
                                   std::string_view bytes) { return client.parser.feed(bytes, on_event) && !hangs_up; },
                    .on_done =
                        [&, hangs_up](const Status&) {
                          wrong += !hangs_up && (!client.finished || client.text != "one two three four");
                          done.count_down();
                        }});
  }
  done.wait();
  EXPECT_EQ(wrong, 0);
  s.server->shutdown(milliseconds(2000));
  EXPECT_EQ(s.engine->open_requests(), 0u);
}

TEST(Serving, ShutdownFinishesRunningStreamsAndAbortsTheRestAtTheDeadline) {
  TestServer s(nullptr);
  RawSocket finishing(s.server->port()), endless(s.server->port());
  finishing.send(raw_post(R"({"prompt":"a","stream":true})"));
  s.engine->wait_for_requests(1);
  endless.send(raw_post(R"({"prompt":"b","stream":true})"));
  s.engine->wait_for_requests(2);
  finishing.read_until("\r\n\r\n");
  std::thread stopper([&] { s.server->shutdown(milliseconds(1000)); });
  s.engine->emit(1, {.sequences = {say({}, 0, "bye", FinishReason::kStop)}, .finished = true});
  EXPECT_NE(finishing.read_all().find("data: [DONE]"), std::string::npos);
  stopper.join();
  EXPECT_EQ(s.engine->wait_for_aborts(1), (std::vector<EngineClient::RequestKey>{2}));
  EXPECT_TRUE(endless.closed_within(1000));
}

// The engine's thread is the last to hold the request; the engine itself must not be destroyed there.
TEST(Serving, AServerMayGoAwayWhileOutputsAreOnTheirWay) {
  for (int round = 0; round < 30; ++round) {
    TestServer s(speak(std::vector<std::string>(50, "word ")));
    RawSocket socket(s.server->port());
    socket.send(raw_post(R"({"prompt":["a","b"],"stream":true,"max_tokens":99})"));
    s.engine->wait_for_requests(2);
    const std::weak_ptr<FakeEngine> engine = s.engine;
    s.server.reset();
    s.engine.reset();
    EXPECT_TRUE(engine.expired());
  }
}

TEST(Serving, ANewServerMayTakeThePortAtOnce) {
  auto first = std::make_unique<TestServer>();
  const int port = first->server->port();
  first->post(kCompletions, R"({"prompt":"x"})");
  ServerConfig config{.host = "127.0.0.1", .port = port, .served_model_name = {"m"}};
  ApiServer second(config, first->engine, nullptr);
  EXPECT_EQ(second.start().code(), Code::kAlreadyExists);
  first->server->shutdown(milliseconds(0));
  ApiServer third(config, first->engine, nullptr);
  EXPECT_TRUE(third.start().ok());
}

}  // namespace
}  // namespace millrace
