#include "tests/engine/engine_fixture.h"

#include <gtest/gtest.h>

#include <thread>

namespace millrace {

OutputSink Collector::sink() {
  return [self = shared_from_this()](RequestOutput&& output) { self->take(std::move(output)); };
}

void Collector::take(RequestOutput&& output) {
  const std::lock_guard lock(mutex_);
  EXPECT_FALSE(finished_) << "an output after the last";
  ++outputs_;
  for (SequenceOutput& news : output.sequences) {
    if (answers_.size() <= static_cast<size_t>(news.index)) answers_.resize(static_cast<size_t>(news.index) + 1);
    Answer& answer = answers_[static_cast<size_t>(news.index)];
    EXPECT_EQ(answer.reason, FinishReason::kNone) << "news of a finished sequence";
    answer.tokens.insert(answer.tokens.end(), news.token_ids.begin(), news.token_ids.end());
    answer.text += news.text;
    for (PositionLogprobs& logprobs : news.logprobs) answer.logprobs.push_back(std::move(logprobs));
    answer.reason = news.finish_reason;
    answer.stop_string = news.stop_string;
    answer.stop_token_id = news.stop_token_id;
    if (news.index == 0) pieces_.push_back(news.text);
  }
  if (!output.prompt_logprobs.empty()) {
    EXPECT_TRUE(prompt_logprobs_.empty());
    EXPECT_EQ(outputs_, 1);
    prompt_logprobs_ = std::move(output.prompt_logprobs);
  }
  cached_tokens_ = output.cached_tokens;
  error_ = output.error;
  finished_ = output.finished;
  changed_.notify_all();
}

const std::vector<Answer>& Collector::wait() {
  std::unique_lock lock(mutex_);
  const bool ended = changed_.wait_for(lock, std::chrono::seconds(60), [&] { return finished_; });
  EXPECT_TRUE(ended) << "no last output within a minute";
  return answers_;
}

void Collector::wait_for_outputs(int64_t count) {
  std::unique_lock lock(mutex_);
  EXPECT_TRUE(changed_.wait_for(lock, std::chrono::seconds(60), [&] { return outputs_ >= count; }));
}

bool Collector::finished() const {
  const std::lock_guard lock(mutex_);
  return finished_;
}

int64_t Collector::num_outputs() const {
  const std::lock_guard lock(mutex_);
  return outputs_;
}

int64_t Collector::cached_tokens() const {
  const std::lock_guard lock(mutex_);
  return cached_tokens_;
}

Status Collector::error() const {
  const std::lock_guard lock(mutex_);
  return error_;
}

TestEngine::TestEngine(const EngineSetup& setup, std::function<void(const Batch&)> on_forward) {
  auto model = std::make_unique<FakeModel>(setup.model);
  model->on_forward = std::move(on_forward);
  model_ = model.get();
  auto engine = Engine::create(setup.config, std::move(model), setup.text ? fake_text_decoders() : nullptr);
  EXPECT_TRUE(engine.ok()) << engine.status().to_string();
  engine_ = std::move(engine).value();
}

std::shared_ptr<Collector> TestEngine::submit(const GenerationRequest& request, EngineClient::RequestKey* key) {
  auto collector = std::make_shared<Collector>();
  const auto submitted = engine_->submit(request, collector->sink());
  EXPECT_TRUE(submitted.ok()) << submitted.status().to_string();
  if (key != nullptr && submitted.ok()) *key = *submitted;
  return collector;
}

void TestEngine::settle() const {
  for (int i = 0; i < 60000; ++i) {
    const EngineStats stats = engine_->stats();
    if (stats.running + stats.waiting == 0) return;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  ADD_FAILURE() << "the engine is still busy after a minute";
}

namespace {

// Cuts at the first stop string, looking at whole texts only.
void cut_at_stop_string(Answer& answer, const SamplingParams& params) {
  for (size_t count = std::max<size_t>(1, static_cast<size_t>(params.min_tokens)); count <= answer.tokens.size();
       ++count) {
    const bool ends_by_token = count == answer.tokens.size() && answer.reason == FinishReason::kStop;
    if (ends_by_token) return;
    const std::string text = fake_text(std::span(answer.tokens).first(count));
    size_t first_end = std::string::npos;
    for (const std::string& stop : params.stop) {
      const size_t at = text.find(stop);
      if (at == std::string::npos || at + stop.size() >= first_end) continue;
      first_end = at + stop.size();
      answer.stop_string = stop;
    }
    if (!answer.stop_string.has_value()) continue;
    answer.tokens.resize(count);
    if (!answer.logprobs.empty()) answer.logprobs.resize(count);
    answer.text =
        text.substr(0, params.include_stop_str_in_output ? first_end : first_end - answer.stop_string->size());
    answer.reason = FinishReason::kStop;
    answer.stop_token_id.reset();
    return;
  }
}

Answer oracle_sequence(const GenerationRequest& request, int index, const EngineSetup& setup) {
  const auto shared = std::make_shared<const GenerationRequest>(request);
  const SamplingParams& params = request.params;
  TokenSampler sampler(shared, index, static_cast<uint64_t>(params.seed.value_or(0)), setup.config.eos_token_ids,
                       setup.config.processed_logprobs);
  const int64_t max_model_len = setup.config.max_model_len > 0 ? setup.config.max_model_len : setup.model.max_positions;
  std::vector<int32_t> tokens = request.prompt_token_ids;
  SamplerScratch scratch;
  Answer answer;
  while (answer.reason == FinishReason::kNone) {
    auto logits = FakeModel::logits_after(tokens, setup.model.vocab_size);
    const auto generated = static_cast<int64_t>(answer.tokens.size());
    TokenSampler::Choice choice = sampler.choose(logits, static_cast<int64_t>(tokens.size()), generated, scratch);
    sampler.accept(choice.token);
    tokens.push_back(choice.token);
    answer.tokens.push_back(choice.token);
    if (choice.logprobs.has_value()) answer.logprobs.push_back(*choice.logprobs);
    const StopVerdict verdict = check_stop(params, setup.config.eos_token_ids, max_model_len, choice.token,
                                           generated + 1, static_cast<int64_t>(tokens.size()));
    answer.reason = verdict.reason;
    answer.stop_token_id = verdict.stop_token_id;
  }
  std::span<const int32_t> shown = answer.tokens;
  if (answer.reason == FinishReason::kStop && !params.include_stop_str_in_output) shown = shown.first(shown.size() - 1);
  answer.text = fake_text(shown);
  cut_at_stop_string(answer, params);
  return answer;
}

}  // namespace

std::vector<Answer> oracle(const GenerationRequest& request, const EngineSetup& setup) {
  std::vector<Answer> answers;
  for (int index = 0; index < request.params.n; ++index) answers.push_back(oracle_sequence(request, index, setup));
  return answers;
}

}  // namespace millrace
