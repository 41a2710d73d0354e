// Answers of /v1/completions: "text_completion" objects, whole or in chunks.
#pragma once
#include <memory>

#include "server/generation_options.h"
#include "server/logprob_format.h"
#include "server/prompt.h"
#include "server/response_format.h"
#include "server/response_parts.h"
#include "server/token_names.h"

namespace millrace {

class CompletionFormat : public ResponseFormat {
 public:
  CompletionFormat(ResponseHead head, const GenerationOptions& options, std::vector<PreparedPrompt> prompts,
                   TokenNames names, bool prompt_tokens_details);
  void append_events(size_t prompt, const RequestOutput& output, const Usage& usage, std::string& events) override;
  void append_usage_event(const Usage& usage, std::string& events) override;
  std::string body(const std::vector<Choice>& choices, const std::vector<PromptLogprobs>& prompt_logprobs,
                   const Usage& usage) override;

 private:
  // Of a choice that is being streamed.
  struct Progress {
    int64_t text_offset = 0;  // characters of the tokens shown so far
    bool started = false;
  };
  void append_chunk(size_t prompt, const SequenceOutput& news, const Usage& usage, std::string& events);
  void write_choice(JsonWriter& json, size_t prompt, size_t index, const Choice& choice,
                    const PromptLogprobs& prompt_logprobs) const;
  void add_prompt(CompletionLogprobs& logprobs, size_t prompt, const PromptLogprobs& positions) const;

  const ResponseHead head_;
  const std::string chunk_start_;
  const bool echo_, return_token_ids_, prompt_tokens_details_;
  const bool show_prompt_logprobs_;  // asked for by name, not implied by echo
  const std::optional<int> logprobs_;
  const int prompt_top_;
  const ChunkUsage chunk_usage_;
  const size_t n_;
  const std::vector<PreparedPrompt> prompts_;
  const TokenNames names_;
  std::vector<Progress> progress_;               // per choice
  std::vector<PromptLogprobs> prompt_logprobs_;  // per prompt, kept from a stream's first output for its choices
};

}  // namespace millrace
