#include "engine/output_processor.h"

#include <algorithm>
#include <exception>
#include <iterator>
#include <span>
#include <utility>

#include "base/log.h"

namespace millrace {
namespace {

// That wait while the output thread is busy: room for them from the start, so that the engine's steps allocate nothing
// and touch no new page.
constexpr size_t kUsualEvents = 1024;

template <class T>
void make_room(std::vector<T>& items) {
  items.resize(kUsualEvents);
  items.clear();
}

}  // namespace

OutputProcessor::OutputProcessor(TextDecoderFactory decoders, StopSequence stop_sequence)
    : decoders_(std::move(decoders)), stop_sequence_(std::move(stop_sequence)) {
  make_room(queue_);
  make_room(group_sizes_);
  thread_ = std::thread([this] { run(); });
}

void OutputProcessor::close() {
  {
    const std::lock_guard lock(mutex_);
    closing_ = true;
  }
  pushed_.notify_one();
  if (thread_.joinable()) thread_.join();
}

void OutputProcessor::push(std::vector<OutputEvent>& events) {
  if (events.empty()) return;
  {
    const std::lock_guard lock(mutex_);
    group_sizes_.push_back(events.size());
    std::ranges::move(events, std::back_inserter(queue_));
  }
  pushed_.notify_one();
  events.clear();
}

void OutputProcessor::run() {
  std::vector<OutputEvent> events;
  std::vector<size_t> sizes;
  make_room(events);  // exchanged with queue_
  make_room(sizes);
  for (;;) {
    {
      std::unique_lock lock(mutex_);
      pushed_.wait(lock, [&] { return closing_ || !queue_.empty(); });
      if (queue_.empty()) return;
      events.clear(), sizes.clear();
      std::swap(events, queue_);
      std::swap(sizes, group_sizes_);
    }
    size_t at = 0;
    for (const size_t size : sizes) {
      for (OutputEvent& event : std::span(events).subspan(at, size)) process(event);
      deliver_group();
      at += size;
    }
  }
}

void OutputProcessor::process(OutputEvent& event) {
  if (event.kind == OutputEvent::Kind::kBegin) return begin(event);
  const auto it = requests_.find(event.key);
  if (it == requests_.end()) return;  // it ended here before the engine knew
  Request& request = it->second;
  if (event.kind == OutputEvent::Kind::kDrop) {
    requests_.erase(it);
    return;
  }
  if (!std::exchange(request.in_group, true)) group_.push_back(event.key);
  if (event.kind == OutputEvent::Kind::kFail) {
    request.output.error = std::move(event.error);
    request.unfinished = 0;
  } else {
    token(request, event);
  }
}

void OutputProcessor::begin(OutputEvent& event) {
  Request& request = requests_[event.key];
  request.request = std::move(event.begin->request);
  request.sink = std::move(event.begin->sink);
  const SamplingParams& params = request.request->params;
  request.unfinished = params.n;
  for (int i = 0; i < params.n; ++i) request.sequences.emplace_back(params);
}

// The request's entry for one sequence in the group at hand.
SequenceOutput& OutputProcessor::news_of(Request& request, int index) {
  int& place = request.sequences[static_cast<size_t>(index)].news;
  auto& sequences = request.output.sequences;
  if (place < 0) {
    place = static_cast<int>(sequences.size());
    sequences.emplace_back().index = index;
  }
  return sequences[static_cast<size_t>(place)];
}

void OutputProcessor::token(Request& request, OutputEvent& event) {
  SequenceText& sequence = request.sequences[static_cast<size_t>(event.index)];
  if (sequence.finished) return;  // a stop string ended it; the engine did not know yet
  if (event.prompt_logprobs != nullptr) request.output.prompt_logprobs = std::move(*event.prompt_logprobs);
  request.cached_tokens = std::max(request.cached_tokens, event.cached_tokens);
  SequenceOutput& news = news_of(request, event.index);
  if (event.token != OutputEvent::kNoToken) {
    ++sequence.generated;
    news.token_ids.push_back(event.token);
    if (event.logprobs.has_value()) news.logprobs.push_back(std::move(*event.logprobs));
  }
  news.finish_reason = event.reason;
  news.stop_token_id = event.stop_token_id;
  if (makes_text(request)) add_text(request, sequence, event, news);
  if (news.finish_reason == FinishReason::kNone) return;
  sequence.finished = true;
  sequence.decoder.reset();
  --request.unfinished;
}

void OutputProcessor::add_text(Request& request, SequenceText& sequence, OutputEvent& event, SequenceOutput& news) {
  const SamplingParams& params = request.request->params;
  if (sequence.decoder == nullptr) sequence.decoder = decoders_(*request.request);
  const bool is_stop_token = event.reason == FinishReason::kStop && !params.include_stop_str_in_output;
  std::string text;
  if (event.token != OutputEvent::kNoToken && !is_stop_token) text = sequence.decoder->append(event.token);
  const bool may_stop = event.reason != FinishReason::kStop && sequence.generated >= params.min_tokens;
  news.stop_string = sequence.text.append(text, may_stop);
  if (news.stop_string.has_value()) {
    if (event.reason == FinishReason::kNone) stop_sequence_(event.key, event.index);
    news.finish_reason = FinishReason::kStop;
  } else if (event.reason != FinishReason::kNone) {
    sequence.text.append(sequence.decoder->flush(), /*may_stop=*/false);
  }
  news.text += news.finish_reason == FinishReason::kNone ? sequence.text.take() : sequence.text.take_rest();
}

void OutputProcessor::deliver_group() {
  for (const Key key : group_) deliver(key);
  group_.clear();
}

void OutputProcessor::deliver(Key key) {
  const auto it = requests_.find(key);
  if (it == requests_.end()) return;
  Request& request = it->second;
  request.in_group = false;
  RequestOutput output = std::exchange(request.output, {});
  for (const SequenceOutput& news : output.sequences) request.sequences[static_cast<size_t>(news.index)].news = -1;
  output.prompt_tokens = static_cast<int64_t>(request.request->prompt_token_ids.size());
  output.cached_tokens = request.cached_tokens;
  output.finished = request.unfinished == 0;
  const bool has_news = !output.sequences.empty() || !output.error.ok();
  if (has_news) call_sink(key, request, std::move(output));
  if (request.unfinished == 0) requests_.erase(it);
}

// An exception ends the request here and in the engine.
void OutputProcessor::call_sink(Key key, Request& request, RequestOutput output) {
  try {
    request.sink(std::move(output));
  } catch (const std::exception& e) {
    log_error("request {}: its output sink threw: {}; the request ends", request.request->id, e.what());
    request.unfinished = 0;
    stop_sequence_(key, kAll);
  }
}

}  // namespace millrace
