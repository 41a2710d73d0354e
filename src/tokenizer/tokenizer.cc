#include "tokenizer/tokenizer.h"

#include <cstdio>

#include "base/utf8.h"
#include "tokenizer/detokenizer.h"
#include "tokenizer/state.h"
#include "tokenizer/text/alphabet.h"
#include "tokenizer/text/unicode.h"

namespace millrace {
namespace {

// Tokens for which memory is set aside before encoding.
size_t expected_ids(size_t text_bytes) { return text_bytes / 4 + 16; }

Template substitute(const Template& around, const std::vector<int32_t>& ids) {
  Template out;
  out.reserve(around.size() + ids.size());
  for (const int32_t item : around) {
    if (item == kText)
      out.insert(out.end(), ids.begin(), ids.end());
    else
      out.push_back(item);
  }
  return out;
}

}  // namespace

std::unique_ptr<ModelScratch> ScratchPool::take() {
  {
    const std::lock_guard lock(mutex_);
    if (!free_.empty()) {
      std::unique_ptr<ModelScratch> scratch = std::move(free_.back());
      free_.pop_back();
      return scratch;
    }
  }
  return model_.new_scratch();
}

void ScratchPool::give_back(std::unique_ptr<ModelScratch> scratch) {
  scratch->trim();
  const std::lock_guard lock(mutex_);
  if (free_.size() < kMostKept) free_.push_back(std::move(scratch));
}

void Tokenizer::State::finish() {
  end_id = pipeline.model->vocabulary().end_id();
  const std::vector<AddedToken>& tokens = pipeline.added.tokens();
  for (size_t i = 0; i < tokens.size(); ++i) {
    added_ids[tokens[i].content] = tokens[i].id;
    added_by_id[tokens[i].id] = i;
    end_id = std::max(end_id, tokens[i].id + 1);
  }
  scratch = std::make_unique<ScratchPool>(*pipeline.model);
  byte_level = decode_pair("x", byte_spelling(' ')) == "x ";
  byte_fallback = decode_pair("x", "<0x41>") == "xA";
  for (const AddedToken& token : tokens) added_texts.push_back(byte_level ? to_alphabet(token.content) : token.content);
}

std::string Tokenizer::State::decode_pair(std::string_view first, std::string_view second) const {
  std::string text;
  const TokenSinkPtr chain = decoder_chain(pipeline.decoders, text);
  chain->token(first, true);
  chain->token(second, true);
  chain->finish();
  return text;
}

const AddedToken* Tokenizer::State::added(int32_t id) const {
  const auto it = added_by_id.find(id);
  return it == added_by_id.end() ? nullptr : &pipeline.added.tokens()[it->second];
}

std::string_view Tokenizer::State::text(int32_t id) const {
  const AddedToken* token = added(id);
  return token ? std::string_view(token->content) : pipeline.model->vocabulary().text(id);
}

std::optional<std::string_view> Tokenizer::State::decodable(int32_t id) const {
  if (const auto it = added_by_id.find(id); it != added_by_id.end()) return added_texts[it->second];
  const Vocabulary& vocabulary = pipeline.model->vocabulary();
  return vocabulary.has(id) ? std::optional(vocabulary.text(id)) : std::nullopt;
}

Tokenizer::Tokenizer(std::unique_ptr<State> state) : state_(std::move(state)) {}
Tokenizer::~Tokenizer() = default;

Result<std::vector<int32_t>> Tokenizer::encode(std::string_view text, const EncodeOptions& options) const {
  if (text.size() > kMaxTextBytes)
    return invalid_argument("the text has {} bytes; at most {} can be tokenized at once", text.size(), kMaxTextBytes);
  std::string repaired;
  if (!is_valid_utf8_fast(text)) {
    repaired = utf8_replace_invalid(text);
    text = repaired;
  }
  std::vector<int32_t> ids;
  ids.reserve(expected_ids(text.size()));
  ScratchPool::Lease scratch(*state_->scratch);
  MR_RETURN_IF_ERROR(state_->pipeline.encode(text, options.parse_special, *scratch, ids));
  const Template& around = state_->pipeline.around;
  if (!options.add_special_tokens || around == Template{kText}) return ids;
  return substitute(around, ids);
}

std::string Tokenizer::decode(std::span<const int32_t> ids, const DecodeOptions& options) const {
  // The detokenizer only borrows this tokenizer here, so nothing is deleted with it.
  IncrementalDetokenizer detokenizer(std::shared_ptr<const Tokenizer>(std::shared_ptr<void>(), this), options);
  std::string text = detokenizer.append(ids);
  text += detokenizer.finish();
  return options.clean_up_tokenization_spaces ? clean_up_tokenization(std::move(text)) : text;
}

std::string Tokenizer::token_text(int32_t id) const { return std::string(state_->text(id)); }

std::string Tokenizer::token_bytes(int32_t id) const {
  const std::string_view text = state_->text(id);
  if (state_->added(id)) return std::string(text);
  if (state_->byte_level) return from_alphabet(text).value_or(std::string(text));
  unsigned byte = 0;
  if (state_->byte_fallback && text.size() == 6 && std::sscanf(std::string(text).c_str(), "<0x%2X>", &byte) == 1)
    return std::string(1, static_cast<char>(byte));
  std::string pair = state_->decode_pair("x", text);  // in the middle of a text: behind some other token
  return pair.starts_with('x') ? pair.substr(1) : pair;
}

std::optional<int32_t> Tokenizer::token_id(std::string_view text) const {
  const auto it = state_->added_ids.find(std::string(text));
  if (it != state_->added_ids.end()) return it->second;
  const int32_t id = state_->pipeline.model->vocabulary().find(text);
  return id >= 0 ? std::optional(id) : std::nullopt;
}

int64_t Tokenizer::vocab_size() const { return state_->end_id; }

bool Tokenizer::is_special(int32_t id) const {
  const AddedToken* token = state_->added(id);
  return token && token->special;
}

const SpecialTokens& Tokenizer::special_tokens() const { return state_->special; }
const std::map<std::string, std::string>& Tokenizer::chat_templates() const { return state_->chat_templates; }
std::optional<std::string> Tokenizer::default_chat_template() const {
  const std::map<std::string, std::string>& all = state_->chat_templates;
  if (const auto found = all.find("default"); found != all.end()) return found->second;
  if (all.size() == 1) return all.begin()->second;
  return std::nullopt;
}
bool Tokenizer::cleans_up_spaces() const { return state_->cleans_up_spaces; }
const std::string& Tokenizer::description() const { return state_->description; }

std::optional<int32_t> Tokenizer::named_id(const std::string& token) const {
  return token.empty() ? std::nullopt : token_id(token);
}

}  // namespace millrace
