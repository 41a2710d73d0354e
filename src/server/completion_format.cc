#include "server/completion_format.h"

#include <algorithm>

namespace millrace {
namespace {

ChunkUsage chunk_usage(const GenerationOptions& options) {
  return options.continuous_usage_stats ? ChunkUsage::kRunning : ChunkUsage::kNull;
}

}  // namespace

CompletionFormat::CompletionFormat(ResponseHead head, const GenerationOptions& options,
                                   std::vector<PreparedPrompt> prompts, TokenNames names, bool prompt_tokens_details)
    : head_(std::move(head)),
      chunk_start_(chunk_start(head_, "text_completion")),
      echo_(options.echo),
      return_token_ids_(options.return_token_ids),
      prompt_tokens_details_(prompt_tokens_details),
      show_prompt_logprobs_(options.params.prompt_logprobs.has_value()),
      logprobs_(options.params.logprobs),
      prompt_top_(options.params.prompt_logprobs.value_or(0)),
      chunk_usage_(chunk_usage(options)),
      n_(static_cast<size_t>(options.params.n)),
      prompts_(std::move(prompts)),
      names_(std::move(names)),
      progress_(prompts_.size() * n_),
      prompt_logprobs_(prompts_.size()) {}

void CompletionFormat::add_prompt(CompletionLogprobs& logprobs, size_t prompt, const PromptLogprobs& positions) const {
  const std::vector<int32_t>& ids = prompts_[prompt].ids;
  for (size_t i = 0; i < ids.size(); ++i) {
    if (i < positions.size() && positions[i])
      logprobs.add(*positions[i]);
    else
      logprobs.add(ids[i]);
  }
}

void CompletionFormat::append_chunk(size_t prompt, const SequenceOutput& news, const Usage& usage,
                                    std::string& events) {
  const size_t index = prompt * n_ + static_cast<size_t>(news.index);
  Progress& progress = progress_[index];
  const bool with_prompt = echo_ && !progress.started;
  events += chunk_start_;
  JsonWriter json(events);
  json.begin_object().field("index", static_cast<int64_t>(index));
  json.field("text", with_prompt ? prompts_[prompt].text + news.text : news.text).key("logprobs");
  if (logprobs_) {
    CompletionLogprobs logprobs(names_, *logprobs_, progress.text_offset);
    if (with_prompt) add_prompt(logprobs, prompt, prompt_logprobs_[prompt]);
    for (const PositionLogprobs& position : news.logprobs) logprobs.add(position);
    logprobs.write(json);
  } else {
    json.null();
  }
  write_finish_reason(json, news.finish_reason);
  write_stop_reason(json, news.stop_string, news.stop_token_id);
  if (return_token_ids_) {
    json.key("token_ids").ids(news.token_ids);
    if (!progress.started) json.key("prompt_token_ids").ids(prompts_[prompt].ids);
  }
  json.end_object().end_array();
  write_chunk_usage(json, chunk_usage_, usage, prompt_tokens_details_);
  json.end_object();
  events += "\n\n";
  progress.started = true;
}

void CompletionFormat::append_events(size_t prompt, const RequestOutput& output, const Usage& usage,
                                     std::string& events) {
  if (!output.prompt_logprobs.empty()) prompt_logprobs_[prompt] = output.prompt_logprobs;
  for (const SequenceOutput& news : output.sequences)
    if (!news.token_ids.empty() || !news.text.empty() || news.finish_reason != FinishReason::kNone)
      append_chunk(prompt, news, usage, events);
}

void CompletionFormat::append_usage_event(const Usage& usage, std::string& events) {
  append_usage_chunk(chunk_start_, usage, prompt_tokens_details_, events);
}

void CompletionFormat::write_choice(JsonWriter& json, size_t prompt, size_t index, const Choice& choice,
                                    const PromptLogprobs& prompt_logprobs) const {
  json.begin_object().field("index", static_cast<int64_t>(index));
  json.field("text", echo_ ? prompts_[prompt].text + choice.text : choice.text).key("logprobs");
  if (logprobs_) {
    int64_t text_offset = 0;
    CompletionLogprobs logprobs(names_, *logprobs_, text_offset);
    if (echo_) add_prompt(logprobs, prompt, prompt_logprobs);
    for (const PositionLogprobs& position : choice.logprobs) logprobs.add(position);
    logprobs.write(json);
  } else {
    json.null();
  }
  write_finish_reason(json, choice.finish_reason);
  write_stop_reason(json, choice.stop_string, choice.stop_token_id);
  json.key("prompt_logprobs");
  if (show_prompt_logprobs_)
    write_prompt_logprobs(prompt_logprobs, prompt_top_, names_, json);
  else
    json.null();
  if (return_token_ids_) json.key("token_ids").ids(choice.token_ids).key("prompt_token_ids").ids(prompts_[prompt].ids);
  json.end_object();
}

std::string CompletionFormat::body(const std::vector<Choice>& choices,
                                   const std::vector<PromptLogprobs>& prompt_logprobs, const Usage& usage) {
  std::string out;
  JsonWriter json(out);
  json.begin_object();
  write_head(json, head_, "text_completion");
  json.key("choices").begin_array();
  for (size_t i = 0; i < choices.size(); ++i) write_choice(json, i / n_, i, choices[i], prompt_logprobs[i / n_]);
  json.end_array().key("usage");
  write_usage(json, usage, prompt_tokens_details_);
  json.end_object();
  return out;
}

}  // namespace millrace
