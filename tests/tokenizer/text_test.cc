// Scanners, regular expressions, tries, vocabularies, merges and caches, each against its plain definition.
#include <unicode/uchar.h>

#include <map>
#include <set>

#include "base/utf8.h"
#include "tests/tokenizer/fixtures.h"
#include "tokenizer/format/base64.h"
#include "tokenizer/model/bpe_merge.h"
#include "tokenizer/model/vocabulary.h"
#include "tokenizer/model/word_cache.h"
#include "tokenizer/text/alphabet.h"
#include "tokenizer/text/grapheme.h"
#include "tokenizer/text/pattern.h"
#include "tokenizer/text/split_scanner.h"
#include "tokenizer/text/trie.h"
#include "tokenizer/text/unicode.h"

namespace millrace {
namespace {

std::vector<std::string> strings(std::string_view text, const std::vector<Piece>& pieces) {
  std::vector<std::string> out;
  for (const Piece& piece : pieces) out.emplace_back(text.substr(piece.begin, piece.end - piece.begin));
  return out;
}

std::vector<std::string> regex_matches(std::string_view pattern, std::string_view text) {
  const Result<Regex> regex = Regex::compile(pattern);
  EXPECT_TRUE(regex.ok()) << regex.status().to_string();
  std::vector<Piece> matches;
  if (regex.ok()) {
    Regex::Scratch scratch(*regex);
    const Status status = regex->find_all(text, {0, static_cast<uint32_t>(text.size())}, scratch, matches);
    EXPECT_TRUE(status.ok()) << status.to_string();
  }
  return strings(text, matches);
}

// The PCRE2 installed knows Unicode 14; newer characters have no class there.
bool only_known_characters(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const Utf8Char c = utf8_at(text, i);
    UVersionInfo age;
    u_charAge(static_cast<UChar32>(c.code), age);
    if (age[0] > 14) return false;
    i += static_cast<size_t>(c.bytes);
  }
  return true;
}

TEST(SplitScanner, FindsWhatItsRegularExpressionFinds) {
  Random random(3);
  for (const std::string_view pattern : {kGpt2Pattern, kLlama3Pattern, kQwen2Pattern, kTrailingSpacePattern}) {
    const auto scanner = SplitScanner::for_pattern(pattern);
    ASSERT_TRUE(scanner.has_value());
    for (int i = 0; i < 4000; ++i) {
      const std::string text = random_text(random, 16);
      if (!only_known_characters(text)) continue;
      std::vector<Piece> matches;
      scanner->scan(text, {0, static_cast<uint32_t>(text.size())}, matches);
      ASSERT_EQ(strings(text, matches), regex_matches(pattern, text)) << pattern << "\n" << dump_json(Json(text));
    }
  }
}

TEST(SplitScanner, KnowsEveryCharacterAsItsRegularExpressionDoes) {
  for (const std::string_view pattern : {kGpt2Pattern, kLlama3Pattern, kQwen2Pattern}) {
    const auto scanner = SplitScanner::for_pattern(pattern);
    std::string text;
    for (char32_t c = 0; c < 0x30000; ++c) {
      std::string around = "a";
      append_utf8(around, c);
      if (only_known_characters(around)) text += around + "1";
    }
    std::vector<Piece> matches;
    scanner->scan(text, {0, static_cast<uint32_t>(text.size())}, matches);
    EXPECT_TRUE(strings(text, matches) == regex_matches(pattern, text)) << pattern;
  }
}

TEST(SplitScanner, OtherPatternsHaveNone) { EXPECT_FALSE(SplitScanner::for_pattern(R"(\s+)").has_value()); }

TEST(Regex, ReadsOnigurumasDialect) {
  using Strings = std::vector<std::string>;
  EXPECT_EQ(regex_matches(R"(\p{N}{1,3}+)", "12345"), (Strings{"12345"}));  // a repeated repetition, not possessive
  EXPECT_EQ(regex_matches(R"(a{,2})", "aaa"), (Strings{"aa", "a", ""}));
  EXPECT_EQ(regex_matches(R"(\h+)", "xbeefy"), (Strings{"beef"}));
  EXPECT_EQ(regex_matches(R"([a-z&&[^aeiou]]+)", "hello"), (Strings{"h", "ll"}));
  EXPECT_EQ(regex_matches(R"([^a-z&&[^aeiou]]+)", "hello!"), (Strings{"e", "o!"}));
  EXPECT_EQ(regex_matches(R"([a[0-9]]+)", "a1b2"), (Strings{"a1", "2"}));
  EXPECT_EQ(regex_matches(R"((?m:.)+)", "a\nb"), (Strings{"a\nb"}));
  EXPECT_EQ(regex_matches(R"(^b)", "a\nb"), (Strings{"b"}));
  EXPECT_EQ(regex_matches(R"(\s+)", "a\u180e\u3000b"), (Strings{"\u3000"}));
  EXPECT_EQ(regex_matches(R"(\p{Han}+)", "\u4e2d\u3001\u56fd"), (Strings{"\u4e2d", "\u56fd"}));
  EXPECT_EQ(regex_matches(R"(\w+)", "e\u0301_1\u00b2-x"), (Strings{"e\u0301_1\u00b2", "x"}));
  EXPECT_EQ(regex_matches(R"([\w]+)", "1\u00b2"), (Strings{"1"}));
  EXPECT_EQ(regex_matches(R"([[:punct:]]+)", "a+b\u20ac!"), (Strings{"+", "\u20ac!"}));
  EXPECT_EQ(regex_matches(R"([\u0041-\u0043]+)", "xABCD"), (Strings{"ABC"}));
  EXPECT_EQ(regex_matches("[\u1f5f-\u03ce\u1f80]", "\u1f80\u1f5f"), (Strings{"\u1f80"}));  // an empty range
  EXPECT_EQ(regex_matches(R"([]a]+)", "]a["), (Strings{"]a"}));
  EXPECT_EQ(regex_matches(R"(\p{Letter}|\p{^Letter}{2})", "a12"), (Strings{"a", "12"}));
}

TEST(Regex, RefusesWhatIsNoExpression) {
  for (const char* pattern : {"(", ")", "[a", "a\\", "[]", "\\p{L", "\\u12", "(?<n", "[z&&]", "\\p{NoSuchThing}"}) {
    const Result<Regex> regex = Regex::compile(pattern);
    ASSERT_FALSE(regex.ok()) << pattern;
    EXPECT_NE(regex.status().message().find(pattern), std::string::npos) << regex.status().message();
  }
}

TEST(Regex, GivesUpWithAnErrorInsteadOfRunningForever) {
  const Result<Regex> regex = Regex::compile("(a+)+$");
  ASSERT_TRUE(regex.ok());
  const std::string text = std::string(64, 'a') + "b";
  Regex::Scratch scratch(*regex);
  std::vector<Piece> matches;
  const Status status = regex->find_all(text, {0, 65}, scratch, matches);
  EXPECT_EQ(status.code(), Code::kResourceExhausted) << status.to_string();
}

TEST(Cut, EveryBehaviourTreatsMatchesAsNamed) {
  using Strings = std::vector<std::string>;
  const std::string text = "the-final--countdown";
  const std::vector<Piece> matches = {{3, 4}, {9, 10}, {10, 11}};
  const auto cut_text = [&](SplitBehavior behavior) {
    std::vector<Piece> out;
    cut({0, static_cast<uint32_t>(text.size())}, matches, false, behavior, out);
    return strings(text, out);
  };
  EXPECT_EQ(cut_text(SplitBehavior::kRemoved), (Strings{"the", "final", "countdown"}));
  EXPECT_EQ(cut_text(SplitBehavior::kIsolated), (Strings{"the", "-", "final", "-", "-", "countdown"}));
  EXPECT_EQ(cut_text(SplitBehavior::kMergedWithPrevious), (Strings{"the-", "final-", "-", "countdown"}));
  EXPECT_EQ(cut_text(SplitBehavior::kMergedWithNext), (Strings{"the", "-final", "-", "-countdown"}));
  EXPECT_EQ(cut_text(SplitBehavior::kContiguous), (Strings{"the", "-", "final", "--", "countdown"}));
}

TEST(Trie, FindsThePrefixesThatASetFinds) {
  Random random(9);
  for (int round = 0; round < 60; ++round) {
    std::map<std::string, int32_t> keys;
    for (uint32_t n = random.below(300) + 1; n > 0; --n) {
      std::string key;
      for (uint32_t length = random.below(6) + 1; length > 0; --length)
        key += static_cast<char>(random.below(round % 2 ? 256 : 3) + (round % 2 ? 0 : 'a'));
      keys[key] = static_cast<int32_t>(keys.size());
    }
    const Trie trie(std::vector<std::pair<std::string_view, int32_t>>(keys.begin(), keys.end()));
    for (int query = 0; query < 300; ++query) {
      std::string text;
      for (uint32_t length = random.below(9); length > 0; --length)
        text += static_cast<char>(random.below(round % 2 ? 256 : 3) + (round % 2 ? 0 : 'a'));
      std::vector<int32_t> expected, found;
      for (size_t n = 1; n <= text.size(); ++n)
        if (const auto it = keys.find(text.substr(0, n)); it != keys.end()) expected.push_back(it->second);
      trie.for_each_prefix(text, [&](size_t, int32_t value) { found.push_back(value); });
      ASSERT_EQ(found, expected);
    }
  }
}

TEST(Vocabulary, FindsEveryTokenAndNothingElse) {
  std::vector<Vocabulary::Entry> entries;
  for (int32_t id = 0; id < 5000; ++id) entries.emplace_back("token" + std::to_string(id * 7), id * 2);
  const auto vocabulary = Vocabulary::build(entries);
  ASSERT_TRUE(vocabulary.ok());
  for (const auto& [token, id] : entries) {
    EXPECT_EQ(vocabulary->find(token), id);
    EXPECT_EQ(vocabulary->text(id), token);
  }
  EXPECT_EQ(vocabulary->find("token1"), -1);
  EXPECT_EQ(vocabulary->find(""), -1);
  EXPECT_FALSE(vocabulary->has(1));
  EXPECT_EQ(vocabulary->end_id(), 9999);
}

TEST(Vocabulary, RefusesAbsurdIdsByName) {
  const auto vocabulary = Vocabulary::build({{"huge", INT32_MAX}});
  ASSERT_FALSE(vocabulary.ok());
  EXPECT_NE(vocabulary.status().message().find("'huge'"), std::string::npos);
}

// The definition: the lowest rank merges, the leftmost of equals, until nothing merges.
void merge_plainly(const PairTable& pairs, std::vector<BpeSymbol>& symbols) {
  for (;;) {
    size_t best = symbols.size();
    for (size_t i = 0; i + 1 < symbols.size(); ++i) {
      const uint32_t rank = pairs.find(symbols[i].id, symbols[i + 1].id).rank;
      if (rank == PairTable::kNoRank) continue;
      if (best == symbols.size() || rank < pairs.find(symbols[best].id, symbols[best + 1].id).rank) best = i;
    }
    if (best == symbols.size()) return;
    symbols[best].id = pairs.find(symbols[best].id, symbols[best + 1].id).result;
    symbols.erase(symbols.begin() + static_cast<ptrdiff_t>(best) + 1);
  }
}

TEST(BpeMerger, ShortAndLongWordsMergeAsDefined) {
  Random random(21);
  BpeMerger merger;
  for (int round = 0; round < 300; ++round) {
    std::vector<BpeMerge> merges;
    for (int32_t result = 4; result < 40; ++result) {
      const auto left = static_cast<int32_t>(random.below(static_cast<uint32_t>(result)));
      const auto right = static_cast<int32_t>(random.below(static_cast<uint32_t>(result)));
      merges.push_back({left, right, result, random.below(25)});  // ranks repeat
    }
    const PairTable pairs(merges);
    std::vector<BpeSymbol> symbols;
    const uint32_t length = round % 2 ? random.below(40) : 49 + random.below(150);
    for (uint32_t i = 0; i < length; ++i) symbols.push_back({static_cast<int32_t>(random.below(4)), i});
    std::vector<BpeSymbol> expected = symbols;
    merge_plainly(pairs, expected);
    merger.merge(pairs, symbols);
    ASSERT_EQ(symbols.size(), expected.size());
    for (size_t i = 0; i < symbols.size(); ++i) {
      EXPECT_EQ(symbols[i].id, expected[i].id);
      EXPECT_EQ(symbols[i].begin, expected[i].begin);
    }
  }
}

TEST(WordCache, TellsWordsApartThatDifferInOneByte) {
  WordCache cache;
  const std::string text = "0123456789abcdefghijklmnopqrstuvwxyz";
  for (size_t length = 1; length <= WordCache::kKeyBytes; ++length) {
    const std::vector<int32_t> ids = {static_cast<int32_t>(length)};
    const WordCache::Key key = WordCache::key_of(text.data(), length, text.size());
    EXPECT_TRUE(cache.find(key).empty());
    cache.remember(key, ids);
    const std::string alone = text.substr(0, length);  // fewer readable bytes must not matter
    const auto found = cache.find(WordCache::key_of(alone.data(), length, length));
    ASSERT_EQ(found.size(), 1u);
    EXPECT_EQ(found[0], static_cast<int32_t>(length));
  }
}

TEST(WordCache, ZeroBytesAreNotPadding) {
  WordCache cache;
  const std::string word("a\0\0", 3);
  const std::vector<int32_t> ids = {7};
  cache.remember(WordCache::key_of(word.data(), 3, 3), ids);
  EXPECT_TRUE(cache.find(WordCache::key_of(word.data(), 2, 3)).empty());
  EXPECT_FALSE(cache.find(WordCache::key_of(word.data(), 3, 3)).empty());
}

TEST(Alphabet, SpellsEveryByteAndBack) {
  std::set<std::string> seen;
  for (int b = 0; b < 256; ++b) {
    const std::string byte(1, static_cast<char>(b));
    EXPECT_TRUE(seen.insert(to_alphabet(byte)).second);
    EXPECT_EQ(from_alphabet(to_alphabet(byte)), byte);
  }
  EXPECT_EQ(to_alphabet(" "), "\u0120");
  EXPECT_EQ(to_alphabet("\n"), "\u010a");
  EXPECT_FALSE(from_alphabet("\u4e2d").has_value());
  EXPECT_FALSE(from_alphabet(" ").has_value());
}

TEST(Base64, DecodesAndRefuses) {
  EXPECT_EQ(decode_base64("aGVsbG8="), "hello");
  EXPECT_EQ(decode_base64(""), "");
  for (const char* bad : {"a", "aGVsbG8", "aGV*bG8=", "=aaa"}) EXPECT_FALSE(decode_base64(bad).has_value()) << bad;
}

TEST(Grapheme, ClustersAndAsciiRunsCoverTheText) {
  Random random(8);
  for (int i = 0; i < 500; ++i) {
    const std::string text = random_text(random, 12);
    std::string all;
    const auto add = [&](std::string_view part) { all += part; };
    ASSERT_TRUE(for_each_grapheme(text, add, add).ok());
    EXPECT_EQ(all, text);
  }
  std::vector<std::string> clusters;
  const auto add = [&](std::string_view part) { clusters.emplace_back(part); };
  ASSERT_TRUE(for_each_grapheme("ab\r\ncde\u0301x\u0600"
                                "1",
                                add, add)
                  .ok());
  EXPECT_EQ(clusters, (std::vector<std::string>{"ab", "\r\n", "cd", "e\u0301", "x",
                                                "\u0600"
                                                "1"}));
}

TEST(Utf8, FastCheckAgreesWithTheStrictOne) {
  Random random(4);
  for (int i = 0; i < 3000; ++i) {
    std::string text = random_text(random, 8);
    for (uint32_t n = random.below(3); n > 0 && !text.empty(); --n)
      text[random.below(static_cast<uint32_t>(text.size()))] = static_cast<char>(random.below(256));
    EXPECT_EQ(is_valid_utf8_fast(text), is_valid_utf8(text));
  }
}

}  // namespace
}  // namespace millrace
