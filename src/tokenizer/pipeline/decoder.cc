#include "tokenizer/pipeline/decoder.h"

#include <array>
#include <functional>
#include <optional>

#include "base/utf8.h"
#include "tokenizer/text/alphabet.h"
#include "tokenizer/text/unicode.h"

namespace millrace {
namespace {

constexpr std::string_view kReplacementChar = "\xef\xbf\xbd";

void replace_text(std::string& text, std::string_view from, std::string_view to) {
  if (from.empty() || text.find(from) == std::string::npos) return;
  std::string out;
  size_t at = 0;
  for (size_t hit = text.find(from); hit != std::string::npos; hit = text.find(from, at)) {
    out.append(text, at, hit - at).append(to);
    at = hit + from.size();
  }
  text = out.append(text, at);
}

class Stage : public TokenSink {
 public:
  explicit Stage(TokenSinkPtr next) : next_(std::move(next)) {}
  void finish() override { next_->finish(); }

 protected:
  TokenSinkPtr next_;
};

// The end of a chain.
class Collect final : public TokenSink {
 public:
  explicit Collect(std::string& out) : out_(out) {}
  void token(std::string_view text, bool) override { out_ += text; }
  void finish() override {}

 private:
  std::string& out_;
};

// Puts tokens together that come in parts.
class Whole final : public Stage {
 public:
  using Stage::Stage;
  void token(std::string_view text, bool starts) override {
    if (starts) flush();
    open_ = true;
    text_ += text;
  }
  void finish() override {
    flush();
    next_->finish();
  }

 private:
  void flush() {
    if (open_) next_->token(text_, true);
    open_ = false;
    text_.clear();
  }
  std::string text_;
  bool open_ = false;
};

// Bytes on their way to text: passes on whole characters, keeps the beginning of one for later.
class ByteText {
 public:
  // Adds bytes; returns what is decided by now, broken characters replaced.
  std::string add(std::string_view bytes) {
    held_ += bytes;
    const size_t tail = utf8_incomplete_suffix(held_);
    std::string ready = held_.substr(0, held_.size() - tail);
    held_.erase(0, ready.size());
    return is_valid_utf8_fast(ready) ? ready : utf8_replace_invalid(ready);
  }
  std::string finish() { return utf8_replace_invalid(std::exchange(held_, {})); }

 private:
  std::string held_;
};

class ByteLevelStage final : public Stage {
 public:
  using Stage::Stage;
  void token(std::string_view text, bool) override {
    const std::optional<std::string> bytes = from_alphabet(text);
    send(bytes_.add(bytes ? std::string_view(*bytes) : text));
  }
  void finish() override {
    send(bytes_.finish());
    next_->finish();
  }

 private:
  void send(const std::string& text) {
    if (!text.empty()) next_->token(text, std::exchange(first_, false));
  }
  ByteText bytes_;
  bool first_ = true;
};

// The byte that a token like "<0x0A>" stands for.
std::optional<char> byte_of_token(std::string_view text) {
  if (text.size() != 6 || !text.starts_with("<0x") || text[5] != '>') return std::nullopt;
  int value = 0;
  for (const char c : text.substr(3, 2)) {
    if (!std::isxdigit(static_cast<uint8_t>(c))) return std::nullopt;
    value = value * 16 + (std::isdigit(static_cast<uint8_t>(c)) ? c - '0' : (c | 0x20) - 'a' + 10);
  }
  return static_cast<char>(value);
}

class ByteFallbackStage final : public Stage {
 public:
  using Stage::Stage;
  void token(std::string_view text, bool starts) override {
    if (const std::optional<char> byte = byte_of_token(text)) {
      held_ += *byte;
      send(held_.size() - utf8_incomplete_suffix(held_));
      return;
    }
    send(held_.size());
    next_->token(text, starts);
  }
  void finish() override {
    send(held_.size());
    next_->finish();
  }

 private:
  // Passes on the first `bytes` of what is held: a character as it is, any other byte as U+FFFD.
  void send(size_t bytes) {
    for (size_t i = 0; i < bytes;) {
      const Utf8Char c = utf8_at(std::string_view(held_).substr(0, bytes), i);
      next_->token(c.valid ? std::string_view(held_).substr(i, c.bytes) : kReplacementChar, true);
      i += c.bytes;
    }
    held_.erase(0, bytes);
  }
  std::string held_;
};

class FuseStage final : public Stage {
 public:
  using Stage::Stage;
  void token(std::string_view text, bool) override { next_->token(text, std::exchange(first_, false)); }

