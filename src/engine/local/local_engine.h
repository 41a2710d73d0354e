// Opens a model folder and starts an engine on it in this process.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "engine/engine.h"
#include "engine/local/engine_args.h"
#include "models/families/spec.h"
#include "tokenizer/tokenizer.h"
#include "weights/model_folder.h"

namespace millrace {

struct LocalEngine {
  ModelFolder model;
  std::shared_ptr<const Tokenizer> tokenizer;     // null with skip_tokenizer_init
  const FamilyChatFormat* chat_format = nullptr;  // the family's, where the tokenizer's files have no chat template
  std::shared_ptr<Engine> engine;
  std::vector<std::string> choices;  // sentences: what was chosen, and why
};

// What an engine of these arguments takes, without starting it.
struct EngineNeeds {
  DecoderSpec spec;
  int64_t weight_bytes = 0;  // of all weights in the chosen dtype
  int64_t block_bytes = 0;   // of a KV block, all layers
};
Result<EngineNeeds> engine_needs(const EngineArgs& args);

// Shows progress while it loads. Errors name the file, flag or size that is wrong.
Result<LocalEngine> start_local_engine(const EngineArgs& args);

}  // namespace millrace
