// Pipelines of every kind against what the Hugging Face tokenizers library made of them (golden/make_hf_goldens.js).
#include "tests/tokenizer/fixtures.h"
#include "tokenizer/detokenizer.h"

namespace millrace {
namespace {

Json read_golden(const char* name) {
  Result<Json> golden = read_json_file(std::string(MILLRACE_SOURCE_DIR "/tests/tokenizer/golden/") + name);
  if (!golden.ok()) throw std::runtime_error(golden.status().to_string());
  return *std::move(golden);
}

void expect_as_golden(const Tokenizer& tokenizer, const Json& texts, const Json& golden, const std::string& what) {
  for (size_t i = 0; i < texts.size(); ++i) {
    const auto text = texts[i].get<std::string>();
    const auto ids = tokenizer.encode(text);
    ASSERT_TRUE(ids.ok()) << what << ": " << ids.status().to_string();
    EXPECT_EQ(*ids, golden["ids"][i].get<std::vector<int32_t>>()) << what << ": " << texts[i].dump();
    // The library decodes an added token like "\u00e9" as if it were spelled in the byte-level alphabet, which loses
    // it.
    const auto decoded = golden["decoded"][i].get<std::string>();
    if (decoded.find("\ufffd") != std::string::npos && text.find("\ufffd") == std::string::npos) continue;
    EXPECT_EQ(tokenizer.decode(*ids, {.skip_special_tokens = false}), decoded) << what << ": " << texts[i].dump();
  }
}

TEST(HfGolden, EveryPipelineGivesTheLibrarysIdsAndTexts) {
  const Json golden = read_golden("hf_pipelines.json");
  ASSERT_GE(golden["cases"].size(), 150u);
  for (const Json& c : golden["cases"]) {
    const auto part = [&](const char* plural, const char* singular) {
      return golden[plural][c[singular].get<std::string>()];
    };
    const Json json = {{"added_tokens", c["added_tokens"]},
                       {"normalizer", part("normalizers", "normalizer")},
                       {"pre_tokenizer", part("pre_tokenizers", "pre_tokenizer")},
                       {"post_processor", part("post_processors", "post_processor")},
                       {"decoder", part("decoders", "decoder")},
                       {"model", part("models", "model")}};
    std::string what;
    for (const char* key : {"model", "normalizer", "pre_tokenizer", "post_processor", "decoder"})
      what += c[key].get<std::string>() + " ";
    const auto tokenizer = TokenizerFolder().add("tokenizer.json", dump_json(json)).load();
    expect_as_golden(*tokenizer, golden["texts"], c, what);
  }
}

TEST(HfGolden, PublishedFilesGiveTheLibrarysIdsAndTexts) {
  SKIP_WITHOUT_SHARED();
  const Json golden = read_golden("hf_files.json");
  for (const Json& c : golden["cases"]) {
    const auto name = c["name"].get<std::string>();
    const auto tokenizer = TokenizerFolder().add_shared("tokenizer.json", name + "/tokenizer.json.gz").load();
    expect_as_golden(*tokenizer, golden["texts"], c, name);
  }
}

}  // namespace
}  // namespace millrace
