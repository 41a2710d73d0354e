#include "server/generation.h"

#include <iterator>

#include "base/log.h"
#include "net/sse.h"
#include "server/errors.h"

namespace millrace {

Generation::Generation(Setup setup) : setup_(std::move(setup)) {}

void Generation::start(std::vector<GenerationRequest> requests) {
  prompts_ = requests.size();
  n_ = static_cast<size_t>(requests[0].params.n);
  choices_.resize(prompts_ * n_);
  prompt_logprobs_.resize(prompts_);
  cached_counted_.resize(prompts_);
  for (const GenerationRequest& request : requests)
    usage_.prompt_tokens += static_cast<int64_t>(request.prompt_token_ids.size());
  setup_.reply.on_disconnect([weak = weak_from_this()] {
    const auto self = weak.lock();
    if (!self) return;
    {
      std::lock_guard lock(self->mutex_);
      if (self->stage_ != Stage::kRunning) return;
      self->stage_ = Stage::kGone;
    }
    self->abort_all();
  });
  submit_all(std::move(requests));
}

// What the engine refuses to take is told by the answer's status; what fails later, inside a stream.
void Generation::submit_all(std::vector<GenerationRequest> requests) {
  for (size_t p = 0; p < requests.size(); ++p) {
    auto key = setup_.engine->submit(std::move(requests[p]), [self = shared_from_this(), p](RequestOutput&& output) {
      self->on_output(p, std::move(output));
    });
    if (!key.ok()) return refuse(prompts_ == 1 ? key.status() : key.status().at(fmt::format("prompt {}", p)));
    std::unique_lock lock(mutex_);
    keys_.push_back(*key);
    if (stage_ == Stage::kRunning || stage_ == Stage::kComplete) continue;
    lock.unlock();
    abort_all();
    break;
  }
  std::lock_guard lock(mutex_);
  submitted_ = true;
  if (setup_.stream) {
    HttpResponse head{.content_type = "text/event-stream; charset=utf-8", .headers = setup_.headers};
    head.headers.push_back({"Cache-Control", "no-cache"});
    setup_.reply.begin(head);
  }
  pump();
}

void Generation::refuse(const Status& status) {
  {
    std::lock_guard lock(mutex_);
    stage_ = Stage::kGone;
  }
  abort_all();
  send_error(status);
}

void Generation::send_error(const Status& status) const {
  HttpResponse response = error_response(status);
  response.headers.insert(response.headers.end(), setup_.headers.begin(), setup_.headers.end());
  setup_.reply.send(response);
}

void Generation::on_output(size_t prompt, RequestOutput&& output) {
  std::unique_lock lock(mutex_);
  if (stage_ != Stage::kRunning) return;
  if (!output.error.ok()) {
    fail(output.error);
  } else {
    const bool finished = output.finished;
    count(prompt, output);
    if (setup_.stream)
      setup_.format->append_events(prompt, output, usage_, events_);
    else
      collect(prompt, std::move(output));
    if (finished && ++finished_prompts_ == prompts_) complete();
  }
  pump();
  const bool over = stage_ == Stage::kFailed || stage_ == Stage::kGone;
  lock.unlock();
  if (over) abort_all();
}

void Generation::count(size_t prompt, const RequestOutput& output) {
  for (const SequenceOutput& news : output.sequences)
    usage_.completion_tokens += static_cast<int64_t>(news.token_ids.size());
  if (cached_counted_[prompt]) return;
  cached_counted_[prompt] = true;
  usage_.cached_tokens += output.cached_tokens;
}

void Generation::collect(size_t prompt, RequestOutput&& output) {
  if (!output.prompt_logprobs.empty()) prompt_logprobs_[prompt] = std::move(output.prompt_logprobs);
  for (SequenceOutput& news : output.sequences) {
    Choice& choice = choices_[prompt * n_ + static_cast<size_t>(news.index)];
    choice.text += news.text;
    choice.token_ids.insert(choice.token_ids.end(), news.token_ids.begin(), news.token_ids.end());
    std::move(news.logprobs.begin(), news.logprobs.end(), std::back_inserter(choice.logprobs));
    if (news.finish_reason == FinishReason::kNone) continue;
    choice.finish_reason = news.finish_reason;
    choice.stop_string = std::move(news.stop_string);
    choice.stop_token_id = news.stop_token_id;
  }
}

void Generation::complete() {
  stage_ = Stage::kComplete;
  if (!setup_.stream) return;
  if (setup_.usage_event) setup_.format->append_usage_event(usage_, events_);
  events_ += sse_event("[DONE]");
}

void Generation::fail(const Status& status) {
  stage_ = Stage::kFailed;
  error_ = status;
  events_ += sse_event(error_event(status)) + sse_event("[DONE]");
  log_warning("request {} failed: {}", setup_.id, status.to_string());
}

// Hands over what there is to say, once saying has begun.
void Generation::pump() {
  if (!submitted_ || stage_ == Stage::kGone) return;
  if (!setup_.stream) {
    if (stage_ == Stage::kFailed) send_error(error_);
    if (stage_ == Stage::kComplete) setup_.workers->submit([self = shared_from_this()] { self->answer_whole(); });
  } else {
    if (!events_.empty() && !setup_.reply.write(events_) && stage_ == Stage::kRunning) stage_ = Stage::kGone;
    events_.clear();
    if (stage_ == Stage::kComplete || stage_ == Stage::kFailed) setup_.reply.end();
  }
  if (setup_.log && stage_ != Stage::kRunning) log_end();
}

void Generation::answer_whole() {
  std::lock_guard lock(mutex_);
  setup_.reply.send({.headers = setup_.headers, .body = setup_.format->body(choices_, prompt_logprobs_, usage_)});
}

void Generation::abort_all() {
  std::vector<EngineClient::RequestKey> keys;
  {
    std::lock_guard lock(mutex_);
    keys.swap(keys_);
  }
  for (const auto key : keys) setup_.engine->abort(key);
}

void Generation::log_end() const {
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start_;
  log_info("request {} ended: {} prompt tokens, {} generated, {:.2f} s{}", setup_.id, usage_.prompt_tokens,
           usage_.completion_tokens, seconds.count(), error_.ok() ? "" : ", " + error_.to_string());
}

}  // namespace millrace