 private:
  bool first_ = true;
};

class StripStage final : public Stage {
 public:
  StripStage(TokenSinkPtr next, std::string_view content, size_t start, size_t stop)
      : Stage(std::move(next)), content_(content), start_(start), stop_(stop) {}
  void token(std::string_view text, bool starts) override {
    if (starts) left_ = start_;
    for (; left_ > 0 && text.starts_with(content_); --left_) text.remove_prefix(content_.size());
    if (!text.empty()) left_ = 0;
    for (size_t n = 0; n < stop_ && text.ends_with(content_); ++n) text.remove_suffix(content_.size());
    next_->token(text, starts);
  }

 private:
  std::string content_;
  size_t start_, stop_, left_ = 0;
};

class ReplaceStage final : public Stage {
 public:
  ReplaceStage(TokenSinkPtr next, const Pattern& pattern, const std::string& content)
      : Stage(std::move(next)), pattern_(pattern), content_(content) {}
  void token(std::string_view text, bool starts) override {
    const Result<std::string> replaced = pattern_.replace(text, content_);
    next_->token(replaced.ok() ? std::string_view(*replaced) : text, starts);
  }

 private:
  const Pattern& pattern_;
  const std::string& content_;
};

class MetaspaceStage final : public Stage {
 public:
  MetaspaceStage(TokenSinkPtr next, std::string_view mark, bool drop_first)
      : Stage(std::move(next)), mark_(mark), drop_first_(drop_first) {}
  void token(std::string_view text, bool starts) override {
    if (starts) ++count_;
    std::string out(text);
    replace_text(out, mark_, count_ <= 1 && drop_first_ ? "" : " ");
    next_->token(out, starts);
  }

 private:
  std::string mark_;
  bool drop_first_;
  size_t count_ = 0;
};

class WordPieceStage final : public Stage {
 public:
  WordPieceStage(TokenSinkPtr next, const std::string& prefix, bool cleanup)
      : Stage(std::move(next)), prefix_(prefix), cleanup_(cleanup) {}
  void token(std::string_view text, bool starts) override {
    std::string out;
    if (!std::exchange(first_, false) && starts) {
      if (text.starts_with(prefix_))
        text.remove_prefix(prefix_.size());
      else
        out = " ";
    }
    out += text;
    next_->token(cleanup_ ? clean_up_tokenization(std::move(out)) : out, starts);
  }

 private:
  const std::string& prefix_;
  bool cleanup_, first_ = true;
};

class BpeStage final : public Stage {
 public:
  BpeStage(TokenSinkPtr next, const std::string& suffix) : Stage(std::move(next)), suffix_(suffix) {}
  void token(std::string_view text, bool) override {
    flush(" ");
    held_ = text;
  }
  void finish() override {
    flush("");
    next_->finish();
  }

 private:
  void flush(std::string_view instead) {
    if (!held_) return;
    replace_text(*held_, suffix_, instead);
    next_->token(*held_, true);
    held_.reset();
  }
  const std::string& suffix_;
  std::optional<std::string> held_;  // the token before: it may be the last
};

class CtcStage final : public Stage {
 public:
  CtcStage(TokenSinkPtr next, const std::string& pad, const std::string& delimiter, bool cleanup)
      : Stage(std::move(next)), pad_(pad), delimiter_(delimiter), cleanup_(cleanup) {}
  void token(std::string_view text, bool starts) override {
    if (last_ && *last_ == text) return;
    last_ = text;
    std::string out(text);
    replace_text(out, pad_, "");
    if (cleanup_) {
      out = clean_up_tokenization(std::move(out));
      replace_text(out, delimiter_, " ");
    }
    if (!out.empty()) next_->token(out, starts);
  }

 private:
  const std::string& pad_;
  const std::string& delimiter_;
  bool cleanup_;
  std::optional<std::string> last_;
};

class JoinStage final : public Stage {
 public:
  using Stage::Stage;
  void token(std::string_view text, bool starts) override {
    if (!std::exchange(first_, false) && starts) next_->token(" ", true);
    next_->token(text, starts);
  }

