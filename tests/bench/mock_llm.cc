#include "tests/bench/mock_llm.h"

#include <condition_variable>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <queue>
#include <thread>

#include "base/json.h"
#include "net/sse.h"
#include "tests/bench/picture_size.h"
#include "tokenizer/format/base64.h"

namespace millrace {

using Clock = std::chrono::steady_clock;

// One thread writes what is due.
struct MockLlm::State {
  struct Write {
    Clock::time_point due;
    int64_t order;
    HttpReply reply;
    std::string bytes;
    bool begins, ends;
    size_t request;  // an event with tokens of this one; 0: none
    bool operator<(const Write& other) const { return std::pair(due, order) > std::pair(other.due, other.order); }
  };
  explicit State(MockScript s) : script(std::move(s)) {}

  void at(Clock::time_point due, const HttpReply& reply, std::string bytes, bool begins = false, bool ends = false,
          size_t request = 0) {
    std::lock_guard lock(mutex);
    writes.push({due, order++, reply, std::move(bytes), begins, ends, request});
    changed.notify_one();
  }
  void run() {
    std::unique_lock lock(mutex);
    while (!stop) {
      if (writes.empty()) {
        changed.wait(lock);
        continue;
      }
      if (const auto due = writes.top().due; Clock::now() < due) {
        changed.wait_until(lock, due);
        continue;
      }
      const Write write = writes.top();
      writes.pop();
      lock.unlock();
      const auto now = Clock::now();
      if (write.begins) write.reply.begin({.content_type = "text/event-stream"});
      if (!write.bytes.empty()) write.reply.write(write.bytes);
      if (write.ends) write.reply.end();
      lock.lock();
      begun += write.begins, ended += write.ends;
      if (write.request > 0) written[write.request].push_back(now);
    }
  }

  // The pages beside the streams.
  std::optional<HttpResponse> page(const HttpRequest& request) {
    std::lock_guard lock(mutex);
    const HttpResponse none{.status = 404};
    if (request.path == "/metrics")
      return script.metrics ? HttpResponse{.content_type = "text/plain", .body = script.metrics(begun, ended)} : none;
    if (request.path == "/v1/models")
      return script.model.empty() ? none : HttpResponse{.body = Json{{"data", {{{"id", script.model}}}}}.dump()};
    if (request.path == "/reset_prefix_cache") {
      cache_resets += script.cache_can_be_reset;
      return script.cache_can_be_reset ? HttpResponse{.body = ""} : none;
    }
    if (request.path == "/tokenize") return script.bytes_per_token > 0 ? tokenized(request.body) : none;
    if (request.path == "/detokenize") return script.bytes_per_token > 0 ? detokenized(request.body) : none;
    return request.method == "POST" ? std::nullopt : std::optional(none);
  }
  // A token is `bytes_per_token` bytes and holds the first of them: texts of one letter come back as they were.
  HttpResponse tokenized(const std::string& body) const {
    const std::string text = Json::parse(body)["prompt"];
    const auto step = static_cast<size_t>(script.bytes_per_token);
    Json tokens = Json::array();
    for (size_t i = 0; i < text.size(); i += step) tokens.push_back(static_cast<int>(static_cast<uint8_t>(text[i])));
    return {.body = Json{{"count", tokens.size()}, {"tokens", tokens}}.dump()};
  }
  HttpResponse detokenized(const std::string& body) const {
    std::string text;
    const Json asked = Json::parse(body);
    for (const int token : asked["tokens"])
      text += std::string(static_cast<size_t>(script.bytes_per_token), static_cast<char>(token & 127));
    return {.body = Json{{"prompt", text}}.dump()};
  }

