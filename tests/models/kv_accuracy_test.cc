// What an int8 KV cache costs: perplexities of a real trained model on its own texts and on people's.
#include <gtest/gtest.h>
#include <zlib.h>

#include <cmath>

#include "base/file.h"
#include "base/random.h"
#include "kernels/parallel.h"
#include "models/decoder.h"
#include "tests/stories_folder.h"
#include "tokenizer/tokenizer.h"
#include "weights/model_folder.h"

namespace millrace {
namespace {

using Text = std::vector<int32_t>;

const std::string kDatasets = kSharedData + "/datasets/";

class Stories {
 public:
  Stories() : threads_(compute_threads()) {
    set_compute_threads(1);  // the model is too small to share
    convert_stories(folder_.path());
    ModelFolder model = *open_model_folder(folder_.path());
    spec_ = model.spec;
    auto decoder = Decoder::create(model.spec, *load_weights(model), {.max_context = 512});
    decoder_ = std::move(*decoder);
    tokenizer_ = *Tokenizer::load(folder_.path());
  }
  ~Stories() { set_compute_threads(threads_); }
  KvCache cache(KvType type, KvScales scales = {}) const {
    return KvCache(Decoder::cache_config(spec_, type, kBlocks, 16), std::move(scales));
  }

  // Logits of tokens [begin, end) of a text.
  Tensor logits(const Text& text, size_t begin, size_t end, KvCache& cache) {
    Batch batch;
    batch.clear();
    for (size_t i = begin; i < end; ++i) {
      batch.logit_rows.push_back(static_cast<int32_t>(i - begin));
      batch.tokens.push_back(text[i]);
      batch.positions.push_back(static_cast<int32_t>(i));
    }
    batch.query_start.push_back(static_cast<int32_t>(end - begin));
    batch.context_len.push_back(static_cast<int32_t>(end));
    batch.rope_len.push_back(static_cast<int32_t>(end));
    batch.max_blocks = kBlocks;
    for (int32_t b = 0; b < kBlocks; ++b) batch.block_table.push_back(b);
    const auto rows = static_cast<int64_t>(end - begin);
    Tensor hidden = Tensor::empty(DType::kF32, {rows, spec_.hidden_size});
    Tensor out = Tensor::empty(DType::kF32, {rows, spec_.vocab_size});
    decoder_->forward(batch, cache, hidden);
    decoder_->logits(hidden, out);
    return out;
  }

  // The model's own, at temperature 1.
  std::vector<Text> sampled(int texts, int tokens, uint64_t seed) {
    std::vector<Text> out;
    Random random(seed);
    for (int i = 0; i < texts; ++i) {
      KvCache cache = this->cache(DType::kF32);
      Text text = {1};
      while (static_cast<int>(text.size()) <= tokens) {
        const Tensor row = logits(text, text.size() - 1, text.size(), cache);
        text.push_back(draw(row.data<float>(), random));
      }
      out.push_back(std::move(text));
    }
    return out;
  }

  // Windows of `tokens` tokens of a text, each behind the first token of all texts.
  std::vector<Text> windows(const std::string& text, size_t tokens, size_t most) const {
    const std::vector<int32_t> ids = *tokenizer_->encode(text, {.add_special_tokens = false});
    std::vector<Text> out;
    for (size_t at = 0; at + tokens <= ids.size() && out.size() < most; at += tokens) {
      out.push_back({1});
      out.back().insert(out.back().end(), ids.begin() + at, ids.begin() + at + tokens);
    }
    return out;
  }

  double perplexity(const std::vector<Text>& texts, KvType type, const KvScales& scales = {}) {
    double sum = 0;
    int64_t count = 0;
    for (const Text& text : texts) {
      KvCache cache = this->cache(type, scales);
      const Tensor rows = logits(text, 0, text.size() - 1, cache);
      for (size_t i = 1; i < text.size(); ++i, ++count)
        sum += loss(rows.data<float>() + static_cast<int64_t>(i - 1) * spec_.vocab_size, text[i]);
    }
    return std::exp(sum / static_cast<double>(count));
  }

