// `millrace generate` and `serve` on folders that a quantiser made, or half made: what --quantization may say, and what
// is wrong with the files.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/random.h"
#include "tests/api/server_process.h"
#include "weights/checkpoint.h"
#include "weights/safetensors.h"

namespace millrace {
namespace {

using testing::HasSubstr;

constexpr int64_t kGroup = 32;

// A tensor of a module in AutoAWQ's or AutoGPTQ's layout, random where the values are free.
Tensor random_words(Random& random, const Shape& shape) {
  Tensor out = Tensor::empty(DType::kI32, shape);
  for (int64_t i = 0; i < out.numel(); ++i) out.data<uint32_t>()[i] = random();
  return out;
}
Tensor all(const Shape& shape, float value) {
  Tensor out = Tensor::empty(DType::kF16, shape);
  for (int64_t i = 0; i < out.numel(); ++i) out.data<f16>()[i] = to_f16(value);
  return out;
}

Tensor copy_of(const Tensor& mapped) {
  Tensor out = Tensor::empty(mapped.dtype(), mapped.shape());
  copy_elements(mapped, out);
  return out;
}

using Tensors = std::map<std::string, Tensor>;

class QuantizedFolders : public testing::Test {
 protected:
  void SetUp() override {
    const CommandResult made =
        run_millrace({"init", dense_, "--family", "llama", "--size", "tiny", "--dtype", "float16"});
    ASSERT_EQ(made.exit_code, 0) << made.output;
    make("awq", awq_, {{"bits", 4}, {"group_size", kGroup}, {"zero_point", true}, {"version", "gemm"}});
    make("gptq", gptq_, {{"bits", 4}, {"group_size", kGroup}, {"desc_act", false}, {"sym", false}});
  }

  void make(const std::string& method, const std::string& to, Json quantization) {
    std::filesystem::copy(dense_, to);
    quantization["quant_method"] = method;
    set_config(to, {{"quantization_config", quantization}});
    rewrite(to, [&](Tensors& tensors) {
      Random random(1);
      for (const auto& [name, tensor] : Tensors(tensors)) {
        if (tensor.rank() != 2 || name.find("layers.") == std::string::npos) continue;
        const std::string module = name.substr(0, name.size() - 7);
        const int64_t N = tensor.size(0), K = tensor.size(1), G = K / kGroup;
        tensors.erase(name);
        tensors[module + ".qweight"] = random_words(random, method == "awq" ? Shape{K, N / 8} : Shape{K / 8, N});
        tensors[module + ".qzeros"] = random_words(random, {G, N / 8});
        tensors[module + ".scales"] = all({G, N}, 0.002f);
      }
    });
  }
  static void set_config(const std::string& folder, const Json& changes) {
    Json config = *read_json_file(folder + "/config.json");
    config.merge_patch(changes);
    ASSERT_TRUE(write_file(folder + "/config.json", dump_json(config)).ok());
  }
  static void rewrite(const std::string& folder, const std::function<void(Tensors&)>& change) {
    Tensors tensors;
    const auto opened = Checkpoint::open(folder);
    const Checkpoint& checkpoint = *opened;
    for (const std::string& name : checkpoint.names()) tensors[name] = copy_of(*checkpoint.tensor(name));
    change(tensors);
    std::vector<NamedTensor> list;
    for (const auto& [name, tensor] : tensors) list.push_back({name, {tensor}});
    ASSERT_TRUE(write_safetensors(folder + "/model.safetensors", list).ok());
  }
  // A copy of `folder` whose tensors are changed.
  std::string changed(const std::string& folder, const std::function<void(Tensors&)>& change) {
    const std::string copy = folder_.file(fmt::format("copy{}", ++copies_));
    std::filesystem::copy(folder, copy);
    rewrite(copy, change);
    return copy;
  }

  // Both commands end with 1 and say `text`.
  static void expect_refused(const std::string& folder, const std::vector<std::string>& flags,
                             const std::string& text) {
    std::vector<std::string> serve = {"serve", folder, "--host", "127.0.0.1", "--port", "0"};
    std::vector<std::string> generate = {"generate", "--model", folder, "--prompt", "a", "--max-tokens", "1"};
    for (std::vector<std::string>* command : {&serve, &generate}) {
      command->insert(command->end(), flags.begin(), flags.end());
      const CommandResult result = run_millrace(*command);
      EXPECT_EQ(result.exit_code, 1) << command->front() << ": " << result.output;
      EXPECT_THAT(result.output, HasSubstr(text)) << command->front();
    }
  }
  static void expect_runs(const std::string& folder, const std::vector<std::string>& flags) {
    std::vector<std::string> command = {"generate", "--model", folder, "--prompt", "a", "--max-tokens", "1"};
    command.insert(command.end(), flags.begin(), flags.end());
    const CommandResult result = run_millrace(command);
    EXPECT_EQ(result.exit_code, 0) << result.output;
  }

