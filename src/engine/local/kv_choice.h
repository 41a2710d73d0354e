// Which KV cache --kv-cache-dtype asks for, and with which scales.
#pragma once
#include <string>

#include "base/result.h"
#include "engine/local/engine_args.h"
#include "ops/attention.h"
#include "weights/model_folder.h"

namespace millrace {

// Errors name the flag: a cache that the model cannot have, a file of scales that nothing reads.
Result<KvType> choose_kv_type(const EngineArgs& args, const ModelFolder& model, DType dtype);

struct KvScaleChoice {
  KvScales scales;    // empty where the cache has none
  std::string words;  // ", int8 with scales from FILE", ...; empty for auto
};
// The scales of --quantization-param-path, else the checkpoint's own, else 1, which is warned of. Errors: also those of
// choose_kv_type.
Result<KvScaleChoice> choose_kv_scales(const EngineArgs& args, const ModelFolder& model);

}  // namespace millrace