  // max |x| / 127 of each layer, all heads together, over the texts.
  KvScales calibrated(const std::vector<Text>& texts) {
    std::vector<KvRange> ranges(spec_.layers.size());
    for (const Text& text : texts) {
      KvCache cache = this->cache(DType::kF32);
      logits(text, 0, text.size(), cache);
      for (size_t layer = 0; layer < ranges.size(); ++layer) {
        const KvRange range = cache.range(static_cast<int64_t>(layer));
        ranges[layer].key = std::max(ranges[layer].key, range.key);
        ranges[layer].value = std::max(ranges[layer].value, range.value);
      }
    }
    KvScales scales;
    const int64_t heads = std::get<Gqa>(spec_.layers.front().attention).kv_heads;
    for (const KvRange& range : ranges) {
      scales.keys.insert(scales.keys.end(), heads, range.key / 127);
      scales.values.insert(scales.values.end(), heads, range.value / 127);
    }
    return scales;
  }

 private:
  static constexpr int32_t kBlocks = 32;

  double loss(const float* logits, int32_t token) const {
    double total = 0;
    for (int64_t v = 0; v < spec_.vocab_size; ++v) total += std::exp(static_cast<double>(logits[v]) - logits[token]);
    return std::log(total);
  }
  int32_t draw(const float* logits, Random& random) const {
    double total = 0;
    for (int64_t v = 0; v < spec_.vocab_size; ++v) total += std::exp(static_cast<double>(logits[v]));
    double left = random.uniform() * total;
    for (int32_t v = 0; v < spec_.vocab_size; ++v)
      if ((left -= std::exp(static_cast<double>(logits[v]))) < 0) return v;
    return static_cast<int32_t>(spec_.vocab_size - 1);
  }

  const int threads_;
  const TemporaryDirectory folder_;
  DecoderSpec spec_;
  std::unique_ptr<Decoder> decoder_;
  std::shared_ptr<const Tokenizer> tokenizer_;
};

std::string unpacked(const std::string& path) {
  std::string text(4 << 20, '\0');
  const gzFile file = gzopen(path.c_str(), "rb");
  if (!file) return "";
  const int bytes = gzread(file, text.data(), static_cast<unsigned>(text.size()));
  gzclose(file);
  text.resize(static_cast<size_t>(std::max(bytes, 0)));
  return text;
}

void expect_bounds(Stories& model, const std::vector<Text>& texts, const KvScales& scales, const std::string& name) {
  ASSERT_GE(texts.size(), 3u) << name;
  const double base = model.perplexity(texts, DType::kF32);
  const auto increase = [&](KvType type, const KvScales& used) {
    return model.perplexity(texts, type, used) / base - 1;
  };
  const double fixed = increase(DType::kI8, scales), dynamic = increase({DType::kI8, true}, {});
  EXPECT_LE(fixed, 0.005) << name;
  EXPECT_LE(dynamic, 0.002) << name;
  fmt::print("{}: perplexity {:.4f}, bfloat16 {:+.3f} %, int8 {:+.3f} %, int8-dynamic {:+.3f} %\n", name, base,
             100 * increase(DType::kBf16, {}), 100 * fixed, 100 * dynamic);
}

TEST(KvAccuracy, PerplexityStaysWithinThePublishedBounds) {
  if (!file_exists(kStories)) GTEST_SKIP() << "needs ../shared/data/models/stories260K";
  Stories model;
  const KvScales scales = model.calibrated(model.sampled(4, 250, /*seed=*/99));
  expect_bounds(model, model.sampled(16, 250, /*seed=*/1), scales, "own texts");
  const std::string wiki = unpacked(kDatasets + "wikitext2/wiki.test.raw.gz");
  expect_bounds(model, model.windows(wiki.substr(0, 200'000), 500, 32), scales, "WikiText-2");
}

TEST(KvAccuracy, AScaleOfOneIsWorseThanCalibratedOnes) {
  if (!file_exists(kStories)) GTEST_SKIP() << "needs ../shared/data/models/stories260K";
  Stories model;
  const std::vector<Text> texts = model.sampled(4, 250, /*seed=*/7);
  const KvScales scales = model.calibrated(texts);
  const std::vector<float> ones(scales.keys.size(), 1.0f);
  EXPECT_GT(model.perplexity(texts, DType::kI8, {ones, ones}), 1.01 * model.perplexity(texts, DType::kI8, scales));
}

}  // namespace
}  // namespace millrace