  const TemporaryDirectory folder_;
  const std::string dense_ = folder_.file("dense"), awq_ = folder_.file("awq"), gptq_ = folder_.file("gptq");
  int copies_ = 0;
};

TEST_F(QuantizedFolders, TheFlagMustSayWhatTheCheckpointIs) {
  expect_runs(awq_, {});
  expect_runs(awq_, {"-q", "awq"});
  expect_runs(gptq_, {"--quantization", "gptq"});
  expect_runs(dense_, {"-q", "w8a8"});
  expect_refused(
      awq_, {"-q", "gptq"},
      "--quantization is gptq, but config.json: quantization_config says the weights are awq; leave the flag out");
  expect_refused(gptq_, {"-q", "w8a16"},
                 "--quantization is w8a16, but config.json: quantization_config says the weights are gptq");
  for (const char* method : {"awq", "gptq", "smoothquant", "compressed-tensors"})
    expect_refused(
        dense_, {"-q", method},
        fmt::format("--quantization is {}, but {} has no quantised weights; w8a8 and w8a16 quantise dense ones", method,
                    dense_));
}

TEST_F(QuantizedFolders, WhatIsNotServedIsNamed) {
  set_config(awq_, {{"quantization_config", {{"bits", 3}}}});
  expect_refused(awq_, {}, "bits");
  set_config(gptq_, {{"quantization_config", {{"quant_method", "exl9"}}}});
  expect_refused(gptq_, {}, "exl9");
}

TEST_F(QuantizedFolders, HalfConvertedFilesAreRefusedWithTheTensorsName) {
  const std::string up = "model.layers.1.mlp.up_proj";
  expect_refused(changed(awq_, [&](Tensors& t) { t.erase(up + ".scales"); }), {}, up + ".scales: missing");
  expect_refused(changed(awq_, [&](Tensors& t) { t.erase(up + ".qzeros"); }), {}, up + ".qzeros: missing");
  expect_refused(changed(awq_,
                         [&](Tensors& t) {
                           t[up + ".qzeros"] = Tensor::zeros(DType::kI32, {1, 1});
                         }),
                 {}, up + ".qzeros: the file has [1, 1]");
  expect_refused(changed(gptq_,
                         [&](Tensors& t) {
                           t[up + ".qweight"] = all({8, 160}, 0);
                         }),
                 {}, up + ".qweight: the file has float16 elements");
  expect_refused(changed(gptq_, [&](Tensors& t) { t[up + ".scales"].data<f16>()[3] = to_f16(1e30f); }), {},
                 up + ".scales: element 3");
  // A dense matrix among integers, and integers in a folder that says nothing of them.
  expect_refused(changed(awq_,
                         [&](Tensors& t) {
                           for (const char* part : {".qweight", ".qzeros", ".scales"}) t.erase(up + part);
                           t[up + ".weight"] = all({160, 64}, 0.1f);
                         }),
                 {}, up + ".weight: is not quantised although");
  set_config(gptq_, {{"quantization_config", nullptr}});
  expect_refused(gptq_, {}, "model.layers.");
}

TEST_F(QuantizedFolders, DenseWeightsThatAreNotFiniteCannotBeQuantised) {
  const std::string copy =
      changed(dense_, [](Tensors& t) { t["model.layers.0.mlp.down_proj.weight"].data<f16>()[70] = to_f16(1e30f); });
  expect_refused(copy, {"-q", "w8a8"}, "row 0 of the weights is not finite");
}

// The second start takes what the first one packed; a broken file is made anew and said.
TEST_F(QuantizedFolders, PackedWeightsAreKeptFromStartToStart) {
  const std::string cache = folder_.file("cache");
  const auto generate = [&](const std::string& model, const std::vector<std::string>& flags) {
    std::vector<std::string> command = {"generate",     "--model", model,           "--prompt", "abc",
                                        "--max-tokens", "8",       "--temperature", "0",        "--verbose"};
    command.insert(command.end(), flags.begin(), flags.end());
    const CommandResult result = run_millrace(command);
    EXPECT_EQ(result.exit_code, 0) << result.output;
    return result.output;
  };
  const std::vector<std::string> kept = {"--packed-weights-cache", cache};
  for (const std::string& model : {awq_, gptq_, dense_}) {
    EXPECT_THAT(generate(model, kept), HasSubstr("packed weights are kept in " + cache)) << model;
    EXPECT_THAT(generate(model, kept), HasSubstr("packed weights " + cache)) << model;
  }
  const auto files = *list_directory(cache);
  ASSERT_EQ(files.size(), 3u);
  for (const std::string& file : files) std::filesystem::resize_file(join_path(cache, file), 5000);
  const std::string warned = generate(dense_, kept);
  EXPECT_THAT(warned, HasSubstr("it is not used, and made anew"));
  EXPECT_THAT(warned, HasSubstr("packed weights are kept in"));
  EXPECT_THAT(generate(dense_, kept), HasSubstr("packed weights " + cache));
  // A folder that cannot be one costs a warning.
  EXPECT_THAT(generate(dense_, {"--packed-weights-cache", dense_ + "/config.json"}),
              HasSubstr("packed weights are not kept"));
}

}  // namespace
}  // namespace millrace
