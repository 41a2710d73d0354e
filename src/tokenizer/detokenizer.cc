#include "tokenizer/detokenizer.h"

#include "tokenizer/state.h"

namespace millrace {

IncrementalDetokenizer::IncrementalDetokenizer(std::shared_ptr<const Tokenizer> tokenizer, const DecodeOptions& options,
                                               std::span<const int32_t> prompt_tail)
    : tokenizer_(std::move(tokenizer)),
      options_(options),
      text_(std::make_unique<std::string>()),
      chain_(decoder_chain(tokenizer_->state_->pipeline.decoders, *text_)) {
  for (const int32_t id : prompt_tail) feed(id);
  text_->clear();
}
IncrementalDetokenizer::IncrementalDetokenizer(IncrementalDetokenizer&&) noexcept = default;
IncrementalDetokenizer& IncrementalDetokenizer::operator=(IncrementalDetokenizer&&) noexcept = default;
IncrementalDetokenizer::~IncrementalDetokenizer() = default;

void IncrementalDetokenizer::feed(int32_t id) {
  const Tokenizer::State& state = *tokenizer_->state_;
  const AddedToken* added = state.added(id);
  const bool special = added && added->special;
  if (special && options_.skip_special_tokens) return;
  const bool glued = special && after_special_ && !options_.spaces_between_special_tokens;
  after_special_ = special;
  if (const std::optional<std::string_view> text = state.decodable(id)) chain_->token(*text, !glued);
}

std::string IncrementalDetokenizer::take() { return std::exchange(*text_, {}); }

std::string IncrementalDetokenizer::append(int32_t id) {
  feed(id);
  return take();
}

std::string IncrementalDetokenizer::append(std::span<const int32_t> ids) {
  for (const int32_t id : ids) feed(id);
  return take();
}

std::string IncrementalDetokenizer::finish() {
  chain_->finish();
  return take();
}

}  // namespace millrace
