#include "tests/bench/mock_llm.h"

#include <condition_variable>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <queue>
#include <thread>

#include "base/json.h"
#include "net/sse.h"

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
      if (write.request > 0) written[write.request].push_back(now);
    }
  }

  const MockScript script;
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

struct Asked {
  int tokens = 0, prompt_tokens = 0;
  bool chat = false, usage = false, continuous = false;
};

Asked parse(const HttpRequest& request) {
  const Json body = Json::parse(request.body);
  Asked asked;
  asked.tokens = body.value("max_tokens", 16);
  asked.chat = request.path.find("chat") != std::string::npos;
  if (body.contains("prompt")) asked.prompt_tokens = static_cast<int>(body["prompt"].size());
  const Json options = body.value("stream_options", Json::object());
  asked.usage = options.value("include_usage", false);
  asked.continuous = options.value("continuous_usage_stats", false);
  return asked;
}

std::string event(const Asked& asked, bool with_usage, const std::string& text, int total, bool role = false) {
  Json choice = {{"index", 0}, {"finish_reason", nullptr}};
  if (asked.chat)
    choice["delta"] = role ? Json{{"role", "assistant"}, {"content", ""}} : Json{{"content", text}};
  else
    choice["text"] = text;
  Json json = {{"id", "x"}, {"choices", Json::array({choice})}};
  if (with_usage) json["usage"] = {{"prompt_tokens", asked.prompt_tokens}, {"completion_tokens", total}};
  return sse_event(json.dump());
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
    if (request.method != "POST") return reply.send({.status = 404});
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
    if (s.refuse_stream_options && asked.usage) return reply.send({.status = 400, .body = "{}"});
    const auto after = [now](double ms) {
      return now + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double, std::milli>(ms));
    };
    const bool stated = s.continuous_usage && asked.continuous;
    std::string prelude = s.empty_first_event ? event(asked, stated, "", 0) : "";
    if (asked.chat && s.role_prelude) prelude += event(asked, stated, "", 0, /*role=*/true);
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
    state->at(after(ms), reply, last + sse_event("[DONE]"), false, /*ends=*/true);
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
std::vector<std::string> MockLlm::bodies() const {
  std::lock_guard lock(state_->mutex);
  return state_->bodies;
}

}  // namespace millrace
