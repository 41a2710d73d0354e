// Events per second that one core reads out of answers, without sockets. The items are events.
#include <benchmark/benchmark.h>

#include "bench/back_end.h"

namespace millrace::bench {
namespace {

// An event as vLLM sends it, with running usage.
std::string completion_event(int total) {
  return fmt::format(
      "data: {{\"id\":\"cmpl-8a1b2c3d4e5f60718293a4b5c6d7e8f9\",\"object\":\"text_completion\",\"created\":1760000000,"
      "\"model\":\"Qwen2.5-0.5B-Instruct\",\"choices\":[{{\"index\":0,\"text\":\" token\",\"logprobs\":null,"
      "\"finish_reason\":null,\"stop_reason\":null}}],\"usage\":{{\"prompt_tokens\":1024,\"total_tokens\":{},"
      "\"completion_tokens\":{}}}}}\n\n",
      1024 + total, total);
}

void read_answer(benchmark::State& state) {
  std::vector<std::string> events;
  for (int i = 1; i <= 256; ++i) events.push_back(completion_event(i));
  for (auto _ : state) {
    RequestRecord record;
    AnswerReader reader(**find_back_end("openai"), record, "", nullptr, false);
    double at_s = 0;
    for (const std::string& event : events) reader.feed(event, at_s += 0.01);
    if (!reader.finish().ok() || record.output_tokens != 256) state.SkipWithError("the answer was not read");
  }
  state.SetItemsProcessed(state.iterations() * 256);
}
BENCHMARK(read_answer);

}  // namespace
}  // namespace millrace::bench
