#include "bench/load.h"

#include <sys/resource.h>

#include <algorithm>
#include <condition_variable>
#include <ctime>
#include <future>
#include <mutex>
#include <thread>
#include <tuple>

#include "base/cpu.h"
#include "base/log.h"
#include "base/text.h"
#include "base/utf8.h"
#include "bench/measures.h"

namespace millrace::bench {
namespace {

using Clock = std::chrono::steady_clock;
constexpr auto kProbeInterval = std::chrono::milliseconds(10);
constexpr size_t kMaxErrorBytes = 4096;
constexpr double kBurstSeconds = 0.02;
constexpr int64_t kMaxOpenAhead = 4096;

double seconds_between(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

double thread_cpu_s() {
  timespec t{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

double process_cpu_s() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) * 1e-6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

std::string local_time() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  localtime_r(&now, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y%m%d-%H%M%S", &parts);
  return text;
}

// The most requests that are sent within kBurstSeconds.
int64_t largest_burst(const LoadPlan& plan) {
  auto count = static_cast<int64_t>(plan.requests.size());
  if (!plan.due_s.empty()) {
    size_t first = 0, most = 0;
    for (size_t i = 0; i < plan.due_s.size(); ++i) {
      while (plan.due_s[i] - plan.due_s[first] > kBurstSeconds) ++first;
      most = std::max(most, i + 1 - first);
    }
    count = static_cast<int64_t>(most);
  }
  if (plan.max_concurrency > 0) count = std::min(count, plan.max_concurrency);
  return plan.round > 0 ? std::min(count, plan.round) : count;
}

// One line of what an error answer says: its JSON message if there is one.
std::string error_text(const std::string& body) {
  const Result<Json> json = parse_json(body);
  std::string text = body;
  if (json.ok() && json->is_object()) {
    const Json& error = json->contains("error") ? (*json)["error"] : *json;
    if (error.is_string()) text = error.get<std::string>();
    if (error.is_object() && error.contains("message") && error["message"].is_string())
      text = error["message"].get<std::string>();
  }
  text = utf8_replace_invalid(trim(text.substr(0, 400)));
  std::replace_if(
      text.begin(), text.end(), [](char c) { return c == '\n' || c == '\r'; }, ' ');
  return text;
}

}  // namespace

// A request under way: what its callbacks share. Loop thread only.
struct Flight {
  RequestRecord& record;
  AnswerReader reader;
  std::string error_body;
  double read_s = 0;
  LoopCounts& live;
  size_t counted_chunks = 0;
};

class LoadGenerator::Run {
 public:
  Run(LoadGenerator& owner, const LoadPlan& plan, const std::atomic<bool>& stop, LiveRun* live)
      : owner_(owner), plan_(plan), stop_(stop), live_(live != nullptr ? *live : unseen_) {
    run_.planned_requests = static_cast<int64_t>(plan.requests.size());
    run_.started_at = local_time();
    run_.requests.resize(plan.requests.size());
    calls_.resize(plan.requests.size());
    bodies_.reserve(plan.requests.size());
    for (const LoadRequest& request : plan.requests)
      bodies_.push_back(request_body(*owner.target_.back_end, request, owner.target_.options));
    loops_.resize(owner.clients_.size());
  }

  RunRecord run() {
    open_connections();
    read_cpu(/*begin=*/true);
    live_.begin(loops_.size(), run_.planned_requests, plan_.due_s.empty() ? 0 : plan_.due_s.back());
    start_ = Clock::now();
    const double process_begin = process_cpu_s();
    freed_at_ = start_;
    for (size_t i = 0; i < plan_.requests.size() && !stop_; ++i) issue_when_due(i);
    run_.last_issue_s = now_s();
    wait([&] { return ended_ == issued_; }, std::nullopt);
    hang_up_rest();
    const double wall = now_s();
    read_cpu(/*begin=*/false);
    run_.client.process_cpu_share = (process_cpu_s() - process_begin) / std::max(wall, 1e-9) / machine_info().cores;
    finish(wall);
    return std::move(run_);
  }

 private:
  struct Loop {
    double cpu_begin = 0, cpu_end = 0;
    std::vector<double> lag_ms;  // loop thread only
  };

  // As many as will be wanted at one moment; those of a slow rate open when they are needed.
  void open_connections() {
    const LoadTarget& target = owner_.target_;
    const auto shares = static_cast<int64_t>(owner_.clients_.size() * target.servers());
    const auto count = std::min(largest_burst(plan_), kMaxOpenAhead);
    if (count <= 1) return;
    for (const auto& client : owner_.clients_)
      for (size_t i = 0; i < target.servers(); ++i)
        client->open_ahead(target.call("GET", "/", target.timeout, i), static_cast<int>((count + shares - 1) / shares));
  }

  double now_s() const { return seconds_between(start_, Clock::now()); }

  // Waits until `ready`, the moment `until` or a stop; probes the loops meanwhile.
  template <class Ready>
  void wait(const Ready& ready, std::optional<Clock::time_point> until) {
    std::unique_lock lock(mutex_);
    while (!stop_ && !ready()) {
      const auto now = Clock::now();
      if (until && now >= *until) return;
      const auto next = std::max(next_probe_, now);
      if (now >= next_probe_) {
        next_probe_ = now + kProbeInterval;
        lock.unlock();
        probe_loops();
        lock.lock();
        continue;
      }
      changed_.wait_until(lock, until ? std::min(*until, next) : next);
    }
  }

  void issue_when_due(size_t i) {
    auto due = Clock::time_point::min();
    if (!plan_.due_s.empty()) {
      due = start_ + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(plan_.due_s[i]));
      wait([] { return false; }, due);
    }
    if (plan_.round > 0 && static_cast<int64_t>(i) % plan_.round == 0) {
      wait([&] { return ended_ == issued_; }, std::nullopt);
      round_start_ = Clock::now();
    }
    if (!plan_.round_due_s.empty()) {
      due = round_start_ +
            std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(plan_.round_due_s[i]));
      wait([] { return false; }, due);
    }
    if (plan_.max_concurrency > 0) wait([&] { return issued_ - ended_ < plan_.max_concurrency; }, std::nullopt);
    if (stop_) return;
    if (due == Clock::time_point::min()) due = freed_at_.load();
    start_request(i, due);
  }

