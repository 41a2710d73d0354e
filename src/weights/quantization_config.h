// What a checkpoint says of its quantised weights: `quantization_config` of config.json, or the side files that older
// tools write (quantize_config.json, quant_config.json). Any thread.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"

namespace millrace {

struct QuantizationConfig {
  enum class Method : uint8_t { kNone, kAwq, kGptq, kCompressedTensors, kSmoothQuant };
  Method method = Method::kNone;
  std::string source;                               // the file that says so, for messages
  int bits = 4;                                     // AWQ, GPTQ
  int64_t group = 0;                                // neighbouring k with one scale; 0: all of them. AWQ, GPTQ
  bool zeros_less_one = false;                      // GPTQ: stored zero points are one less than meant
  bool activations = false;                         // compressed-tensors: activations are int8 too
  bool static_qkv = false, static_gate_up = false;  // SmoothQuant: the norm in front emits int8 units
  bool kv_int8 = false;                             // compressed-tensors: the files hold scales of an int8 KV cache
  std::string kv_unserved;         // why the scales of keys and values that it speaks of cannot be used; or empty
  std::vector<std::string> dense;  // modules left as they were: names, parts of names, or "re:" patterns
  std::vector<std::string> notes;  // sentences the user should see once

  // Whether `module` (a file's name without ".weight") may be dense.
  bool may_be_dense(std::string_view module) const;
};
// As --quantization spells it: "awq", "gptq", "compressed-tensors", "smoothquant".
std::string_view method_name(QuantizationConfig::Method method);

// Of a model folder; kNone where nothing says otherwise. kUnimplemented names what is not served: other methods, other
// bits, other layouts.
Result<QuantizationConfig> read_quantization_config(const std::string& folder, const Json& config);

}  // namespace millrace
