#include "tests/server/fake_engine.h"

#include "base/check.h"
#include "base/utf8.h"

namespace millrace {

FakeEngine::FakeEngine(Script script) : script_(std::move(script)), thread_([this] { run(); }) {}

FakeEngine::~FakeEngine() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

Result<EngineClient::RequestKey> FakeEngine::submit(GenerationRequest request, OutputSink sink) {
  MR_RETURN_IF_ERROR(validate(request.params, limits_value.vocab_size, limits_value.max_logprobs));
  std::lock_guard lock(mutex_);
  if (requests_.size() + 1 >= submit_error_from_) return submit_error_;
  const RequestKey key = requests_.size() + 1;
  requests_.push_back(request);
  sinks_[key] = std::move(sink);
  if (script_)
    for (RequestOutput& output : script_(request)) queue_.emplace_back(key, std::move(output));
  changed_.notify_all();
  return key;
}

void FakeEngine::abort(RequestKey key) {
  OutputSink dropped;
  std::lock_guard lock(mutex_);
  aborted_.push_back(key);
  if (const auto found = sinks_.find(key); found != sinks_.end()) {
    dropped = std::move(found->second);
    sinks_.erase(found);
  }
  changed_.notify_all();
}

void FakeEngine::run() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
    if (stopping_) return;
    auto [key, output] = std::move(queue_.front());
    queue_.pop_front();
    const auto found = sinks_.find(key);
    if (found == sinks_.end()) continue;
    OutputSink sink = found->second;
    if (output.finished) sinks_.erase(found);
    lock.unlock();
    sink(std::move(output));
    sink = nullptr;
    lock.lock();
    changed_.notify_all();
  }
}

void FakeEngine::emit(RequestKey key, RequestOutput output) {
  std::lock_guard lock(mutex_);
  queue_.emplace_back(key, std::move(output));
  changed_.notify_all();
}

std::vector<GenerationRequest> FakeEngine::wait_for_requests(size_t count) {
  std::unique_lock lock(mutex_);
  const bool came = changed_.wait_for(lock, std::chrono::seconds(60), [&] { return requests_.size() >= count; });
  MR_CHECK(came, "{} of {} requests came", requests_.size(), count);
  return requests_;
}

std::vector<EngineClient::RequestKey> FakeEngine::wait_for_aborts(size_t count) {
  std::unique_lock lock(mutex_);
  const bool came = changed_.wait_for(lock, std::chrono::seconds(60), [&] { return aborted_.size() >= count; });
  MR_CHECK(came, "{} of {} aborts came", aborted_.size(), count);
  return aborted_;
}

void FakeEngine::wait_until_idle() {
  std::unique_lock lock(mutex_);
  const bool idle = changed_.wait_for(lock, std::chrono::seconds(60), [&] { return sinks_.empty(); });
  MR_CHECK(idle, "{} requests are open", sinks_.size());
}

size_t FakeEngine::open_requests() const {
  std::lock_guard lock(mutex_);
  return sinks_.size();
}

EngineStats FakeEngine::stats() const {
  std::lock_guard lock(mutex_);
  return stats_;
}
EngineLimits FakeEngine::limits() const { return limits_value; }
Status FakeEngine::health() const {
  std::lock_guard lock(mutex_);
  return health_;
}
void FakeEngine::set_waiting(int64_t waiting) {
  std::lock_guard lock(mutex_);
  stats_.waiting = waiting;
}
void FakeEngine::set_health(Status health) {
  std::lock_guard lock(mutex_);
  health_ = std::move(health);
}
void FakeEngine::fail_submissions_from(size_t number, Status status) {
  std::lock_guard lock(mutex_);
  submit_error_from_ = number;
  submit_error_ = std::move(status);
}

Result<std::vector<int32_t>> ByteCodec::encode(std::string_view text, bool add_special_tokens) const {
  std::vector<int32_t> ids;
  if (add_special_tokens) ids.push_back(256);
  for (const char c : text) ids.push_back(static_cast<unsigned char>(c));
  return ids;
}
std::string ByteCodec::decode(std::span<const int32_t> ids, bool skip_special_tokens) const {
  std::string text;
  for (const int32_t id : ids)
    if (id < 256 || !skip_special_tokens) text += token_bytes(id);
  return utf8_replace_invalid(text);
}
std::string ByteCodec::token_bytes(int32_t id) const {
  if (id >= 0 && id < 256) return std::string(1, static_cast<char>(id));
  return id == 256 ? "<s>" : id == 257 ? "</s>" : "";
}
Result<std::string> ByteCodec::render_chat(const ChatPrompt& prompt) const {
  std::string text = prompt.chat_template.value_or("");
  for (const OrderedJson& message : prompt.messages) {
    text += "<" + message["role"].get<std::string>() + ">";
    if (message["content"].is_string()) text += message["content"].get<std::string>();
    text += "\n";
  }
  for (const auto& [name, value] : prompt.variables.items()) text += name + "=" + value.dump() + "\n";
  return prompt.add_generation_prompt ? text + "<assistant>" : text;
}

PositionLogprobs logprobs_of(int32_t token, int top) {
  PositionLogprobs position{.chosen = {token, -0.25f, 1}};
  for (int i = 0; i < top; ++i) position.top.push_back({token + i, -0.25f - 0.5f * static_cast<float>(i), i + 1});
  return position;
}

SequenceOutput say(const GenerationRequest& request, int index, std::string_view text, FinishReason reason) {
  SequenceOutput out{.index = index, .text = std::string(text), .finish_reason = reason};
  for (const char c : text) out.token_ids.push_back(static_cast<unsigned char>(c));
  if (request.params.logprobs)
    for (const int32_t id : out.token_ids) out.logprobs.push_back(logprobs_of(id, *request.params.logprobs));
  if (!request.params.detokenize) out.text.clear();
  return out;
}

std::vector<std::optional<PositionLogprobs>> prompt_logprobs_of(const GenerationRequest& request) {
  std::vector<std::optional<PositionLogprobs>> out;
  if (!request.params.prompt_logprobs) return out;
  for (size_t i = 0; i < request.prompt_token_ids.size(); ++i)
    out.push_back(i == 0 ? std::nullopt
                         : std::optional(logprobs_of(request.prompt_token_ids[i], *request.params.prompt_logprobs)));
  return out;
}

FakeEngine::Script speak(std::vector<std::string> pieces, FinishReason reason) {
  return [pieces, reason](const GenerationRequest& request) {
    std::vector<RequestOutput> outputs;
    size_t left = static_cast<size_t>(request.params.max_tokens);
    for (size_t p = 0; p < pieces.size(); ++p) {
      const std::string piece = pieces[p].substr(0, left);
      left -= piece.size();
      const bool last = p + 1 == pieces.size() || left == 0;
      const FinishReason end = !last ? FinishReason::kNone : left == 0 ? FinishReason::kLength : reason;
      RequestOutput output{.prompt_tokens = static_cast<int64_t>(request.prompt_token_ids.size()), .finished = last};
      for (int i = 0; i < request.params.n; ++i) output.sequences.push_back(say(request, i, piece, end));
      if (p == 0) output.prompt_logprobs = prompt_logprobs_of(request);
      outputs.push_back(std::move(output));
      if (last) break;
    }
    return outputs;
  };
}

}  // namespace millrace
