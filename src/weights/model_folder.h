// A model folder as a whole: config.json, generation_config.json and the weights; and new folders with random weights.
#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "models/families/read_spec.h"
#include "weights/checkpoint.h"
#include "weights/decoder_weights.h"

namespace millrace {

struct ModelFolder {
  std::string path;
  Json config;
  Json generation_config;  // null if the folder has none
  DecoderSpec spec;        // eos_token_ids: those of config.json, then those that generation_config.json adds
  const Family* family = nullptr;
  QuantizationConfig quantization;
  bool dtype_stated = false;              // config.json names the dtype of the weights
  std::vector<std::string> unknown_keys;  // of config.json: to be reported once
  std::vector<std::string> notes;         // sentences the user should see once
};
struct ModelFolderOptions {
  SpecOptions spec;
};
// Reads the two JSON files. Where config.json states no dtype, spec.dtype stays float32; load_weights corrects it.
Result<ModelFolder> open_model_folder(const std::string& path, const ModelFolderOptions& options = {});

// The folder's weights in the given format; dummy ones in `dummy_dtype` from `seed`. Sets model.spec.dtype to that of
// the embeddings where config.json states none.
struct LoadOptions {
  LoadFormat format = LoadFormat::kAuto;
  DType dummy_dtype = DType::kBf16;
  uint64_t seed = 0;
};
// Integer matrices of a quantised folder go to `quantized`; without one such a folder is refused. `files`: where the
// tensors lie.
Result<DecoderWeights> load_weights(ModelFolder& model, const LoadOptions& options = {},
                                    QuantizedWeights* quantized = nullptr, MappedFiles* files = nullptr);

// A new checkpoint with random weights.
struct InitOptions {
  std::string family = "qwen2";
  std::string size = "demo";        // a preset of models/families/presets.h
  Json overrides = Json::object();  // keys of config.json in place of the preset's: {"vocab_size": 300, ...}
  DType dtype = DType::kF32;
  uint64_t seed = 0;
};
// The config.json that init_checkpoint would write.
Result<Json> new_config(const InitOptions& options);
// Writes config.json, generation_config.json and model.safetensors into a folder that holds no model yet, with
// weights from initial_weights(). config.json is written last. The tokenizer's files are somebody else's.
Status init_checkpoint(const std::string& folder, const InitOptions& options);

}  // namespace millrace
