// Text to token ids and back, for every tokenizer file format that open models come with:
//   tokenizer.json                 Hugging Face fast tokenizers: BPE, Unigram, WordPiece, WordLevel
//   tokenizer.model, spiece.model  sentencepiece (BPE and Unigram), or a tiktoken rank file as Llama 3 has it
//   *.tiktoken                     tiktoken rank files
//   vocab.json + merges.txt        GPT-2
//   tekken.json                    Mistral since Nemo
//   vocab.txt                      BERT
// with what tokenizer_config.json, special_tokens_map.json, added_tokens.json, chat_template.jinja,
// chat_template.json and config.json beside them say.
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "tokenizer/special_tokens.h"

namespace millrace {

struct EncodeOptions {
  bool add_special_tokens = true;  // what the tokenizer puts around a text: bos, eos, [CLS], ...
  bool parse_special = true;       // special tokens written in the text become their ids
};

struct DecodeOptions {
  bool skip_special_tokens = true;
  // Without it, a special token that follows another gets no space in front. Matters only to tokenizers whose decoder
  // puts spaces between tokens.
  bool spaces_between_special_tokens = true;
  // Undo the spaces before punctuation that word-by-word tokenizers make; decode() only. A tokenizer_config.json may
  // ask for it (Tokenizer::cleans_up_spaces), streaming never does it.
  bool clean_up_tokenization_spaces = false;
};

// Immutable; any thread.
class Tokenizer {
 public:
  static constexpr size_t kMaxTextBytes = size_t{1} << 30;

  // From a folder, or from one of the files above. The error says which file is wrong and how. `default_class` is the
  // tokenizer's class ("QWenTokenizer") where no file beside it names one.
  static Result<std::shared_ptr<const Tokenizer>> load(const std::string& path, const std::string& default_class = "");
  ~Tokenizer();

  // Bytes that are not valid UTF-8 count as U+FFFD. Fails for texts above kMaxTextBytes, for characters that a
  // vocabulary without an unknown token lacks, and for regular expressions that give up on the text.
  Result<std::vector<int32_t>> encode(std::string_view text, const EncodeOptions& options = {}) const;
  // Ids that are no token count as nothing. The result is valid UTF-8.
  std::string decode(std::span<const int32_t> ids, const DecodeOptions& options = {}) const;

  // The token as its file spells it ("\u0120the", "\u2581the", "<0x0A>"); "" if there is none.
  std::string token_text(int32_t id) const;
  // The bytes it stands for in the middle of a text (" the", "\n"); they need not be whole characters.
  std::string token_bytes(int32_t id) const;
  std::optional<int32_t> token_id(std::string_view text) const;
  // One more than the largest id.
  int64_t vocab_size() const;
  bool is_special(int32_t id) const;

  const SpecialTokens& special_tokens() const;
  std::optional<int32_t> bos_id() const { return named_id(special_tokens().bos); }
  std::optional<int32_t> eos_id() const { return named_id(special_tokens().eos); }
  std::optional<int32_t> pad_id() const { return named_id(special_tokens().pad); }
  std::optional<int32_t> unk_id() const { return named_id(special_tokens().unk); }

  // Chat templates by name, as Jinja text; the usual one is called "default". Empty if the folder has none.
  const std::map<std::string, std::string>& chat_templates() const;
  // The one called "default", or the only one.
  std::optional<std::string> default_chat_template() const;
  // clean_up_tokenization_spaces of tokenizer_config.json; false if it does not say.
  bool cleans_up_spaces() const;
  // What was loaded, for a log line: "tokenizer.json (BPE, 128,256 tokens)".
  const std::string& description() const;

 private:
  friend class IncrementalDetokenizer;
  friend class TokenizerBuilder;
  struct State;
  explicit Tokenizer(std::unique_ptr<State> state);
  std::optional<int32_t> named_id(const std::string& token) const;
  std::unique_ptr<State> state_;
};

}  // namespace millrace
