// Broken files and broken text: an error or ids, never a crash. Runs under the sanitizers.
#include <chrono>

#include "base/utf8.h"
#include "tests/tokenizer/fixtures.h"
#include "tokenizer/byte_level.h"
#include "tokenizer/format/hf_json.h"
#include "tokenizer/format/sentencepiece.h"
#include "tokenizer/format/tiktoken.h"
#include "tokenizer/text/regex.h"

namespace millrace {
namespace {

constexpr auto kBudget = std::chrono::seconds(2);

// Runs `one(seed)` a few hundred times or until the budget is spent.
template <class One>
void repeat(int rounds, One one) {
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < rounds && std::chrono::steady_clock::now() - start < kBudget; ++i) one(static_cast<uint64_t>(i));
}

std::string mutate(std::string bytes, Random& random) {
  for (uint32_t n = 1 + random.below(4); n > 0 && !bytes.empty(); --n) {
    const uint32_t at = random.below(static_cast<uint32_t>(bytes.size()));
    const uint32_t length = std::min<uint32_t>(random.below(20), static_cast<uint32_t>(bytes.size()) - at);
    switch (random.below(5)) {
      case 0:
        bytes[at] = static_cast<char>(random.below(256));
        break;
      case 1:
        bytes.erase(at, length);
        break;
      case 2:
        bytes.insert(at, bytes.substr(random.below(static_cast<uint32_t>(bytes.size())), length));
        break;
      case 3:
        bytes.resize(at);
        break;
      default:
        bytes[at] = "0123456789-{}[]\",:"[random.below(18)];
    }
  }
  return bytes;
}

std::string random_bytes(Random& random, uint32_t most) {
  std::string bytes;
  for (uint32_t n = random.below(most); n > 0; --n) bytes += static_cast<char>(random.below(256));
  return bytes;
}

void use(const Tokenizer& tokenizer, Random& random) {
  for (const std::string& text : {random_bytes(random, 60), random_text(random, 15)}) {
    const auto ids = tokenizer.encode(text);
    if (!ids.ok()) continue;
    EXPECT_TRUE(is_valid_utf8(tokenizer.decode(*ids, {.skip_special_tokens = false})));
  }
  std::vector<int32_t> ids;
  for (int i = 0; i < 20; ++i) ids.push_back(static_cast<int32_t>(random.below(400)) - 20);
  EXPECT_TRUE(is_valid_utf8(tokenizer.decode(ids)));
}

struct Counts {
  int loaded = 0, refused = 0;
};

// What became of folders that fill(folder, random) fills: a tokenizer that works, or words about what is wrong.
template <class Fill>
Counts read_or_refuse(int rounds, const Fill& fill) {
  Counts counts;
  repeat(rounds, [&](uint64_t seed) {
    Random random(seed);
    TokenizerFolder folder;
    fill(folder, random);
    const auto tokenizer = folder.try_load();
    (tokenizer.ok() ? counts.loaded : counts.refused)++;
    if (tokenizer.ok())
      use(**tokenizer, random);
    else
      EXPECT_FALSE(tokenizer.status().message().empty());
  });
  return counts;
}

void fuzz_file(const std::string& name, const std::string& valid, int rounds) {
  const auto fill = [&](TokenizerFolder& folder, Random& random) { folder.add(name, mutate(valid, random)); };
  EXPECT_GT(read_or_refuse(rounds, fill).refused, 0) << name;
}

TEST(TokenizerFuzz, MutatedJsonFilesAreReadOrRefused) {
  fuzz_file("tokenizer.json", byte_level_tokenizer_json(), 300);
  const auto golden = read_json_file(MILLRACE_SOURCE_DIR "/tests/tokenizer/golden/hf_pipelines.json");
  ASSERT_TRUE(golden.ok());
  for (size_t i = 0; i < (*golden)["cases"].size(); i += 6) {
    const Json& c = (*golden)["cases"][i];
    Json json = {{"added_tokens", c["added_tokens"]}};
    const std::pair<const char*, const char*> parts[] = {{"models", "model"},
                                                         {"normalizers", "normalizer"},
                                                         {"pre_tokenizers", "pre_tokenizer"},
                                                         {"decoders", "decoder"},
                                                         {"post_processors", "post_processor"}};
    for (const auto& [plural, singular] : parts) json[singular] = (*golden)[plural][c[singular].get<std::string>()];
    repeat(12, [&](uint64_t seed) {
      Random random(seed * 1000 + i);
      TokenizerFolder folder;
      const auto tokenizer = folder.add("tokenizer.json", mutate(dump_json(json), random)).try_load();
      if (tokenizer.ok()) use(**tokenizer, random);
    });
  }
}

std::string small_model(int model_type) {
  return sentencepiece_model({{"<unk>", 0, 2},
                              {"<s>", 0, 3},
                              {"</s>", 0, 3},
                              {"[U]", 0, 4},
                              {"\u2581", -1},
                              {"a", -2},
                              {"b", -3},
                              {"ab", -4},
                              {"\u2581"
                               "ab",
                               -5},
                              {"ba", -6},
                              {"\u4e2d", -7}},
                             model_type);
}

TEST(TokenizerFuzz, HandWrittenSentencePieceModelEncodes) {
  for (const int type : {1, 2}) {
    const auto tokenizer = TokenizerFolder().add("tokenizer.model", small_model(type)).load();
    EXPECT_EQ(*tokenizer->encode("ab [U]x", {.add_special_tokens = false}), (std::vector<int32_t>{8, 4, 3, 0}));
  }
}

TEST(TokenizerFuzz, MutatedSentencePieceModelsAreReadOrRefused) {
  fuzz_file("tokenizer.model", small_model(1), 600);
  fuzz_file("tokenizer.model", small_model(2), 600);
}

TEST(TokenizerFuzz, MutatedPublishedModelIsReadOrRefused) {
  SKIP_WITHOUT_SHARED();
  fuzz_file("tokenizer.model", read_shared("t5_style/spiece.model").substr(0, 60000), 40);
  fuzz_file("tokenizer.model", read_shared("t5_style/spiece.model"), 15);
}

TEST(TokenizerFuzz, MutatedRankFilesAreReadOrRefused) {
  std::string ranks = "YWI= 256\nICA= 257\n";
  static constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  for (int b = 0; b < 256; ++b)
    ranks += std::string{kDigits[b >> 2], kDigits[(b & 3) << 4]} + "== " + std::to_string(b) + "\n";
  EXPECT_EQ(*TokenizerFolder().add("x.tiktoken", ranks).load()->encode("abc"), (std::vector<int32_t>{256, 'c'}));
  fuzz_file("x.tiktoken", ranks, 400);
}

TEST(TokenizerFuzz, MutatedTekkenFilesAreReadOrRefused) {
  Json vocab = Json::array();
  for (const char* token : {"YQ==", "Yg==", "YWI="}) vocab.push_back({{"rank", vocab.size()}, {"token_bytes", token}});
  const Json json = {
      {"config", {{"pattern", "\\w+|\\s"}, {"default_vocab_size", 8}, {"default_num_special_tokens", 5}}},
      {"vocab", vocab},
      {"special_tokens", {{{"rank", 1}, {"token_str", "<s>"}}, {{"rank", 3}, {"token_str", "[INST]"}}}}};
  EXPECT_EQ(*TokenizerFolder().add("tekken.json", dump_json(json)).load()->encode("ab[INST]b"),
            (std::vector<int32_t>{1, 7, 3, 6}));
  fuzz_file("tekken.json", dump_json(json), 400);
}

TEST(TokenizerFuzz, MutatedConfigurationsOfWrappersAreReadOrRefused) {
  const std::string config = R"({"auto_map": {"AutoTokenizer": ["x.ChatGLMTokenizer", null]}, "name_or_path": "a/b",
      "added_tokens_decoder": {"12": {"content": "[gMASK]", "special": true}, "14": {"content": "sop"}},
      "extra_special_tokens": {"image_token": "<image>"}})";
  const auto counts = read_or_refuse(300, [&](TokenizerFolder& folder, Random& random) {
    folder.add("tokenizer.model", small_model(2))
        .add("tokenizer_config.json", mutate(config, random))
        .add("tokenization_chatglm.py", random_bytes(random, 50));
  });
  EXPECT_GT(counts.loaded, 0);
  EXPECT_GT(counts.refused, 0);
}

