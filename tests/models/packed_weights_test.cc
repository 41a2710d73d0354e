// Packed matrices from a file are those that were packed; files that are broken or of something else are not used.
#include "models/packed_weights.h"

#include <gtest/gtest.h>

#include <cstring>

#include "base/random.h"
#include "models/decoder.h"
#include "weights/model_folder.h"

namespace millrace {
namespace {

const std::string kFolder = std::string(MILLRACE_SOURCE_DIR) + "/tests/golden/mistral";
const std::vector<int32_t> kIds = {3, 14, 15, 92, 65, 35, 8, 97, 93, 23, 84, 62, 64, 33, 83, 27};

struct Files {
  Files() : model(*open_model_folder(kFolder)), weights(*load_weights(model, {}, nullptr, &files)) {}
  ModelFolder model;
  MappedFiles files;
  DecoderWeights weights;
};

DecoderOptions options_of(DType dtype, LinearFormat format, PackedWeights* kept) {
  return {.dtype = dtype, .quantization = format, .max_context = 64, .kept = kept};
}

std::unique_ptr<Decoder> make(const Files& files, const DecoderWeights& weights, const DecoderOptions& options) {
  auto decoder = Decoder::create(files.model.spec, DecoderTensors(weights, {}, files.files), options);
  EXPECT_TRUE(decoder.ok()) << decoder.status().message();
  return std::move(*decoder);
}

std::vector<float> logits_of(Decoder& decoder, DType dtype) {
  KvCache cache(Decoder::cache_config(decoder.spec(), dtype, 4, 16));
  const auto tokens = static_cast<int32_t>(kIds.size());
  Batch batch;
  batch.clear();
  for (int32_t i = 0; i < tokens; ++i) batch.positions.push_back(i);
  batch.tokens = kIds;
  batch.logit_rows = batch.positions;
  batch.query_start.push_back(tokens);
  batch.context_len = batch.rope_len = {tokens};
  batch.max_blocks = 1;
  batch.block_table = {0};
  Tensor hidden = Tensor::empty(DType::kF32, {tokens, decoder.spec().hidden_size});
  decoder.forward(batch, cache, hidden);
  std::vector<float> logits(static_cast<size_t>(tokens * decoder.spec().vocab_size));
  Tensor rows(logits.data(), DType::kF32, {tokens, decoder.spec().vocab_size});
  decoder.logits(hidden, rows);
  return logits;
}

// The same tensors, matrices without anything in them but for the table of embeddings.
DecoderWeights without_matrices(const DecoderWeights& weights) {
  DecoderWeights out = weights;
  for (auto& [name, tensor] : out)
    if (tensor.rank() == 2 && name != "embed.weight") tensor = Tensor::zeros(tensor.dtype(), tensor.shape());
  return out;
}

class Kept : public testing::Test {
 protected:
  Json key(DType dtype = DType::kBf16, LinearFormat format = LinearFormat::kDense) const {
    return packed_weights_key(files_.files, files_.model.config, dtype, format);
  }
  // The file that a decoder of bfloat16 leaves.
  std::string made() {
    PackedWeights kept(folder_.path(), key());
    decoder_ = make(files_, files_.weights, options_of(DType::kBf16, LinearFormat::kDense, &kept));
    EXPECT_TRUE(kept.write().ok());
    return kept.path();
  }
  bool is_found() const { return PackedWeights(folder_.path(), key()).found(); }
  const Files files_;
  const TemporaryDirectory folder_;
  std::unique_ptr<Decoder> decoder_;
};

TEST_F(Kept, ADecoderOfAFileIsTheDecoderThatWasPackedInEveryFormat) {
  struct Case {
    DType dtype;
    LinearFormat format;
  };
  for (const Case c : {Case{DType::kF32, LinearFormat::kDense}, Case{DType::kBf16, LinearFormat::kDense},
                       Case{DType::kF16, LinearFormat::kDense}, Case{DType::kBf16, LinearFormat::kW8A8},
                       Case{DType::kBf16, LinearFormat::kW8A16}}) {
    SCOPED_TRACE(testing::Message() << dtype_name(c.dtype) << static_cast<int>(c.format));
    PackedWeights first(folder_.path(), key(c.dtype, c.format));
    EXPECT_FALSE(first.found());
    const std::vector<float> want =
        logits_of(*make(files_, files_.weights, options_of(c.dtype, c.format, &first)), c.dtype);
    ASSERT_TRUE(first.write().ok());
    PackedWeights second(folder_.path(), key(c.dtype, c.format));
    ASSERT_TRUE(second.found());
    const auto decoder = make(files_, without_matrices(files_.weights), options_of(c.dtype, c.format, &second));
    const std::vector<float> got = logits_of(*decoder, c.dtype);
    EXPECT_EQ(std::memcmp(got.data(), want.data(), want.size() * sizeof(float)), 0);
  }
}

TEST_F(Kept, AMatrixOfIntegersKeepsItsOrderBiasAndInputScale) {
  Random random(1);
  QuantizedMatrix m{.rows = 20, .columns = 256, .group = 128};
  m.unpack = [](int64_t begin, int64_t end, uint8_t* values) {
    for (int64_t i = begin * 256; i < end * 256; ++i) *values++ = static_cast<uint8_t>(i * 7 % 16);
  };
  m.scales = Tensor::empty(DType::kF32, {20, 2});
  for (int64_t i = 0; i < 40; ++i) m.scales.data<float>()[i] = uniform_open(random());
  m.order = Tensor::empty(DType::kI32, {256});
  for (int32_t k = 0; k < 256; ++k) m.order.data<int32_t>()[k] = 255 - k;
  Tensor bias = Tensor::empty(DType::kF32, {20});
  for (int64_t i = 0; i < 20; ++i) bias.data<float>()[i] = uniform_open(random());
  const QuantizedMatrix parts[] = {m};
  const Tensor biases[] = {bias};
  const Linear linear = Linear::pack(parts, biases);
  PackedWeights first(folder_.path(), key());
  first.add("x", linear);
  ASSERT_TRUE(first.write().ok());
  const std::optional<Linear> found = PackedWeights(folder_.path(), key()).find("x");
  ASSERT_TRUE(found);
  Workspace workspace(1 << 22);
  Tensor x = Tensor::empty(DType::kBf16, {3, 256}), want = Tensor::empty(DType::kF32, {3, 20}),
         got = Tensor::empty(DType::kF32, {3, 20});
  for (int64_t i = 0; i < x.numel(); ++i) x.data<bf16>()[i] = to_bf16(uniform_open(random()) - 0.5f);
  linear.forward(x, want, workspace);
  found->forward(x, got, workspace);
  EXPECT_EQ(std::memcmp(got.raw(), want.raw(), static_cast<size_t>(want.bytes())), 0);
}

TEST_F(Kept, EveryOtherWayOfPackingHasAnotherFile) {
  const Json base = key();
  EXPECT_NE(base, key(DType::kF32));
  EXPECT_NE(base, key(DType::kBf16, LinearFormat::kW8A8));
  Json config = files_.model.config;
  config["rope_theta"] = 3;
  EXPECT_NE(base, packed_weights_key(files_.files, config, DType::kBf16, LinearFormat::kDense));
  const std::string copy = folder_.file("model.safetensors");
  const std::string bytes = *read_file(kFolder + "/model.safetensors");
  const auto key_of = [&](const std::string& text) {
    EXPECT_TRUE(write_file(copy, text).ok());
    const MappedFiles files = {*MappedFile::open(copy)};
    return packed_weights_key(files, files_.model.config, DType::kBf16, LinearFormat::kDense)["files"];
  };
  std::string changed = bytes;
  changed.back() ^= 1;
  EXPECT_NE(key_of(bytes)[0]["ends"], key_of(changed)[0]["ends"]);
  EXPECT_NE(key_of(bytes)[0]["bytes"], key_of(bytes + "x")[0]["bytes"]);
}

TEST_F(Kept, FilesCutAnywhereAreNotUsedAndMadeAnew) {
  const std::string path = made(), bytes = *read_file(path);
  ASSERT_TRUE(is_found());
  for (const size_t size :
       {size_t{0}, size_t{7}, size_t{23}, size_t{24}, size_t{1000}, bytes.size() / 2, bytes.size() - 1}) {
    ASSERT_TRUE(write_file(path, bytes.substr(0, size)).ok());
    EXPECT_FALSE(is_found()) << size;
  }
  ASSERT_TRUE(write_file(path, bytes + "x").ok());
  EXPECT_FALSE(is_found());
  EXPECT_EQ(made(), path);
  EXPECT_EQ(*read_file(path), bytes);
}

TEST_F(Kept, AHeaderWithAnyByteChangedIsRefused) {
  const std::string path = made(), bytes = *read_file(path);
  uint64_t header = 0;
  std::memcpy(&header, bytes.data() + 8, 8);
  Random random(3);
  for (int i = 0; i < 60; ++i) {
    std::string broken = bytes;
    const size_t at = i < 24 ? static_cast<size_t>(i) : 24 + random.below(static_cast<uint32_t>(header));
    broken[at] = static_cast<char>(broken[at] ^ (1 << random.below(8)));
    ASSERT_TRUE(write_file(path, broken).ok());
    EXPECT_FALSE(is_found()) << at;
  }
}

// Whoever writes such a file also knows how to sum up its header.
TEST_F(Kept, AHeaderThatPointsOutsideIsRefusedWhateverItsChecksum) {
  const std::string path = made(), bytes = *read_file(path);
  uint64_t size = 0;
  std::memcpy(&size, bytes.data() + 8, 8);
  const Json good = *parse_json(bytes.substr(24, size));
  const std::string data = bytes.substr((24 + size + 4095) / 4096 * 4096);
  const std::string name = good["matrices"].begin().key();
  const auto refuses = [&](const Json& header) {
    const std::string text = dump_json(header);
    uint64_t sum = 0xcbf29ce484222325u;
    for (const char c : text) sum = (sum ^ static_cast<uint8_t>(c)) * 0x100000001b3u;
    const uint64_t length = text.size();
    std::string file = "MRPACKED";
    file.append(reinterpret_cast<const char*>(&length), 8).append(reinterpret_cast<const char*>(&sum), 8).append(text);
    file.resize((file.size() + 4095) / 4096 * 4096);
    EXPECT_TRUE(write_file(path, file + data).ok());
    return !is_found();
  };
  EXPECT_FALSE(refuses(good));
  const Json wrong[] = {{{"rows", uint64_t{1} << 62}},
                        {{"rows", -1}},
                        {{"columns", 0}},
                        {{"columns", good["matrices"][name]["columns"].get<int64_t>() + 64}},
                        {{"format", 9}},
                        {{"format", 3}},
                        {{"dtype", "int8"}},
                        {{"dtype", 5}},
                        {{"input_scale", "x"}},
                        {{"weights", {0, data.size() + 64}}},
                        {{"weights", {64, 0}}},
                        {{"weights", {1, data.size()}}},
                        {{"weights", "all"}},
                        {{"weights", {uint64_t{1} << 63, 5}}},
                        {{"scales", {0, 64}}},
                        {{"order", {0, 64}}},
                        {{"bias", {0, 64}}}};
  for (const Json& change : wrong) {
    Json header = good;
    header["matrices"][name].update(change);
    EXPECT_TRUE(refuses(header)) << change;
  }
  for (const char* field : {"key", "matrices", "data_bytes"}) {
    Json header = good;
    header.erase(field);
    EXPECT_TRUE(refuses(header)) << field;
  }
  Json foreign = good;
  foreign["key"]["dtype"] = "float32";
  EXPECT_TRUE(refuses(foreign));
}

TEST_F(Kept, AFolderThatCannotBeMadeIsAnErrorOfWritingAlone) {
  ASSERT_TRUE(write_file(folder_.file("file"), "x").ok());
  PackedWeights kept(folder_.file("file"), key());
  EXPECT_FALSE(kept.found());
  make(files_, files_.weights, options_of(DType::kBf16, LinearFormat::kDense, &kept));
  EXPECT_FALSE(kept.write().ok());
}

}  // namespace
}  // namespace millrace
