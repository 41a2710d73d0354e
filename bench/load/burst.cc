// What a burst of streams that begin at once adds to their times to the first token: against a server that answers each
// request after the same time and notes when it read the request and when it wrote the first token.
#include <arpa/inet.h>
#include <benchmark/benchmark.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <deque>
#include <thread>

#include "bench/load.h"
#include "report/statistics.h"

namespace millrace::bench {
namespace {

using Clock = std::chrono::steady_clock;
constexpr int kStreams = 512;
constexpr auto kThinking = std::chrono::milliseconds(300);

constexpr std::string_view kFirst =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 188\r\n\r\n"
    "data: {\"choices\":[{\"index\":0,\"text\":\" token\",\"finish_reason\":null}],\"usage\":{\"prompt_tokens\":1,"
    "\"completion_tokens\":1}}\n\n";
constexpr std::string_view kRest = "data: {\"choices\":[],\"usage\":{\"completion_tokens\":1}}\n\ndata: [DONE]\n\n";

// One thread on bare sockets, so that little but the client is measured.
class BareServer {
 public:
  BareServer() : listener_(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0)), epoll_(::epoll_create1(0)) {
    sockaddr_in address{.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof address;
    ::bind(listener_, reinterpret_cast<sockaddr*>(&address), size);
    ::listen(listener_, 4096);
    ::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
    watch(listener_);
    thread_ = std::thread([this] { run(); });
  }
  ~BareServer() {
    stop_ = true;
    thread_.join();
    for (const int fd : open_) ::close(fd);
    ::close(listener_), ::close(epoll_);
  }
  int port() const { return port_; }
  // By the one prompt id of the request; valid when the client has all answers.
  struct Times {
    Clock::time_point read, written;
  };
  std::vector<Times> times = std::vector<Times>(1 << 20);

 private:
  void watch(int fd) {
    epoll_event event{.events = EPOLLIN, .data = {.fd = fd}};
    ::epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event);
  }
  void run() {
    epoll_event ready[256];
    while (!stop_) {
      const int n = ::epoll_wait(epoll_, ready, 256, due_.empty() ? 20 : 1);
      for (int i = 0; i < n; ++i) ready[i].data.fd == listener_ ? accept_all() : read(ready[i].data.fd);
      answer();
    }
  }
  void accept_all() {
    for (int fd = ::accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK); fd >= 0;
         fd = ::accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK)) {
      const int on = 1;
      ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
      watch(fd);
      open_.push_back(fd);
    }
  }
  void read(int fd) {
    char bytes[4096];
    const ssize_t n = ::recv(fd, bytes, sizeof bytes, 0);
    if (n <= 0) return void(::epoll_ctl(epoll_, EPOLL_CTL_DEL, fd, nullptr));
    const std::string_view text(bytes, static_cast<size_t>(n));
    const size_t prompt = text.find("\"prompt\":[");
    if (prompt == std::string_view::npos) return;
    const size_t id = std::strtoul(text.data() + prompt + 10, nullptr, 10);
    times[id].read = Clock::now();
    due_.push_back({times[id].read + kThinking, fd, id});
  }
  void answer() {
    for (; !due_.empty() && due_.front().at <= Clock::now(); due_.pop_front()) {
      times[due_.front().id].written = Clock::now();
      (void)!::write(due_.front().fd, kFirst.data(), kFirst.size());
      (void)!::write(due_.front().fd, kRest.data(), kRest.size());
    }
  }

  struct Due {
    Clock::time_point at;
    int fd;
    size_t id;
  };
  int listener_, epoll_, port_ = 0;
  std::vector<int> open_;
  std::deque<Due> due_;
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

// All in ms, of one burst; what the server took for thinking is left out.
struct Burst {
  double added = 0;             // the largest addition to a TTFT
  double added_sched = 0;       // the same, from the schedule
  double send = 0, notice = 0;  // the client alone: from the schedule to the send, from the server's write to the stamp
};

Burst burst(LoadGenerator& load, const BareServer& server, int first_id) {
  LoadPlan plan;
  for (int i = 0; i < kStreams; ++i) plan.requests.push_back({.prompt_ids = {first_id + i}, .output_tokens = 1});
  const RunRecord run = load.run(plan, std::atomic<bool>{false});
  const auto ms = [](Clock::duration d) { return std::chrono::duration<double, std::milli>(d).count(); };
  const auto times = [&](const RequestRecord& r) { return server.times[static_cast<size_t>(first_id + r.index)]; };
  const auto at = [&](Clock::time_point t) { return ms(t.time_since_epoch()); };
  double origin = INFINITY;  // of the run's clock: no request is read before it is sent
  for (const RequestRecord& r : run.requests) origin = std::min(origin, at(times(r).read) - r.sent_s * 1e3);
  Burst b;
  for (const RequestRecord& r : run.requests) {
    if (r.outcome != Outcome::kCompleted) return {NAN, NAN, NAN, NAN};
    const double thinking = ms(times(r).written - times(r).read);
    b.added = std::max(b.added, (r.first_token_s - r.sent_s) * 1e3 - thinking);
    b.added_sched = std::max(b.added_sched, (r.first_token_s - r.scheduled_s) * 1e3 - thinking);
    b.send = std::max(b.send, (r.sent_s - r.scheduled_s) * 1e3);
    b.notice = std::max(b.notice, origin + r.first_token_s * 1e3 - at(times(r).written));
  }
  return b;
}

void burst_of_512(benchmark::State& state) {
  rlimit files{};
  ::getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &files);
  const BareServer server;
  const BackEnd* back_end = *find_back_end("openai");
  std::vector<double> added, added_sched, send, notice;
  int first_id = 0;
  for (auto _ : state) {
    // A new one each time: without connections.
    LoadGenerator load({.port = server.port(), .path = back_end->path, .back_end = back_end},
                       static_cast<int>(state.range(0)));
    const Burst b = burst(load, server, first_id % (1 << 19));
    first_id += kStreams;
    if (std::isnan(b.added)) return state.SkipWithError("a request failed");
    added.push_back(b.added), added_sched.push_back(b.added_sched), send.push_back(b.send), notice.push_back(b.notice);
  }
  const auto report = [&](const char* name, std::vector<double> values) {
    const report::Sample sample(std::move(values));
    state.counters[fmt::format("{}_median_ms", name)] = sample.percentile(50);
    state.counters[fmt::format("{}_worst_ms", name)] = sample.max();
  };
  report("ttft_added", added), report("ttft_sched_added", added_sched), report("send", send), report("notice", notice);
}
BENCHMARK(burst_of_512)->ArgName("loops")->Arg(1)->Arg(0)->Iterations(20)->UseRealTime()->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace millrace::bench
