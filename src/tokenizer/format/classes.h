// What published tokenizer classes do in their code, so that no file of a checkpoint states it.
#pragma once
#include <string>

#include "tokenizer/format/config.h"
#include "tokenizer/format/parts.h"

namespace millrace {

// Whether the class builds what stands around a text from add_bos_token and add_eos_token, whatever the file says.
bool rebuilds_template(const std::string& tokenizer_class);

// Adds what the configuration's class knows about a sentencepiece model: special tokens and a prefix. `folder` is the
// model's; a remote class's source there is searched for names, never run.
void add_class_facts(const TokenizerConfig& config, const std::string& folder, TokenizerParts& parts);

// ChatGLM's tokens "sop" and "eop" are parts of words too: in a text they count only behind [gMASK].
void guard_wordlike_tokens(TokenizerParts& parts);

}  // namespace millrace
