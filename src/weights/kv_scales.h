// Scales of an int8 KV cache (a key or value is its integer times the scale): from vLLM's kv_cache_scales.json, or from
// tensors of the checkpoint itself. Any thread.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "weights/checkpoint.h"

namespace millrace {

// Of every layer and key/value head; finite, normal and above 0.
struct KvScaleTable {
  std::vector<float> keys, values;  // [layers, heads]; empty: none found
  std::vector<std::string> notes;   // sentences the user should see once
};
struct KvScaleShape {
  std::string model_type;  // config.json's
  int64_t layers = 0, heads = 0;
};

// {"model_type": "llama", "kv_cache": {"dtype": "int8", "scaling_factor": {"0": {"0": 0.0152, "1": ...}}}}
// The outer key is a tensor-parallel rank, the inner one a layer; the number is the keys' scale and the values', in all
// heads. Of several ranks the largest counts. model_type may be null or left out; another dtype is noted. Refused: what
// is missing, unknown or not a scale, with its place. At most 16 MiB.
Result<KvScaleTable> read_kv_scales(const std::string& path, const KvScaleShape& shape);
// The same of the file's text; `name` begins the messages.
Result<KvScaleTable> parse_kv_scales(std::string_view text, const KvScaleShape& shape, const std::string& name);

// Of each layer `...k_scale` and `...v_scale`, else `...kv_scale`, else `...k_proj.output_scale` and
// `...v_proj.output_scale`, behind the one number in the name: of one element or one for each head. A scale of 0 or
// less is none, as vLLM has it; keys' scales alone count for values too. All layers have them or none has.
Result<KvScaleTable> checkpoint_kv_scales(const Checkpoint& checkpoint, const KvScaleShape& shape);
// Whether a checkpoint's tensor is such a scale.
bool is_kv_scale_tensor(std::string_view name);

}  // namespace millrace
