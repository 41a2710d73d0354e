// What a family knows about text, joined with the tokenizer's files of a checkpoint.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "models/families/family.h"
#include "tokenizer/tokenizer.h"

namespace millrace {

// The tokenizer at `path`, of the family's class where no file there names one.
Result<std::shared_ptr<const Tokenizer>> load_tokenizer(const std::string& path, const Family& family);

// The family's chat format where the tokenizer's files have no chat template and the tokenizer has the format's tokens;
// else null. Lives as long as the family.
const FamilyChatFormat* family_chat_format(const Family& family, const Tokenizer& tokenizer);

// Ids of tokens that end an answer besides those the checkpoint's files state. A `format` in use says which; else the
// family does, where the checkpoint has no generation_config.json.
std::vector<int32_t> family_stop_ids(const Family& family, const Tokenizer& tokenizer, const FamilyChatFormat* format,
                                     bool has_generation_config);

}  // namespace millrace
