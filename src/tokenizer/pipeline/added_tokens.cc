#include "tokenizer/pipeline/added_tokens.h"

#include <algorithm>

#include "tokenizer/text/unicode.h"

namespace millrace {
namespace {

bool ends_in_word(std::string_view text) {
  return !text.empty() && is_word(decode_valid(text.data() + previous_char(text, text.size())).code);
}
bool starts_with_word(std::string_view text) { return !text.empty() && is_word(decode_valid(text.data()).code); }

size_t without_trailing_space(std::string_view text) {
  size_t end = text.size();
  while (end > 0) {
    const size_t at = previous_char(text, end);
    if (!is_white_space(decode_valid(text.data() + at).code)) break;
    end = at;
  }
  return end;
}
size_t leading_space(std::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    const DecodedChar c = decode_valid(text.data() + at);
    if (!is_white_space(c.code)) break;
    at += c.bytes;
  }
  return at;
}

}  // namespace

Result<AddedTokens> AddedTokens::build(std::vector<AddedToken> tokens, const Normalizer* normalizer) {
  std::erase_if(tokens, [](const AddedToken& token) { return token.content.empty(); });
  AddedTokens added;
  added.tokens_ = std::move(tokens);
  std::vector<std::pair<std::string, int32_t>> given, normalized;
  for (size_t i = 0; i < added.tokens_.size(); ++i) {
    std::string key = added.tokens_[i].content;
    if (added.tokens_[i].normalized && normalizer) MR_RETURN_IF_ERROR(normalizer->run(key, /*at_start=*/true));
    (added.tokens_[i].normalized ? normalized : given).emplace_back(std::move(key), static_cast<int32_t>(i));
  }
  added.given_ = matcher_of(given);
  added.normalized_ = matcher_of(normalized);
  return added;
}

AddedTokens::Matcher AddedTokens::matcher_of(const std::vector<std::pair<std::string, int32_t>>& keys) {
  Matcher matcher;
  for (const auto& [key, index] : keys)
    if (!key.empty()) matcher.first_bytes[static_cast<uint8_t>(key[0])] = true;
  matcher.trie = Trie(std::vector<std::pair<std::string_view, int32_t>>(keys.begin(), keys.end()));
  return matcher;
}

void AddedTokens::cut(const Matcher& matcher, std::string_view text, bool parse_special,
                      std::vector<Section>& sections) const {
  size_t done = 0;  // everything before is in a section
  const auto add = [&](size_t begin, size_t end, int32_t id) {
    sections.push_back({{static_cast<uint32_t>(begin), static_cast<uint32_t>(end)}, id});
  };
  for (size_t at = 0; !matcher.trie.empty() && at < text.size();) {
    const Trie::Match match = matcher.first_bytes[static_cast<uint8_t>(text[at])]
                                  ? matcher.trie.longest_prefix(text.substr(at))
                                  : Trie::Match{};
    if (match.bytes == 0) {
      ++at;
      continue;
    }
    const AddedToken& token = tokens_[static_cast<size_t>(match.value)];
    size_t begin = at, end = at + match.bytes;
    at = end;
    if (token.special && !parse_special) continue;
    if (token.only_behind >= 0 &&
        (sections.empty() || sections.back().id != token.only_behind || sections.back().range.end != begin))
      continue;
    if (token.single_word && (ends_in_word(text.substr(0, begin)) || starts_with_word(text.substr(end)))) continue;
    if (token.lstrip) begin = std::max(without_trailing_space(text.substr(0, begin)), done);
    if (token.rstrip) end += leading_space(text.substr(end));
    if (done < begin) add(done, begin, -1);
    add(begin, end, token.id);
    done = end;
  }
  if (done < text.size()) add(done, text.size(), -1);
}

}  // namespace millrace
