// The decoder against the reference's logits, and against itself however a sequence is cut.
#include "models/decoder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "models/families/names.h"
#include "models/families/read_spec.h"
#include "tests/golden_folders.h"
#include "tests/odd_offsets.h"
#include "weights/model_folder.h"

namespace millrace {
namespace {

constexpr int64_t kBlocks = 16, kBlockTokens = 16;

struct Model {
  std::unique_ptr<Decoder> decoder;
  KvCache cache;
  Json golden;

  KvCache cache_of(KvType type) const {
    return KvCache(Decoder::cache_config(decoder->spec(), type, kBlocks, kBlockTokens));
  }
};

Model load(const std::string& folder, DType dtype, int64_t tile_tokens, bool batch_invariant = false) {
  ModelFolder files = *open_model_folder(folder);
  DecoderWeights weights = *load_weights(files);
  Model model;
  model.cache = KvCache(Decoder::cache_config(files.spec, dtype, kBlocks, kBlockTokens));
  auto decoder = Decoder::create(
      files.spec, weights,
      {.dtype = dtype, .max_context = 96, .batch_invariant = batch_invariant, .tile_tokens = tile_tokens});
  EXPECT_TRUE(decoder.ok()) << decoder.status().message();
  model.decoder = std::move(*decoder);
  model.golden = *read_json_file(folder + "/golden.json");
  return model;
}

// Tokens [begin, end) of `ids` as one sequence in blocks first_block, first_block + 1, ...; all rows wanted.
void append(Batch& batch, const std::vector<int32_t>& ids, int32_t begin, int32_t end, int32_t first_block) {
  for (int32_t i = begin; i < end; ++i) {
    batch.logit_rows.push_back(static_cast<int32_t>(batch.tokens.size()));
    batch.tokens.push_back(ids[i]);
    batch.positions.push_back(i);
  }
  batch.query_start.push_back(static_cast<int32_t>(batch.tokens.size()));
  batch.context_len.push_back(end);
  batch.rope_len.push_back(static_cast<int32_t>(ids.size()));
  batch.max_blocks = 5;
  for (int32_t b = 0; b < batch.max_blocks; ++b) batch.block_table.push_back(first_block + b);
}

// Logits of all rows of the batch.
Tensor run(Model& model, const Batch& batch) {
  const DecoderSpec& spec = model.decoder->spec();
  const auto rows = static_cast<int64_t>(batch.logit_rows.size());
  Tensor hidden = Tensor::empty(DType::kF32, {rows, spec.hidden_size});
  Tensor logits = Tensor::empty(DType::kF32, {rows, spec.vocab_size});
  model.decoder->forward(batch, model.cache, hidden);
  for (int64_t r = 0; r < rows; ++r) {
    Tensor row = logits.rows(r, r + 1);
    model.decoder->logits(hidden.rows(r, r + 1), row);
  }
  return logits;
}

std::string shipped(const char* family) { return std::string(MILLRACE_SOURCE_DIR) + "/tests/golden/" + family; }

class DecoderGolden : public testing::TestWithParam<std::string> {};

void expect_golden_logits(Model& model) {
  for (const Json& prompt : model.golden["prompts"]) {
    Batch batch;
    batch.clear();
    const auto ids = prompt["ids"].get<std::vector<int32_t>>();
    append(batch, ids, 0, static_cast<int32_t>(ids.size()), 0);
    const Tensor logits = run(model, batch);
    for (const auto& [position, want] : prompt["logits"]["positions"].items()) {
      const float* row = logits.data<float>() + std::stoll(position) * logits.size(1);
      for (size_t v = 0; v < 16; ++v) EXPECT_NEAR(row[v], want["first16"][v].get<float>(), 1e-4);
      for (size_t k = 0; k < 5; ++k)
        EXPECT_NEAR(row[want["top5_ids"][k].get<int>()], want["top5_values"][k].get<float>(), 1e-4);
      EXPECT_EQ(std::max_element(row, row + logits.size(1)) - row, want["argmax"].get<int64_t>());
    }
  }
}

TEST_P(DecoderGolden, Float32LogitsAreTheReferences) {
  for (const bool batch_invariant : {false, true}) {
    Model model = load(GetParam(), DType::kF32, 32, batch_invariant);
    expect_golden_logits(model);
  }
}

TEST(Decoder, WeightsAtOddOffsetsGiveTheSameLogits) {
  const TemporaryDirectory folder;
  copy_to_odd_offsets(shipped("mistral"), folder.path());
  Model model = load(folder.path(), DType::kF32, 32);
  expect_golden_logits(model);
}

TEST_P(DecoderGolden, RowsDoNotDependOnTilesChunksOrNeighbours) {
  struct Types {
    DType weights;
    KvType kv;
  };
  for (const auto& [dtype, kv] :
       {Types{DType::kF32, DType::kF32}, Types{DType::kBf16, DType::kBf16}, Types{DType::kF16, DType::kF16},
        Types{DType::kF32, {DType::kI8, true}}, Types{DType::kBf16, {DType::kI8, true}}}) {
    Model whole = load(GetParam(), dtype, 512, true);
    const bool latents = whole.cache.config().latent_dim > 0;
    if (kv.dtype == DType::kI8 && latents) continue;  // which stay floating
    whole.cache = whole.cache_of(kv);
    Model tiled = load(GetParam(), dtype, 7, true);
    tiled.cache = tiled.cache_of(kv);
    const auto a = whole.golden["prompts"][2]["ids"].get<std::vector<int32_t>>();
    const auto b = whole.golden["prompts"][1]["ids"].get<std::vector<int32_t>>();
    Batch alone;
    alone.clear();
    append(alone, a, 0, static_cast<int32_t>(a.size()), 0);
    const Tensor want = run(whole, alone);
    // The same sequence in chunks of 11 and 59 tokens, in other blocks, behind another sequence, in tiles of 7.
    Batch first, second;
    first.clear(), second.clear();
    append(first, b, 0, static_cast<int32_t>(b.size()), 0);
    append(first, a, 0, 11, 6);
    append(second, a, 11, static_cast<int32_t>(a.size()), 6);
    const Tensor head = run(tiled, first), tail = run(tiled, second);
    const int64_t row_bytes = want.size(1) * 4;
    EXPECT_EQ(std::memcmp(want.data<float>(), head.rows(b.size(), b.size() + 11).data<float>(), 11 * row_bytes), 0);
    EXPECT_EQ(std::memcmp(want.rows(11, want.size(0)).data<float>(), tail.data<float>(), tail.bytes()), 0);
  }
}

// The rows of all logits again where only some are asked for, in tiles of one sequence and of all.
TEST_P(DecoderGolden, UnwantedRowsChangeNothing) {
  for (const auto& [dtype, tile_tokens] : {std::pair{DType::kF32, 16}, {DType::kF32, 256}, {DType::kBf16, 256}}) {
    Model model = load(GetParam(), dtype, tile_tokens);
    const auto ids = model.golden["prompts"][2]["ids"].get<std::vector<int32_t>>();
    const auto begun = static_cast<int32_t>(ids.size());
    Batch batch;
    batch.clear();
    append(batch, ids, 0, begun, 0);
    append(batch, ids, 0, 29, 6);
    const Tensor all = run(model, batch);
    for (const std::vector<int32_t>& wanted : {std::vector<int32_t>{3, 40, 69},
                                               {begun - 1, begun + 28},
                                               {begun + 5},
                                               {0, 1, begun - 1, begun, begun + 28}}) {
      batch.logit_rows = wanted;
      const Tensor some = run(model, batch);
      for (size_t i = 0; i < wanted.size(); ++i) {
        const auto at = static_cast<int64_t>(i);
        EXPECT_EQ(std::memcmp(all.rows(wanted[i], wanted[i] + 1).data<float>(), some.rows(at, at + 1).data<float>(),
                              all.size(1) * 4),
                  0)
            << "row " << wanted[i] << ", tiles of " << tile_tokens << ", " << dtype_name(dtype);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Families, DecoderGolden, testing::ValuesIn(golden_folders()),
                         [](const auto& info) { return std::filesystem::path(info.param).filename().string(); });

TEST(Decoder, MissingAndMisshapenWeightsAreNamed) {
  const SpecReading reading = *read_spec(*read_json_file(shipped("mistral") + "/config.json"));
  std::map<std::string, Tensor> weights;
  for (const TensorNeed& need : needed_tensors(reading.spec))
    weights[need.name] = Tensor::zeros(DType::kF32, Shape(need.shape));
  weights["final_norm.weight"] = Tensor::zeros(DType::kF32, {3});
  EXPECT_THAT(Decoder::create(reading.spec, weights, {}).status().message(),
              testing::HasSubstr("final_norm.weight has shape [3], wanted [96]"));
  weights.erase("final_norm.weight");
  EXPECT_THAT(Decoder::create(reading.spec, weights, {}).status().message(),
              testing::HasSubstr("no tensor final_norm.weight"));
}

}  // namespace
}  // namespace millrace