TEST(TokenizerFuzz, MutatedConfigurationsAreReadOrRefused) {
  const auto counts = read_or_refuse(300, [&](TokenizerFolder& folder, Random& random) {
    folder.add("tokenizer.json", byte_level_tokenizer_json())
        .add("tokenizer_config.json", mutate(byte_level_tokenizer_config(), random));
  });
  EXPECT_GT(counts.loaded, 0);
  EXPECT_GT(counts.refused, 0);
}

TEST(TokenizerFuzz, RandomBytesNeverBreakARegularExpression) {
  static constexpr std::string_view kLetters = "()[]{}^$.*+?|\\-&:,=!<>abs\\pw19";
  repeat(3000, [&](uint64_t seed) {
    Random random(seed);
    std::string pattern;
    for (uint32_t n = random.below(25); n > 0; --n)
      pattern += random.below(4) ? std::string(1, kLetters[random.below(static_cast<uint32_t>(kLetters.size()))])
                                 : std::string("\\p{L}");
    const Result<Regex> regex = Regex::compile(pattern);
    if (!regex.ok()) return;
    Regex::Scratch scratch(*regex);
    std::vector<Piece> matches;
    const Status status = regex->find_all("a1 \u00e9-b", {0, 7}, scratch, matches);
    EXPECT_TRUE(status.ok() || status.code() == Code::kResourceExhausted);
  });
}

TEST(TokenizerFuzz, RandomBytesEncodeInPublishedTokenizers) {
  SKIP_WITHOUT_SHARED();
  for (const char* name : {"mistral", "smollm2", "t5_style"}) {
    const auto tokenizer =
        TokenizerFolder().add_shared("tokenizer.json", std::string(name) + "/tokenizer.json.gz").load();
    repeat(300, [&](uint64_t seed) {
      Random random(seed);
      const std::string text = random_bytes(random, 300);
      const auto ids = tokenizer->encode(text);
      ASSERT_TRUE(ids.ok()) << ids.status().to_string();
      EXPECT_EQ(*ids, *tokenizer->encode(utf8_replace_invalid(text)));
    });
  }
}

}  // namespace
}  // namespace millrace
