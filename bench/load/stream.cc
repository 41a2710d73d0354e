// What a streamed event costs the load generator's loop, sockets included: CPU time of the client's thread per event,
// against a server in the same process that writes one event at a time to many streams.
#include <benchmark/benchmark.h>

#include <atomic>
#include <thread>

#include "bench/load.h"
#include "net/http_server.h"
#include "net/sse.h"

namespace millrace::bench {
namespace {

constexpr int kStreams = 64, kEvents = 400;

std::string event(int total) {
  return sse_event(fmt::format(
      "{{\"id\":\"cmpl-8a1b2c3d4e5f60718293a4b5c6d7e8f9\",\"object\":\"text_completion\",\"created\":1760000000,"
      "\"model\":\"m\",\"choices\":[{{\"index\":0,\"text\":\" token\",\"logprobs\":null,\"finish_reason\":null}}],"
      "\"usage\":{{\"prompt_tokens\":4,\"total_tokens\":{},\"completion_tokens\":{}}}}}",
      4 + total, total));
}

void stream(benchmark::State& state) {
  std::mutex mutex;
  std::vector<HttpReply> replies;
  std::atomic<bool> stop{false};
  HttpServer server({.port = 0}, [&](HttpRequest&&, const HttpReply& reply) {
    reply.begin({.content_type = "text/event-stream"});
    std::lock_guard lock(mutex);
    replies.push_back(reply);
  });
  if (!server.start().ok()) return state.SkipWithError("no server");
  std::thread writer([&] {
    while (!stop) {
      std::vector<HttpReply> ready;
      {
        std::lock_guard lock(mutex);
        if (replies.size() == kStreams) ready.swap(replies);
      }
      for (int i = 1; i <= kEvents && !ready.empty(); ++i) {
        const std::string bytes = event(i);
        for (const HttpReply& reply : ready) reply.write(bytes);
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
      for (const HttpReply& reply : ready) reply.end();
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  });
  const BackEnd* back_end = *find_back_end("openai");
  LoadGenerator load({.port = server.port(), .path = back_end->path, .back_end = back_end}, /*loops=*/1);
  const LoadPlan plan{.requests = std::vector<LoadRequest>(kStreams, {.prompt_ids = {1}, .output_tokens = kEvents})};
  double cpu_s = 0, events = 0, coalesced = 0;
  for (auto _ : state) {
    const RunRecord run = load.run(plan, stop);
    cpu_s += run.client.cpu_share * run.wall_s;
    for (const RequestRecord& r : run.requests)
      events += static_cast<double>(r.chunks.size()), coalesced += r.coalesced_events;
  }
  stop = true;
  writer.join();
  state.counters["events_per_core_s"] = events / cpu_s;
  state.counters["coalesced_share"] = coalesced / events;
}
BENCHMARK(stream)->Unit(benchmark::kMillisecond)->UseRealTime();

}  // namespace
}  // namespace millrace::bench
