// Bytes of text per second of one core: encoding, decoding and streaming. Byte-level and mark-based tokenizers must
// give the text back, so that a fast wrong answer fails. Texts and tokenizers come from ../shared/data; without it
// nothing runs.
#include <benchmark/benchmark.h>

#include "tests/tokenizer/fixtures.h"
#include "tokenizer/detokenizer.h"

namespace millrace {
namespace {

struct TokenizerCase {
  const char* name;
  const char* file;         // in the folder that is loaded
  const char* shared_name;  // where it comes from
  bool gives_text_back;     // for any text, also one that starts with a space
};
constexpr TokenizerCase kTokenizers[] = {
    {"llama3", "tokenizer.model", "llama3/tokenizer.model.gz", true},
    {"qwen", "qwen.tiktoken", "qwen/qwen.tiktoken.gz", true},
    {"smollm2", "tokenizer.json", "smollm2/tokenizer.json.gz", true},
    {"mistral", "tokenizer.json", "mistral/tokenizer.json.gz", false},
    {"llama2", "tokenizer.model", "llama2/tokenizer.model", true},
    {"t5", "tokenizer.json", "t5_style/tokenizer.json.gz", false},
};

struct TextCase {
  const char* name;
  const char* shared_name;  // under tokenizers/
};
constexpr TextCase kTexts[] = {
    {"english_novel", "../datasets/pretrain/war_and_peace.txt.gz"},
    {"wikipedia", "../datasets/wikitext2/wiki.test.raw.gz"},
    {"chinese_json", "../datasets/alpaca/alpaca_zh_demo.json.gz"},
};

std::shared_ptr<const Tokenizer> load(const TokenizerCase& c) {
  return TokenizerFolder().add_shared(c.file, c.shared_name).load();
}

void encode(benchmark::State& state, const TokenizerCase& c, const TextCase& t) {
  const auto tokenizer = load(c);
  const std::string text = read_shared(t.shared_name);
  size_t tokens = 0;
  for (auto _ : state) {
    const auto ids = tokenizer->encode(text, {.add_special_tokens = false});
    if (!ids.ok()) return state.SkipWithError(ids.status().to_string().c_str());
    tokens = ids->size();
  }
  if (c.gives_text_back && tokenizer->decode(*tokenizer->encode(text)) != text)
    return state.SkipWithError("decoding does not give the text back");
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * text.size()));
  state.counters["tokens"] = static_cast<double>(tokens);
}

void encode_cold(benchmark::State& state, const TokenizerCase& c, const TextCase& t) {
  const std::string text = read_shared(t.shared_name);
  for (auto _ : state) {
    state.PauseTiming();
    const auto tokenizer = load(c);  // nothing cached
    state.ResumeTiming();
    benchmark::DoNotOptimize(tokenizer->encode(text));
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * text.size()));
}

void stream(benchmark::State& state, const TokenizerCase& c) {
  const auto tokenizer = load(c);
  const std::string text = read_shared(kTexts[0].shared_name);
  const std::vector<int32_t> ids = *tokenizer->encode(text);
  for (auto _ : state) {
    IncrementalDetokenizer detokenizer(tokenizer);
    for (const int32_t id : ids) benchmark::DoNotOptimize(detokenizer.append(id));
    benchmark::DoNotOptimize(detokenizer.finish());
  }
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations() * ids.size()));
}

void load_file(benchmark::State& state, const TokenizerCase& c) {
  TokenizerFolder folder;
  folder.add_shared(c.file, c.shared_name);
  for (auto _ : state) benchmark::DoNotOptimize(folder.try_load());
}

const bool kRegistered = [] {
  if (!has_shared()) return false;
  for (const TokenizerCase& c : kTokenizers) {
    const std::string name = c.name;
    for (const TextCase& t : kTexts)
      benchmark::RegisterBenchmark(("encode/" + name + "/" + t.name).c_str(), encode, c, t);
    benchmark::RegisterBenchmark(("encode_cold/" + name).c_str(), encode_cold, c, kTexts[0])->Iterations(2);
    benchmark::RegisterBenchmark(("stream/" + name).c_str(), stream, c);
    benchmark::RegisterBenchmark(("load/" + name).c_str(), load_file, c)->Unit(benchmark::kMillisecond);
  }
  return true;
}();

}  // namespace
}  // namespace millrace