 private:
  bool first_ = true;
};

// A decoder out of a function that makes its stages.
class MadeBy final : public Decoder {
 public:
  using Make = std::function<TokenSinkPtr(TokenSinkPtr)>;
  MadeBy(Make make, bool wants_whole, bool gives_whole)
      : make_(std::move(make)), wants_whole_(wants_whole), gives_whole_(gives_whole) {}
  TokenSinkPtr stage(TokenSinkPtr next) const override { return make_(std::move(next)); }
  bool wants_whole_tokens() const override { return wants_whole_; }
  bool gives_whole_tokens() const override { return gives_whole_; }

 private:
  Make make_;
  bool wants_whole_, gives_whole_;
};

template <class S, class... A>
DecoderPtr decoder_of(bool wants_whole, bool gives_whole, A... args) {
  // The arguments live in the decoder, so stages may refer to them.
  auto make = [args = std::make_shared<std::tuple<A...>>(std::move(args)...)](TokenSinkPtr next) -> TokenSinkPtr {
    return std::apply([&](const auto&... a) { return std::make_unique<S>(std::move(next), a...); }, *args);
  };
  return std::make_unique<MadeBy>(std::move(make), wants_whole, gives_whole);
}

std::string utf8_of(char32_t c) {
  std::string out;
  append_utf8(out, c);
  return out;
}

}  // namespace

DecoderPtr byte_level_decoder() { return decoder_of<ByteLevelStage>(true, false); }
DecoderPtr byte_fallback_decoder() { return decoder_of<ByteFallbackStage>(true, true); }
DecoderPtr fuse_decoder() { return decoder_of<FuseStage>(false, false); }
DecoderPtr strip_decoder(char32_t content, size_t start, size_t stop) {
  return decoder_of<StripStage>(stop > 0, true, utf8_of(content), start, stop);
}
DecoderPtr replace_decoder(Pattern pattern, std::string content) {
  const std::string* literal = pattern.literal_text();
  const bool one_char = literal && utf8_length(*literal) == 1;
  return decoder_of<ReplaceStage>(!one_char, true, std::move(pattern), std::move(content));
}
DecoderPtr metaspace_decoder(char32_t replacement, bool drop_first) {
  return decoder_of<MetaspaceStage>(false, true, utf8_of(replacement), drop_first);
}
DecoderPtr wordpiece_decoder(std::string prefix, bool cleanup) {
  return decoder_of<WordPieceStage>(true, true, std::move(prefix), cleanup);
}
DecoderPtr bpe_decoder(std::string suffix) { return decoder_of<BpeStage>(true, true, std::move(suffix)); }
DecoderPtr ctc_decoder(std::string pad_token, std::string word_delimiter_token, bool cleanup) {
  return decoder_of<CtcStage>(true, true, std::move(pad_token), std::move(word_delimiter_token), cleanup);
}
DecoderPtr join_decoder() { return decoder_of<JoinStage>(false, true); }

TokenSinkPtr decoder_chain(const std::vector<DecoderPtr>& decoders, std::string& out) {
  std::vector<bool> whole = {true};  // whether the tokens that reach each decoder come whole
  for (const DecoderPtr& decoder : decoders)
    whole.push_back((whole.back() || decoder->wants_whole_tokens()) && decoder->gives_whole_tokens());
  TokenSinkPtr chain = std::make_unique<Collect>(out);
  for (size_t i = decoders.size(); i-- > 0;) {
    chain = decoders[i]->stage(std::move(chain));
    if (decoders[i]->wants_whole_tokens() && !whole[i]) chain = std::make_unique<Whole>(std::move(chain));
  }
  return chain;
}

std::string clean_up_tokenization(std::string text) {
  static constexpr std::array<std::pair<std::string_view, std::string_view>, 11> kReplacements = {
      {{" .", "."},
       {" ?", "?"},
       {" !", "!"},
       {" ,", ","},
       {" ' ", "'"},
       {" n't", "n't"},
       {" 'm", "'m"},
       {" do not", " don't"},
       {" 's", "'s"},
       {" 've", "'ve"},
       {" 're", "'re"}}};
  for (const auto& [from, to] : kReplacements) replace_text(text, from, to);
  return text;
}

}  // namespace millrace