  void start_request(size_t i, Clock::time_point due) {
    RequestRecord& record = run_.requests[i];
    const LoadRequest& request = plan_.requests[i];
    record.index = static_cast<int64_t>(i);
    record.scheduled_s = seconds_between(start_, due);
    record.requested_output_tokens = owner_.target_.back_end->generates ? request.output_tokens : 0;
    record.prompt_tokens = request.prompt_tokens;
    if (request.prompt_tokens != kUnknown) record.prompt_source = CountSource::kTokenizer;
    const LoadTarget& target = owner_.target_;
    auto flight = std::shared_ptr<Flight>(
        new Flight{record,
                   AnswerReader(*target.back_end, record, request.prompt, target.tokenizer.get(), target.keep_text),
                   {},
                   0,
                   live_.loop(i % loops_.size())});
    live_.issued.add(1);
    {
      std::lock_guard lock(mutex_);
      ++issued_;
    }
    calls_[i] = client(i).start(call(i), callbacks(flight));
  }

  HttpClient& client(size_t i) { return *owner_.clients_[i % owner_.clients_.size()]; }

  HttpCall call(size_t i) {
    const LoadTarget& target = owner_.target_;
    HttpCall call = target.call("POST", target.path, target.timeout, i);
    call.body = std::move(bodies_[i]);
    return call;
  }

  HttpCallbacks callbacks(const std::shared_ptr<Flight>& flight) {
    return {.on_send =
                [this, flight] {
                  RequestRecord& record = flight->record;
                  if (record.sent_s != kNever) return;  // once more, on a new connection
                  record.sent_s = now_s();
                  flight->live.late_ms.add((record.sent_s - record.scheduled_s) * 1e3);
                },
            .on_read = [this, flight] { flight->read_s = now_s(); },
            .on_head =
                [flight](const HttpResponse& head) {
                  flight->record.head_s = flight->read_s;
                  flight->record.http_status = head.status;
                },
            .on_data = [flight](std::string_view bytes) { return take(*flight, bytes); },
            .on_done = [this, flight](const Status& status) { end(*flight, status); }};
  }

  static bool take(Flight& flight, std::string_view bytes) {
    if (flight.record.http_status == 200) {
      flight.reader.feed(bytes, flight.read_s);
      count_chunks(flight);
      return !flight.reader.failed();
    }
    flight.error_body += bytes.substr(0, kMaxErrorBytes - std::min(kMaxErrorBytes, flight.error_body.size()));
    return flight.error_body.size() < kMaxErrorBytes;
  }