  const MockScript script;
  int begun = 0, ended = 0, cache_resets = 0;
  std::mutex mutex;
  std::condition_variable changed;
  std::priority_queue<Write> writes;
  std::vector<Clock::time_point> arrivals;
  std::map<size_t, std::vector<Clock::time_point>> written;  // by number of the request, from 1
  std::vector<std::string> bodies;
  int64_t order = 0;
  bool stop = false;
  std::thread writer;
};

namespace {

enum class Speech { kCompletions, kChat, kTrt, kLines, kEmbedding };

struct Asked {
  int tokens = 0, prompt_tokens = 0;
  Speech speech = Speech::kCompletions;
  bool usage = false, continuous = false;
};

Speech speech_of(const std::string& path) {
  if (path.find("chat") != std::string::npos) return Speech::kChat;
  if (path.find("embeddings") != std::string::npos) return Speech::kEmbedding;
  if (path.find("ensemble") != std::string::npos) return Speech::kTrt;
  return path == "/v1/generate" ? Speech::kLines : Speech::kCompletions;
}

// [height, width] of the picture in a chat request; zeros if there is not exactly one that can be decoded.
std::pair<int, int> picture_of(const Json& body) {
  std::vector<std::string> urls;
  for (const Json& message : body.value("messages", Json::array()))
    if (message["content"].is_array())
      for (const Json& part : message["content"])
        if (part["type"] == "image_url") urls.push_back(part["image_url"]["url"]);
  const size_t comma = urls.size() == 1 ? urls[0].find(";base64,") : std::string::npos;
  if (comma == std::string::npos) return {};
  const auto file = decode_base64(std::string_view(urls[0]).substr(comma + 8));
  if (!file) return {};
  return urls[0].starts_with("data:image/png") ? png_size(*file) : jpeg_size(*file);
}

Asked parse(const HttpRequest& request) {
  const Json body = Json::parse(request.body);
  Asked asked;
  asked.tokens = body.value("max_tokens", 16);
  asked.speech = speech_of(request.path);
  for (const char* key : {"prompt", "input"})
    if (body.contains(key)) asked.prompt_tokens = static_cast<int>(body[key].size());
  const Json options = body.value("stream_options", Json::object());
  asked.usage = options.value("include_usage", false);
  asked.continuous = options.value("continuous_usage_stats", false);
  return asked;
}

std::string event(const Asked& asked, bool with_usage, const std::string& text, int total, bool role = false) {
  if (asked.speech == Speech::kTrt) return sse_event(Json{{"text_output", text}}.dump());
  if (asked.speech == Speech::kLines) return Json{{"token", {{"text", text}}}}.dump() + "\n";
  Json choice = {{"index", 0}, {"finish_reason", nullptr}};
  if (asked.speech == Speech::kChat)
    choice["delta"] = role ? Json{{"role", "assistant"}, {"content", ""}} : Json{{"content", text}};
  else
    choice["text"] = text;
  Json json = {{"id", "x"}, {"choices", Json::array({choice})}};
  if (with_usage) json["usage"] = {{"prompt_tokens", asked.prompt_tokens}, {"completion_tokens", total}};
  return sse_event(json.dump());
}

std::string embedding_answer(const Asked& asked) {
  return Json{{"object", "list"},
              {"data", {{{"index", 0}, {"embedding", {0.5, 0.25}}}}},
              {"usage", {{"prompt_tokens", asked.prompt_tokens}, {"total_tokens", asked.prompt_tokens}}}}
      .dump();
}

std::string usage_event(const Asked& asked, int total) {
  return sse_event(Json{{"id", "x"},
                        {"choices", Json::array()},
                        {"usage",
                         {{"prompt_tokens", asked.prompt_tokens},
                          {"completion_tokens", total},
                          {"prompt_tokens_details", {{"cached_tokens", asked.prompt_tokens / 2}}}}}}
                       .dump());
}

}  // namespace

MockLlm::MockLlm(MockScript script) : state_(std::make_shared<State>(std::move(script))) {
  state_->writer = std::thread([state = state_.get()] { state->run(); });
  const auto handler = [state = state_](HttpRequest&& request, const HttpReply& reply) {
    const MockScript& s = state->script;
    if (const auto page = state->page(request)) return reply.send(*page);
    const auto now = Clock::now();
    size_t number = 0;
    {
      std::lock_guard lock(state->mutex);
      state->arrivals.push_back(now);
      state->bodies.push_back(request.body);
      number = state->arrivals.size();
    }
    if (s.status != 200) return reply.send({.status = s.status, .body = s.body});
    if (s.every_nth_fails > 0 && number % static_cast<size_t>(s.every_nth_fails) == 0)
      return reply.send({.status = 429, .body = R"({"error":{"message":"too many"}})"});
    const Asked asked = parse(request);
    const Json body = Json::parse(request.body);
    if (!s.model.empty() && body.value("model", "") != s.model)
      return reply.send({.status = 404, .body = R"({"error":{"message":"no such model"}})"});
    if (s.image_height > 0 && picture_of(body) != std::pair(s.image_height, s.image_width))
      return reply.send({.status = 400, .body = R"({"error":{"message":"no picture of the right size"}})"});
    if (s.refuse_stream_options && asked.usage) return reply.send({.status = 400, .body = "{}"});
    const auto after = [now](double ms) {
      return now + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double, std::milli>(ms));
    };
    const bool stated = s.continuous_usage && asked.continuous;
    std::string prelude = s.empty_first_event ? event(asked, stated, "", 0) : "";
    if (asked.speech == Speech::kEmbedding)
      return state->at(after(s.ttft_ms), reply, embedding_answer(asked), /*begins=*/true, /*ends=*/true);
    if (asked.speech == Speech::kChat && s.role_prelude) prelude += event(asked, stated, "", 0, /*role=*/true);
    state->at(now, reply, prelude, /*begins=*/true);
    const int tokens = std::min(asked.tokens, s.max_tokens);
    double ms = s.ttft_ms;
    for (int total = 0, i = 0; total < tokens; ++i) {
      if (i == s.hang_up_after_events) return;  // the last handle goes with its writes: the stream is cut short
      if (i == s.error_after_events)
        return state->at(after(ms), reply, sse_event(R"({"error":{"message":"out of memory"}})"), false, true);
      if (i > 0) ms += s.gap_ms;
      if (i == static_cast<int>(s.stall_at_event)) ms += s.stall_ms;
      const int brought = std::min(s.tokens_per_event, tokens - total);
      total += brought;
      state->at(after(ms), reply, event(asked, stated, std::string(static_cast<size_t>(brought), 'a'), total), false,
                false, number);
    }
    const std::string last = s.usage && asked.usage ? usage_event(asked, tokens) : "";
    const bool openai = asked.speech == Speech::kCompletions || asked.speech == Speech::kChat;
    state->at(after(ms), reply, openai ? last + sse_event("[DONE]") : "", false, /*ends=*/true);
  };
  server_ = std::make_unique<HttpServer>(HttpServerConfig{.port = 0}, handler);
  const Status status = server_->start();
  if (!status.ok()) std::abort();
}

