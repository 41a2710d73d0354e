#include "bench/prompts.h"

#include <numeric>

namespace millrace::bench {
namespace {

constexpr int kRounds = 10;
constexpr EncodeOptions kPlain{.add_special_tokens = false, .parse_special = false};

// Ids that stand for text that survives being decoded alone: no special ones, no parts of characters.
std::vector<int32_t> plain_ids(const Tokenizer& tokenizer) {
  std::vector<int32_t> ids;
  for (int64_t id = 0; id < tokenizer.vocab_size(); ++id) {
    const auto i = static_cast<int32_t>(id);
    if (!tokenizer.is_special(i) && !tokenizer.token_bytes(i).empty()) ids.push_back(i);
  }
  return ids;
}

}  // namespace

PromptMaker::PromptMaker(std::shared_ptr<const Tokenizer> tokenizer, uint64_t seed)
    : tokenizer_(std::move(tokenizer)), random_(seed) {
  if (tokenizer_) vocabulary_ = plain_ids(*tokenizer_);
  if (!vocabulary_.empty()) return;
  vocabulary_.resize(253);
  std::iota(vocabulary_.begin(), vocabulary_.end(), 3);
}

std::vector<int32_t> PromptMaker::ids(int64_t tokens) {
  std::vector<int32_t> ids(static_cast<size_t>(std::max<int64_t>(tokens, 0)));
  for (int32_t& id : ids) id = vocabulary_[random_.below(static_cast<uint32_t>(vocabulary_.size()))];
  return ids;
}

Result<PromptMaker::Text> PromptMaker::text(int64_t tokens) {
  if (!tokenizer_) return failed_precondition("a prompt of {} tokens as text needs --tokenizer", tokens);
  std::vector<int32_t> wanted = ids(tokens);
  for (int round = 0; round < kRounds; ++round) {
    std::string text = tokenizer_->decode(wanted);
    MR_ASSIGN_OR_RETURN(std::vector<int32_t> got, tokenizer_->encode(text, kPlain));
    const auto count = static_cast<int64_t>(got.size());
    if (count == tokens) return Text{std::move(text), tokens, true};
    got.resize(static_cast<size_t>(std::min(count, tokens)));
    const std::vector<int32_t> more = ids(tokens - static_cast<int64_t>(got.size()));
    got.insert(got.end(), more.begin(), more.end());
    wanted = std::move(got);
  }
  return repeated_word(tokens);
}

Result<PromptMaker::Text> PromptMaker::repeated_word(int64_t tokens) const {
  Text best;
  for (const char* word : {" Hello", "Hello", " a", "a ", "1"}) {
    std::string text;
    for (int64_t i = 0; i < tokens; ++i) text += word;
    MR_ASSIGN_OR_RETURN(const std::vector<int32_t> got, tokenizer_->encode(text, kPlain));
    const auto count = static_cast<int64_t>(got.size());
    if (best.text.empty() || std::abs(count - tokens) < std::abs(best.tokens - tokens))
      best = {text, count, count == tokens};
    if (best.exact) break;
  }
  return best;
}

}  // namespace millrace::bench
