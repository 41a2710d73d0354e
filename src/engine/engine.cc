#include "engine/engine.h"

#include <algorithm>
#include <exception>
#include <utility>

#include "base/log.h"
#include "base/random.h"

namespace millrace {
namespace {

// Bounds what one request's n sequences hold before any of them runs.
constexpr int64_t kMaxGroupTokens = int64_t{1} << 22;

// Requests without a seed get one that depends on the engine's seed and their number.
uint64_t seed_of(const GenerationRequest& request, int64_t engine_seed, uint64_t number) {
  if (request.params.seed.has_value()) return static_cast<uint64_t>(*request.params.seed);
  const auto bits = philox(static_cast<uint64_t>(engine_seed), number, /*counter_high=*/1);
  return (uint64_t{bits[0]} << 32) | bits[1];
}

SequenceGroup group_of(EngineClient::RequestKey key, const GenerationRequest& request, int64_t max_model_len) {
  const auto prompt = static_cast<int64_t>(request.prompt_token_ids.size());
  const int64_t room = max_model_len - prompt;
  SequenceGroup group;
  group.id = key;
  group.count = request.params.max_tokens == 0 ? 1 : request.params.n;
  group.prompt = request.prompt_token_ids;
  group.max_length = prompt + std::min(request.params.max_tokens, room);
  group.priority = request.priority;
  group.compute_prompt = request.params.prompt_logprobs.has_value();
  group.scope.salt = request.cache_salt;
  return group;
}

}  // namespace

Result<std::unique_ptr<Engine>> Engine::create(EngineConfig config, std::unique_ptr<ModelRunner> model,
                                               TextDecoderFactory decoders) {
  MR_ASSIGN_OR_RETURN(EngineConfig resolved, resolve(std::move(config), model->info()));
  return std::unique_ptr<Engine>(new Engine(std::move(resolved), std::move(model), std::move(decoders)));
}

Engine::Engine(EngineConfig config, std::unique_ptr<ModelRunner> model, TextDecoderFactory decoders)
    : config_(std::move(config)),
      model_(model->info()),
      makes_text_(decoders != nullptr),
      output_(std::move(decoders),
              [this](RequestKey key, int index) {
                Message message{.kind = Message::Kind::kStopSequence, .key = key, .index = index};
                if (index == OutputProcessor::kAll) message.kind = Message::Kind::kAbort;
                (void)leave(std::move(message));
              }),
      blocks_({.total_blocks = model_.num_blocks, .block_tokens = model_.block_tokens}),
      scheduler_(scheduler_config(config_, model_), blocks_),
      step_runner_(config_, std::move(model), output_) {
  update_stats();
  thread_ = std::thread([this] { run(); });
}

Engine::~Engine() { shutdown(std::chrono::milliseconds(0)); }

Result<Engine::RequestKey> Engine::submit(GenerationRequest request, OutputSink sink) {
  MR_RETURN_IF_ERROR(check(request));
  Message message{.kind = Message::Kind::kSubmit, .key = ++last_key_};
  message.request = std::make_shared<const GenerationRequest>(std::move(request));
  message.sink = std::move(sink);
  const RequestKey key = message.key;
  MR_RETURN_IF_ERROR(leave(std::move(message)));
  return key;
}

Status Engine::check(const GenerationRequest& request) const {
  MR_RETURN_IF_ERROR(check_prompt(request));
  MR_RETURN_IF_ERROR(validate(request.params, model_.vocab_size, config_.max_logprobs));
  if (!makes_text_ && !request.params.stop.empty()) {
    return invalid_argument("stop strings need a tokenizer, and none is loaded (skip_tokenizer_init).");
  }
  const auto prompt = static_cast<int64_t>(request.prompt_token_ids.size());
  if (request.params.n * prompt > kMaxGroupTokens) {
    return invalid_argument("n is {} and the prompt has {} tokens; their product must be at most {}.", request.params.n,
                            prompt, kMaxGroupTokens);
  }
  if (request.priority != 0 && config_.scheduling_policy != SchedulingPolicy::kPriority) {
    return invalid_argument("Got priority {} but priority scheduling is not enabled.", request.priority);
  }
  return {};
}

Status Engine::check_prompt(const GenerationRequest& request) const {
  if (request.prompt_token_ids.empty())
    return invalid_argument("The prompt is empty; it must have at least one token.");
  for (const int32_t token : request.prompt_token_ids) {
    if (token < 0 || token >= model_.vocab_size) {
      return invalid_argument("Token id {} is out of vocabulary: ids go from 0 to {}.", token, model_.vocab_size - 1);
    }
  }
  const auto prompt = static_cast<int64_t>(request.prompt_token_ids.size());
  const int64_t generated = request.params.max_tokens > 0 ? 1 : 0;
  if (prompt + generated <= config_.max_model_len) return {};
  return invalid_argument(
      "This model's maximum context length is {} tokens. However, you requested {} tokens ({} in the prompt, at least "
      "{} in the completion). Please reduce the length of the prompt.",
      config_.max_model_len, prompt + generated, prompt, generated);
}

// Puts a message into the mailbox. New requests are turned away once the engine is dead or shutting down.
Status Engine::leave(Message message) {
  {
    const std::lock_guard lock(mutex_);
    if (message.kind == Message::Kind::kSubmit) {
      if (!health_.ok()) return health_;
      if (closing_) return unavailable("the server is shutting down");
    }
    mail_.push_back(std::move(message));
  }
  arrived_.notify_one();
  return {};
}

void Engine::abort(RequestKey key) { (void)leave({.kind = Message::Kind::kAbort, .key = key}); }

EngineStats Engine::stats() const {
  const std::lock_guard lock(mutex_);
  EngineStats stats = stats_;
  stats.waiting += std::ranges::count(mail_, Message::Kind::kSubmit, &Message::kind);
  return stats;
}

EngineLimits Engine::limits() const {
  return {.vocab_size = model_.vocab_size,
          .max_model_len = config_.max_model_len,
          .kv_tokens = int64_t{model_.num_blocks} * model_.block_tokens,
          .max_logprobs = config_.max_logprobs,
          .priority_policy = config_.scheduling_policy == SchedulingPolicy::kPriority};
}

Status Engine::health() const {
  const std::lock_guard lock(mutex_);
  return health_;
}

void Engine::shutdown(std::chrono::milliseconds patience) {
  {
    const std::lock_guard lock(mutex_);
    closing_ = true;
    deadline_ = Clock::now() + patience;
  }
  arrived_.notify_one();
  const std::lock_guard lock(joining_);
  if (thread_.joinable()) thread_.join();
  output_.close();
}

void Engine::run() {
  while (receive()) {
    if (scheduler_.idle()) {
      update_stats();
      continue;
    }
    if (const Status status = guarded_step(); !status.ok()) die(status);
    update_stats();
  }
  abort_all();
  update_stats();
}

// Waits for something to do and reads the mail. False: the thread is to end.
bool Engine::receive() {
  bool out_of_time = false;
  {
    std::unique_lock lock(mutex_);
    if (scheduler_.idle()) arrived_.wait(lock, [&] { return closing_ || !mail_.empty(); });
    std::swap(inbox_, mail_);
    out_of_time = closing_ && (Clock::now() >= deadline_ || (inbox_.empty() && scheduler_.idle()));
  }
  for (Message& message : inbox_) read(message);
  inbox_.clear();
  output_.push(events_);
  return !out_of_time;
}

void Engine::read(Message& message) {
  switch (message.kind) {
    case Message::Kind::kSubmit:
      return start(message);
    case Message::Kind::kAbort:
      return drop(message.key);
    case Message::Kind::kStopSequence:
      return end_sequence(message.key, message.index);
  }
}

void Engine::start(Message& message) {
  const GenerationRequest& request = *message.request;
  OutputEvent& begin = events_.emplace_back();
  begin.kind = OutputEvent::Kind::kBegin;
  begin.key = message.key;
  begin.begin = std::make_unique<OutputEvent::Begin>(message.request, std::move(message.sink));
  SequenceGroup group = group_of(message.key, request, config_.max_model_len);
  RequestState& state = requests_[message.key];
  state.request = message.request;
  state.unfinished = group.count;
  state.sequences.reserve(static_cast<size_t>(group.count));
  const uint64_t seed = seed_of(request, config_.seed, message.key);
  for (int index = 0; index < group.count; ++index) {
    state.sequences.push_back(
        {TokenSampler(message.request, index, seed, config_.eos_token_ids, config_.processed_logprobs)});
  }
  if (request.params.prompt_logprobs.has_value()) state.prompt_logprobs.resize(request.prompt_token_ids.size());
  scheduler_.add(std::move(group));
}

void Engine::release(RequestKey key) {
  const auto it = requests_.find(key);
  for (size_t i = 0; i < it->second.sequences.size(); ++i) scheduler_.abort(sequence_id(key, static_cast<int32_t>(i)));
  requests_.erase(it);
}

// Nobody wants the request any more.
void Engine::drop(RequestKey key) {
  if (!requests_.contains(key)) return;
  release(key);
  OutputEvent& event = events_.emplace_back();
  event.kind = OutputEvent::Kind::kDrop;
  event.key = key;
}

// The output thread found a stop string in it.
void Engine::end_sequence(RequestKey key, int index) {
  const SequenceId id = sequence_id(key, index);
  if (scheduler_.find(id) == nullptr) return;
  scheduler_.abort(id);
  forget_sequence(key);
}

// One sequence of the request has left the scheduler.
void Engine::forget_sequence(RequestKey key) {
  const auto it = requests_.find(key);
  if (--it->second.unfinished == 0) requests_.erase(it);
}

Status Engine::guarded_step() {
  try {
    return step();
  } catch (const std::exception& e) {
    return internal_error("the model step threw: {}", e.what());
  }
}

Status Engine::step() {
  scheduler_.plan(plan_);
  refuse();
  scheduler_.start(plan_);
  MR_RETURN_IF_ERROR(step_runner_.run(plan_, requests_));
  const auto results = step_runner_.results();
  for (size_t i = 0; i < results.size(); ++i) {
    if (results[i].finished) forget_sequence(plan_.chunks[i].sequence->group->id);
  }
  scheduler_.commit(plan_, results);
  totals_.generated_tokens += step_runner_.generated_tokens();
  totals_.prompt_tokens += step_runner_.prompt_tokens();
  return {};
}

// Sequences that the KV cache cannot hold even alone end with what they have.
void Engine::refuse() {
  for (const SequenceId id : plan_.refused) {
    const RequestKey key = id / kMaxSequencesPerGroup;
    const Sequence* sequence = scheduler_.find(id);
    log_warning("a sequence of {} tokens does not fit into the KV cache of {} blocks of {} tokens; it ends here",
                sequence->num_tokens(), blocks_.total(), blocks_.block_tokens());
    OutputEvent& event = events_.emplace_back();
    event.key = key;
    event.index = static_cast<int>(id % kMaxSequencesPerGroup);
    event.reason = FinishReason::kLength;
    forget_sequence(key);
  }
  output_.push(events_);
}

// Every request fails, and none is taken any more.
void Engine::die(const Status& status) {
  log_error("the engine is dead: {}", status.to_string());
  std::vector<Message> undelivered;
  {
    const std::lock_guard lock(mutex_);
    health_ = unavailable("the engine is dead: {}", status.message());
    std::swap(undelivered, mail_);
  }
  for (Message& message : undelivered) read(message);
  std::vector<RequestKey> keys;
  for (const auto& [key, request] : requests_) keys.push_back(key);
  std::ranges::sort(keys);
  for (const RequestKey key : keys) {
    OutputEvent& event = events_.emplace_back();
    event.kind = OutputEvent::Kind::kFail;
    event.key = key;
    event.error = internal_error("the engine is dead: {}", status.message());
    release(key);
  }
  output_.push(events_);
}

// Out of patience: what is left ends as it is.
void Engine::abort_all() {
  while (!requests_.empty()) {
    const RequestKey key = requests_.begin()->first;
    for (int index = 0; index < requests_.begin()->second.request->params.n; ++index) {
      OutputEvent& event = events_.emplace_back();
      event.key = key;
      event.index = index;
      event.reason = FinishReason::kAbort;
    }
    release(key);
  }
  output_.push(events_);
}

void Engine::update_stats() {
  const Scheduler::Counters& counters = scheduler_.counters();
  totals_.running = scheduler_.num_running();
  totals_.waiting = scheduler_.num_waiting();
  totals_.blocks_total = blocks_.total();
  totals_.blocks_free = blocks_.available();
  totals_.preemptions = counters.preemptions;
  totals_.prefix_queries = counters.prefix_queries;
  totals_.prefix_hits = counters.prefix_hits;
  const std::lock_guard lock(mutex_);
  stats_ = totals_;
}

}  // namespace millrace