MockLlm::~MockLlm() {
  {
    std::lock_guard lock(state_->mutex);
    state_->stop = true;
    state_->changed.notify_one();
  }
  state_->writer.join();
  while (!state_->writes.empty()) state_->writes.pop();
  server_.reset();
}

int MockLlm::port() const { return server_->port(); }
int MockLlm::requests() const {
  std::lock_guard lock(state_->mutex);
  return static_cast<int>(state_->arrivals.size());
}
std::vector<double> MockLlm::arrivals_s() const {
  std::lock_guard lock(state_->mutex);
  std::vector<double> seconds;
  for (const auto& arrival : state_->arrivals)
    seconds.push_back(std::chrono::duration<double>(arrival - state_->arrivals.front()).count());
  return seconds;
}
MockLlm::Truth MockLlm::truth() const {
  std::lock_guard lock(state_->mutex);
  const auto ms = [](auto from, auto to) { return std::chrono::duration<double, std::milli>(to - from).count(); };
  Truth truth;
  for (const auto& [request, times] : state_->written) {
    truth.ttft_ms.push_back(ms(state_->arrivals[request - 1], times.front()));
    truth.e2el_ms.push_back(ms(state_->arrivals[request - 1], times.back()));
    for (size_t i = 1; i < times.size(); ++i) truth.gap_ms.push_back(ms(times[i - 1], times[i]));
  }
  return truth;
}
int MockLlm::cache_resets() const {
  std::lock_guard lock(state_->mutex);
  return state_->cache_resets;
}
std::vector<std::string> MockLlm::bodies() const {
  std::lock_guard lock(state_->mutex);
  return state_->bodies;
}

}  // namespace millrace
