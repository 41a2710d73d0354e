// Sizes of public models, and of small ones, from which new checkpoints with random weights are made. Any thread.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"

namespace millrace {

// "qwen2/qwen2.5-0.5b", ...: every preset as family/size. "demo" (about 1.6 million parameters) and "tiny" (two small
// layers) exist for every family.
std::vector<std::string> preset_names();

// A complete config.json of that family and size, every key of the family's rows stated. An empty family means the one
// that has a preset of that name. The vocabulary of "demo" and "tiny" is 320 ids, of which 256 to 319 are for special
// tokens; whoever writes the tokenizer sets vocab_size, bos_token_id and eos_token_id to what it has.
Result<Json> preset_config(std::string_view family, std::string_view size);

}  // namespace millrace