  // What is new since the last call. Tokens that no event states are counted when the request has ended.
  static void count_chunks(Flight& flight) {
    const std::vector<Chunk>& chunks = flight.record.chunks;
    for (size_t& i = flight.counted_chunks; i < chunks.size(); ++i) {
      flight.live.tokens.add(chunks[i].tokens);
      if (i == 0)
        flight.live.ttft_ms.add((chunks[i].at_s - flight.record.sent_s) * 1e3);
      else
        flight.live.itl_ms.add((chunks[i].at_s - chunks[i - 1].at_s) * 1e3 / std::max(1.0, chunks[i].tokens));
    }
  }
  static void count_end(Flight& flight) {
    const RequestRecord& record = flight.record;
    flight.live.ended.add(1);
    flight.live.failed.add(record.outcome != Outcome::kCompleted && record.outcome != Outcome::kInterrupted);
    if (record.outcome != Outcome::kCompleted || record.output_tokens == kUnknown) return;
    flight.live.short_outputs.add(record.output_tokens < record.requested_output_tokens);
    if (record.chunk_tokens_estimated) flight.live.tokens.add(static_cast<double>(record.output_tokens));
    if (const auto tpot = tpot_ms(record)) flight.live.tpot_ms.add(*tpot);
  }

  void end(Flight& flight, const Status& status) {
    RequestRecord& record = flight.record;
    record.done_s = now_s();
    record.outcome = outcome(flight, status);
    count_end(flight);
    {
      std::lock_guard lock(mutex_);
      ++ended_;
      freed_at_ = Clock::now();
    }
    changed_.notify_one();
  }

  Outcome outcome(Flight& flight, const Status& status) {
    RequestRecord& record = flight.record;
    if (record.http_status == 200) {
      const Status read = flight.reader.finish();
      if (flight.reader.failed() || (status.ok() && !read.ok())) {
        record.error = read.message();
        return Outcome::kBadAnswer;
      }
    }
    if (record.http_status != 0 && record.http_status != 200) {
      record.error = error_text(flight.error_body);
      return Outcome::kRefused;
    }
    if (status.ok()) return Outcome::kCompleted;
    record.error = status.message();
    if (hung_up_) return Outcome::kInterrupted;
    if (record.sent_s == kNever) return Outcome::kUnreachable;
    if (status.message().ends_with("timed out")) return Outcome::kTimedOut;
    return status.message().find("not an HTTP") == std::string::npos ? Outcome::kHungUp : Outcome::kBadAnswer;
  }

  void hang_up_rest() {
    if (!stop_) return;
    run_.interrupted = true;
    hung_up_ = true;
    for (int64_t i = 0; i < issued_; ++i) client(static_cast<size_t>(i)).hang_up(calls_[static_cast<size_t>(i)]);
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return ended_ == issued_; });
  }

  void probe_loops() {
    for (size_t i = 0; i < loops_.size(); ++i)
      owner_.clients_[i]->run_on_loop([this, i, posted = Clock::now()] {
        loops_[i].lag_ms.push_back(seconds_between(posted, Clock::now()) * 1e3);
        live_.loop(i).lag_ms.add(loops_[i].lag_ms.back());
        live_.loop(i).cpu_s.set(thread_cpu_s() - loops_[i].cpu_begin);
      });
  }

  // On every loop, after all that was posted before.
  void read_cpu(bool begin) {
    for (size_t i = 0; i < loops_.size(); ++i) {
      std::promise<void> done;
      owner_.clients_[i]->run_on_loop([&] {
        (begin ? loops_[i].cpu_begin : loops_[i].cpu_end) = thread_cpu_s();
        done.set_value();
      });
      done.get_future().get();
    }
  }

  void finish(double wall) {
    run_.requests.resize(static_cast<size_t>(issued_));
    run_.client.loops = static_cast<int>(loops_.size());
    for (const Loop& loop : loops_) {
      run_.client.cpu_share = std::max(run_.client.cpu_share, (loop.cpu_end - loop.cpu_begin) / std::max(wall, 1e-9));
      run_.client.loop_lag_ms.insert(run_.client.loop_lag_ms.end(), loop.lag_ms.begin(), loop.lag_ms.end());
    }
    double first = wall, last = 0;
    for (const RequestRecord& record : run_.requests) {
      if (record.sent_s != kNever) first = std::min(first, record.sent_s);
      last = std::max(last, record.done_s);
    }
    run_.wall_s = std::max(0.0, last - first);
  }

  LoadGenerator& owner_;
  const LoadPlan& plan_;
  const std::atomic<bool>& stop_;
  LiveRun unseen_;
  LiveRun& live_;
  RunRecord run_;
  std::vector<std::string> bodies_;
  std::vector<uint64_t> calls_;
  std::vector<Loop> loops_;
  Clock::time_point start_, round_start_{}, next_probe_{};
  std::atomic<Clock::time_point> freed_at_{Clock::time_point{}};
  std::atomic<bool> hung_up_{false};
  std::mutex mutex_;  // guards the next two where they change
  std::condition_variable changed_;
  int64_t issued_ = 0, ended_ = 0;
};

