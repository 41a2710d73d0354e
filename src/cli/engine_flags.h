// The flags that every command with a model takes, bound to EngineArgs.
#pragma once
#include "cli/command.h"
#include "engine/local/engine_args.h"

namespace millrace::cli {

// `positional_model`: the model may also be given as the first argument, as in `vllm serve MODEL`.
void add_engine_flags(CLI::App& app, EngineArgs& args, bool positional_model);

// What flags cannot check one by one: the model is given, values fit together; environment variables are applied.
Status finish_engine_args(EngineArgs& args);

}  // namespace millrace::cli
