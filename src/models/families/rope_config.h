// How a config.json (or --rope-scaling) states the scaling of rotary positions. Byte and number checks only; any
// thread.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "models/families/spec.h"

namespace millrace {

struct RopeRequest {
  int64_t dims = 0;  // rotated elements per head, even
  int64_t max_position_embeddings = 0;
  double theta = 10000;                    // of the family's row; rope_parameters and theta_override come before it
  bool theta_stated = false;               // the row's key is in config.json
  const Json* scaling_override = nullptr;  // replaces what config.json says; an object or JSON null ("none")
  std::optional<double> theta_override;
  double rotary_fraction = 1;       // of each head that turns
  bool longrope_switches = false;   // short_factor up to the original length and long_factor beyond it, in any layout
  bool yarn_stated_length = false;  // yarn counts rotations over original_max_position_embeddings in any layout
  bool yarn_score_scale = false;    // mscale_all_dim scales scores (RopeReading::score_scale), as in DeepSeek-V2
};

struct RopeReading {
  Rope rope;
  int64_t max_positions = 0;              // longest sequence promised, scaling included
  double score_scale = 1;                 // multiplies the scores of q and k
  bool length_unbounded = false;          // see DecoderSpec
  std::vector<std::string> unknown_keys;  // "rope_scaling.<key>": read by nobody
  std::vector<std::string> notes;         // sentences the user should see once
};

// Reads `rope_scaling` (rules of transformers 4.46.3) or `rope_parameters` (rules of transformers 5). They differ in
// two points. Yarn: the former counts rotations over max_position_embeddings whatever original_max_position_embeddings
// says, the latter over original_max_position_embeddings. Longrope: the former uses long_factor at every length, the
// latter only beyond the original one. An override follows the latter for yarn and the former for longrope.
Result<RopeReading> read_rope(const Json& config, const RopeRequest& request);

}  // namespace millrace