HttpCall LoadTarget::call(std::string method, std::string path, std::chrono::milliseconds call_timeout,
                          size_t index) const {
  ServerAddress address = server(index);
  return {.host = std::move(address.host),
          .port = address.port,
          .method = std::move(method),
          .target = std::move(path),
          .headers = headers,
          .timeout = call_timeout,
          .tls = tls};
}

std::string served_model(const LoadTarget& target) {
  HttpClient client;
  const auto answer = client.fetch(target.call("GET", "/v1/models", std::chrono::seconds(10)));
  if (!answer.ok() || answer->status != 200) return "";
  const Result<Json> json = parse_json(answer->body);
  if (!json.ok() || !json->is_object() || !json->contains("data")) return "";
  const Json& models = (*json)["data"];
  if (!models.is_array() || models.empty() || !models[0].is_object()) return "";
  return models[0].value("id", Json()).is_string() ? models[0]["id"].get<std::string>() : "";
}

namespace {

// What to do about a first request that failed; "" where the error says it all.
std::string advice(const LoadTarget& target, const RequestRecord& record) {
  if (record.http_status == 401 || record.http_status == 403)
    return "; the key is taken from OPENAI_API_KEY or --header Authorization='Bearer KEY'";
  if (record.http_status == 429) return "; the server limits requests: try again later or with less load";
  if (record.error.find("certificate") != std::string::npos)
    return "; --ca-file FILE trusts its signer, --insecure anybody";
  if (record.http_status != 404) return "";
  const std::string &asked = target.options.model, served = served_model(target);
  if (asked.empty() || served.empty() || served == asked) return "; is this the path of the back end?";
  return fmt::format("; asked for model '{}', the server has '{}'", asked, served);
}

}  // namespace

LoadGenerator::LoadGenerator(LoadTarget target, int loops) : target_(std::move(target)) {
  for (int i = 0; i < (loops > 0 ? loops : machine_info().cores); ++i)
    clients_.push_back(std::make_unique<HttpClient>());
}
LoadGenerator::~LoadGenerator() = default;

RunRecord LoadGenerator::run(const LoadPlan& plan, const std::atomic<bool>& stop, LiveRun* live) {
  return Run(*this, plan, stop, live).run();
}

namespace {

// What a strict server may not know, left out step by step: totals in every event, totals at all, and both again
// without ignore_eos.
std::vector<RequestOptions> ever_simpler(const RequestOptions& options) {
  std::vector<RequestOptions> steps;
  for (const bool ignore_eos : {true, false})
    for (const int usage : {2, 1, 0}) {
      RequestOptions o = options;
      o.ignore_eos = o.ignore_eos && ignore_eos;
      o.include_usage = o.include_usage && usage > 0;
      o.continuous_usage = o.continuous_usage && usage > 1;
      const auto same = [&](const RequestOptions& other) {
        return std::tie(o.ignore_eos, o.include_usage, o.continuous_usage) ==
               std::tie(other.ignore_eos, other.include_usage, other.continuous_usage);
      };
      if (std::none_of(steps.begin(), steps.end(), same)) steps.push_back(std::move(o));
    }
  return steps;
}

}  // namespace

Result<RequestRecord> LoadGenerator::probe(const LoadRequest& request, const std::atomic<bool>& stop) {
  const RequestOptions wanted = target_.options;
  RequestRecord first, record;
  for (const RequestOptions& options : ever_simpler(wanted)) {
    target_.options = options;
    RunRecord run = this->run({.requests = {request}}, stop);
    if (run.requests.empty() || run.interrupted) return cancelled("interrupted");
    record = std::move(run.requests[0]);
    if (first.done_s == kNever) first = record;
    if (record.outcome != Outcome::kRefused || (record.http_status != 400 && record.http_status != 422)) break;
  }
  if (record.outcome == Outcome::kRefused) record = first;  // about the request as it was meant
  if (record.outcome != Outcome::kCompleted)
    return unavailable("{}{}", failure_line(target_, record), advice(target_, record));
  if (wanted.ignore_eos && !target_.options.ignore_eos)
    log_warning("the server does not know ignore_eos: answers may be shorter than asked for, which is counted");
  return record;
}

std::string failure_line(const LoadTarget& target, const RequestRecord& record) {
  std::string what = kOutcomeNames[static_cast<int>(record.outcome)];
  if (record.outcome == Outcome::kRefused)
    what += fmt::format(" with status {} ({})", record.http_status, http_reason(record.http_status));
  return fmt::format("{}: {}{}{}", target.endpoint(), what, record.error.empty() ? "" : ": ", record.error);
}

}  // namespace millrace::bench
