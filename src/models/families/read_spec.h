// From config.json to a DecoderSpec, by the rows of the family it names. Byte and number checks only; any thread.
#pragma once
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "models/families/family.h"
#include "models/families/spec.h"

namespace millrace {

// What a user may say against a config.json.
struct SpecOptions {
  std::optional<Json> rope_scaling;  // --rope-scaling: replaces the file's; an object, or null for none
  std::optional<double> rope_theta;  // --rope-theta
};

struct SpecReading {
  DecoderSpec spec;
  const Family* family = nullptr;
  bool dtype_stated = false;              // otherwise spec.dtype is float32 by default
  std::vector<std::string> unknown_keys;  // neither read nor known to be harmless: to be reported once
  std::vector<std::string> notes;         // sentences the user should see once
};

// Errors name the key, what was found and what is wanted ("config.json: num_attention_heads (30) is not divisible by
// num_key_value_heads (8)"): kUnimplemented for what is understood but not built, else kInvalidArgument.
Result<SpecReading> read_spec(const Json& config, const SpecOptions& options = {});

// Token ids of an eos_token_id value: an integer, a list of integers, or null. `where` names it in errors.
Result<std::vector<int32_t>> read_token_ids(const Json& value, const std::string& where);

}  // namespace millrace
