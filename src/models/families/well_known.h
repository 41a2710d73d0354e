// Checkpoints that many people run: the part of their public config.json that the arithmetic depends on, and how many
// parameters their authors say they have. Constant after first use; any thread.
#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace millrace {

struct WellKnownModel {
  std::string name;            // as on the Hugging Face hub: "Qwen/Qwen2.5-7B"
  double billions = 0;         // parameters, as published, a tied matrix once
  double active_billions = 0;  // of one token, as published; 0: not stated, or all of them
  Json config;
};

// In the order of families and, within one, of size.
const std::vector<WellKnownModel>& well_known_models();
// By its whole name or what follows the slash, upper and lower case alike; null if there is none.
const WellKnownModel* find_well_known(std::string_view name);
// "; did you mean 'Qwen/Qwen2.5-7B'?" or "".
std::string nearest_well_known(std::string_view name);

}  // namespace millrace
