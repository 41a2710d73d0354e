#include "tokenizer/text/sentencepiece_normalizer.h"

#include "tokenizer/text/unicode.h"

namespace millrace {
namespace {

constexpr std::string_view kMark = "\xe2\x96\x81";

class SentencePieceNormalizer final : public Normalizer {
 public:
  SentencePieceNormalizer(CharsMap map, SentencePieceNormalizerOptions options)
      : map_(std::move(map)), options_(std::move(options)) {
    std::vector<std::pair<std::string_view, int32_t>> keys;
    for (const std::string& text : options_.user_defined) keys.push_back({text, 0});
    user_defined_ = Trie(std::move(keys));
  }

  Status run(std::string& text, bool at_start) const override {
    std::string_view in = text;
    if (options_.remove_extra_whitespaces) skip_spaces(in);
    std::string out;
    out.reserve(in.size() + in.size() / 2 + kMark.size());
    if (!in.empty()) {
      const bool dummy = options_.add_dummy_prefix && (at_start || !options_.prefix_only_at_start);
      if (dummy && !options_.whitespace_as_suffix) out += space();
      if (maps_nothing())
        append_escaped(in, out);
      else
        append_all(in, out);
      while (options_.remove_extra_whitespaces && out.ends_with(space())) out.resize(out.size() - space().size());
      if (dummy && options_.whitespace_as_suffix) out += space();
    }
    text = std::move(out);
    return {};
  }

 private:
  std::string_view space() const { return options_.escape_whitespaces ? kMark : std::string_view(" "); }

  bool maps_nothing() const { return map_.empty() && user_defined_.empty() && !options_.remove_extra_whitespaces; }
  void append_escaped(std::string_view in, std::string& out) const {
    for (const char c : in) {
      if (c == ' ')
        out += space();
      else
        out += c;
    }
  }

  // What the front of `in` becomes, and how many bytes of it.
  std::pair<std::string_view, size_t> front(std::string_view in) const {
    if (const Trie::Match own = user_defined_.longest_prefix(in); own.bytes > 0)
      return {in.substr(0, own.bytes), own.bytes};
    if (const auto match = map_.longest_prefix(in)) return {match->replacement, match->bytes};
    const size_t bytes = decode_valid(in.data()).bytes;
    return {in.substr(0, bytes), bytes};
  }
  void skip_spaces(std::string_view& in) const {
    while (!in.empty()) {
      const auto [text, bytes] = front(in);
      if (text != " ") return;
      in.remove_prefix(bytes);
    }
  }
  void append_all(std::string_view in, std::string& out) const {
    bool after_space = options_.remove_extra_whitespaces;
    while (!in.empty()) {
      auto [text, bytes] = front(in);
      in.remove_prefix(bytes);
      while (after_space && text.starts_with(' ')) text.remove_prefix(1);
      if (text.empty()) continue;
      append_escaped(text, out);
      after_space = options_.remove_extra_whitespaces && text.ends_with(' ');
    }
  }

  CharsMap map_;
  SentencePieceNormalizerOptions options_;
  Trie user_defined_;
};

}  // namespace

NormalizerPtr sentencepiece_normalizer(CharsMap map, SentencePieceNormalizerOptions options) {
  return std::make_unique<SentencePieceNormalizer>(std::move(map), std::move(options));
}

}  // namespace millrace
