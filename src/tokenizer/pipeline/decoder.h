// Decoders: from the texts of tokens back to one text. Each is a stage that passes on what it can decide at once, so
// that decoding token by token costs the same as decoding all and gives the same text.
// Meanings are those of the Hugging Face tokenizers library, with one difference: of a run of byte-fallback tokens
// every whole character is kept and every other byte becomes U+FFFD, where the library gives up the whole run; only so
// can text be shown before its run ends.
#pragma once
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "tokenizer/text/pattern.h"

namespace millrace {

// Receives tokens one after another. One thread at a time.
class TokenSink {
 public:
  virtual ~TokenSink() = default;
  // `text` is valid UTF-8. Without `starts` it goes on with the token before.
  virtual void token(std::string_view text, bool starts) = 0;
  // No token follows.
  virtual void finish() = 0;
};
using TokenSinkPtr = std::unique_ptr<TokenSink>;

// Makes stages. Immutable; any thread.
class Decoder {
 public:
  virtual ~Decoder() = default;
  virtual TokenSinkPtr stage(TokenSinkPtr next) const = 0;
  // Whether its stages must be given every token in one call.
  virtual bool wants_whole_tokens() const = 0;
  // Whether its stages hand on every token in one call, if they are given them so.
  virtual bool gives_whole_tokens() const { return true; }
};
using DecoderPtr = std::unique_ptr<const Decoder>;

DecoderPtr byte_level_decoder();
DecoderPtr byte_fallback_decoder();
DecoderPtr fuse_decoder();
// Takes up to `start` characters `content` from the front of every token and up to `stop` from its end.
DecoderPtr strip_decoder(char32_t content, size_t start, size_t stop);
DecoderPtr replace_decoder(Pattern pattern, std::string content);
// `replacement` becomes a space; in the first token nothing, if `drop_first`.
DecoderPtr metaspace_decoder(char32_t replacement, bool drop_first);
DecoderPtr wordpiece_decoder(std::string prefix, bool cleanup);
// `suffix` ends words: it becomes a space, except in the last token.
DecoderPtr bpe_decoder(std::string suffix);
DecoderPtr ctc_decoder(std::string pad_token, std::string word_delimiter_token, bool cleanup);
// A space between tokens: what decoding means without a decoder.
DecoderPtr join_decoder();

// A chain of stages of `decoders`, first to last, that ends in `out`, which must outlive it.
TokenSinkPtr decoder_chain(const std::vector<DecoderPtr>& decoders, std::string& out);

// Undoes the spaces that word-by-word tokenizers put in front of punctuation and English contractions.
std::string clean_up_tokenization(std::string text);

}  // namespace millrace
