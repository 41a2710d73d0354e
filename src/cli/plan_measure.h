// The parts of `millrace plan`: the model it is about, and what runs it.
#pragma once
#include "base/json.h"
#include "engine/local/engine_args.h"
#include "engine/local/length_probe.h"

namespace millrace::cli {

// The config.json of a folder, that file itself, or the config of a well-known name.
Result<Json> find_config(const std::string& model);

struct MeasureArgs {
  EngineArgs engine;  // max_model_len: none or the longest length to try. A model that is a config alone is served with
                      // random weights
  LengthOptions load;
  double time_limit_s = 0;  // 0: none
  bool json = false;
};

// Prints a line for each length that served, and the longest. Stops at the first that does not serve, at the time limit
// or on SIGINT; not ok if no length served or it was interrupted.
Status measure_lengths(MeasureArgs args);

}  // namespace millrace::cli
