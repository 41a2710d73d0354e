// The families that are served, and how one is found. Any thread.
#pragma once
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "models/families/family.h"

namespace millrace {

extern const Family kBaichuan, kBaichuanAlibi;
extern const Family kChatGlm, kChatGlmMultiHead;
extern const Family kDeepSeekV2, kDeepSeekV3;
extern const Family kFalcon, kFalconOneNorm, kFalconMultiQuery, kFalconSequential;
extern const Family kGemma, kGemma2;
extern const Family kGlm, kGlm4;
extern const Family kGpt2;
extern const Family kInternLm2;
extern const Family kLlama;
extern const Family kMistral, kMixtral;
extern const Family kPhi3;
extern const Family kQwen, kQwen2, kQwen2Moe, kQwen3, kQwen3Moe;

std::span<const Family* const> all_families();
// By Family::name; null if there is none.
const Family* find_family(std::string_view name);
// The family of a config.json: by `architectures`, else by `model_type`; of several with one class, the first whose
// `when` holds. The error lists what is served and names the
// nearest. `architecture`, if not null, receives the class the file states (the family's first one if it states none).
Result<const Family*> family_of_config(const Json& config, std::string* architecture = nullptr);

// The rows in force: the family's own and, for fields and canonical names it says nothing about, those it is based on.
std::vector<const ConfigRow*> config_rows(const Family& family);
std::vector<const FixedRow*> fixed_rows(const Family& family);
std::vector<const WeightRow*> weight_rows(const Family& family);
std::vector<const RefusedRow*> refused_rows(const Family& family);
bool is_harmless_key(const Family& family, std::string_view key);
bool is_harmless_tensor(const Family& family, std::string_view name);

// Whether `name` fits `pattern`, in which `*` stands for any run of characters.
bool matches_pattern(std::string_view pattern, std::string_view name);

}  // namespace millrace
