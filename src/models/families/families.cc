#include "models/families/families.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <set>

#include "base/text.h"

namespace millrace {
namespace {

constexpr const Family* kFamilies[] = {&kLlama,
                                       &kMistral,
                                       &kMixtral,
                                       &kQwen,
                                       &kQwen2,
                                       &kQwen2Moe,
                                       &kQwen3,
                                       &kQwen3Moe,
                                       &kGemma,
                                       &kGemma2,
                                       &kBaichuan,
                                       &kBaichuanAlibi,
                                       &kChatGlm,
                                       &kChatGlmMultiHead,
                                       &kGlm,
                                       &kGlm4,
                                       &kFalcon,
                                       &kFalconOneNorm,
                                       &kFalconMultiQuery,
                                       &kFalconSequential,
                                       &kDeepSeekV2,
                                       &kDeepSeekV3,
                                       &kInternLm2,
                                       &kPhi3,
                                       &kGpt2};

// Attributes that every configuration class of the reference has and that no decoder's forward pass reads.
const std::set<std::string, std::less<>> kHarmlessKeys = {"_attn_implementation",
                                                          "_attn_implementation_autoset",
                                                          "_commit_hash",
                                                          "compression_config",
                                                          "quantization_config",
                                                          "_from_model_config",
                                                          "_name_or_path",
                                                          "architectures",
                                                          "attention_dropout",
                                                          "attn_implementation",
                                                          "auto_map",
                                                          "bad_words_ids",
                                                          "begin_suppress_tokens",
                                                          "chunk_size_feed_forward",
                                                          "decoder_start_token_id",
                                                          "diversity_penalty",
                                                          "do_sample",
                                                          "early_stopping",
                                                          "encoder_no_repeat_ngram_size",
                                                          "eos_token",
                                                          "exponential_decay_length_penalty",
                                                          "finetuning_task",
                                                          "forced_bos_token_id",
                                                          "forced_eos_token_id",
                                                          "gradient_checkpointing",
                                                          "hidden_dropout",
                                                          "id2label",
                                                          "initializer_range",
                                                          "is_decoder",
                                                          "is_llama_config",
                                                          "label2id",
                                                          "length_penalty",
                                                          "max_length",
                                                          "min_length",
                                                          "model_type",
                                                          "no_repeat_ngram_size",
                                                          "num_beam_groups",
                                                          "num_beams",
                                                          "num_return_sequences",
                                                          "output_attentions",
                                                          "output_hidden_states",
                                                          "output_scores",
                                                          "pad_token_id",
                                                          "prefix",
                                                          "pretraining_tp",
                                                          "problem_type",
                                                          "remove_invalid_values",
                                                          "repetition_penalty",
                                                          "resid_pdrop",
                                                          "return_dict",
                                                          "return_dict_in_generate",
                                                          "sep_token_id",
                                                          "suppress_tokens",
                                                          "task_specific_params",
                                                          "temperature",
                                                          "tf_legacy_loss",
                                                          "tie_encoder_decoder",
                                                          "tokenizer_class",
                                                          "top_k",
                                                          "top_p",
                                                          "torchscript",
                                                          "transformers.js_config",
                                                          "transformers_version",
                                                          "typical_p",
                                                          "unsloth_fixed",
                                                          "unsloth_version",
                                                          "use_bfloat16",
                                                          "use_cache"};

// Keys of other decoders' arithmetic. A family that implements one maps it in its own rows, which come first.
const std::vector<RefusedRow> kRefused = {
    {"is_encoder_decoder", {false}, "only decoder-only models are served"},
    {"add_cross_attention", {false}, "cross-attention is not part of this family"},
    {"cross_attention_hidden_size", {}, "cross-attention is not part of this family"},
    {"pruned_heads", {Json::object()}, "models with heads removed are not supported"},
    {"partial_rotary_factor", {1}, "this family rotates whole heads"},
    {"rotary_pct", {1}, "this family rotates whole heads"},
    {"rope_interleaved", {false}, "this family rotates halves of heads, not neighbours"},
    {"alibi", {false}, "this family has no linear position biases"},
    {"use_alibi", {false}, "this family has no linear position biases"},
    {"attn_logit_softcapping", {}, "this family does not cap attention scores"},
    {"final_logit_softcapping", {}, "this family does not cap its logits"},
    {"logit_scale", {1}, "this family does not scale its logits"},
    {"logits_scaling", {1}, "this family does not scale its logits"},
    {"embedding_multiplier", {1}, "this family does not scale its embeddings"},
    {"residual_multiplier", {1}, "this family does not scale its residuals"},
    {"attention_multiplier", {}, "this family scales scores by 1/sqrt(head_dim)"},
    {"query_pre_attn_scalar", {}, "this family scales scores by 1/sqrt(head_dim)"},
    {"clip_qkv", {}, "this family does not clip q, k and v"},
    {"use_qk_norm", {false}, "this family does not normalise q and k"},
    {"qk_layernorm", {false}, "this family does not normalise q and k"},
    {"use_logn_attn", {false}, "this family does not scale q with the length"},
    {"use_parallel_residual", {false}, "this family adds attention before the feed-forward part"},
    {"parallel_attn", {false}, "this family adds attention before the feed-forward part"},
    {"num_experts", {0, 1}, "this family has no experts"},
    {"num_local_experts", {0, 1}, "this family has no experts"},
    {"n_routed_experts", {0}, "this family has no experts"},
    {"vision_config", {}, "this family has no vision part"},
    {"mm_vision_tower", {}, "this family has no vision part"},
};

// Walks the chain from `family` to its last ancestor.
template <class F>
void each_in_chain(const Family& family, F&& visit) {
  for (const Family* f = &family; f != nullptr; f = f->based_on) visit(*f);
}

std::string served_list() {
  std::vector<std::string> names;
  for (const Family* family : kFamilies)
    if (std::ranges::find(names, family->hf_architectures.front()) == names.end())
      names.push_back(family->hf_architectures.front());
  return fmt::format("{}", fmt::join(names, ", "));
}

std::vector<std::string> all_names(std::vector<std::string> Family::*list) {
  std::vector<std::string> names;
  for (const Family* family : kFamilies) names.insert(names.end(), (family->*list).begin(), (family->*list).end());
  return names;
}

bool lists(const Family& family, std::vector<std::string> Family::*list, std::string_view name) {
  return std::ranges::find(family.*list, name) != (family.*list).end();
}

bool holds(const Condition& condition, const Json& config) {
  const auto it = config.find(condition.key);
  const Json value = it == config.end() ? Json() : *it;
  return (condition.is.empty() || std::ranges::find(condition.is, value) != condition.is.end()) &&
         std::ranges::find(condition.is_not, value) == condition.is_not.end();
}

// The first family that lists the name and whose conditions hold; null if nobody lists it.
Result<const Family*> family_listing(std::vector<std::string> Family::*list, std::string_view name,
                                     const Json& config) {
  const Condition* failed = nullptr;  // of the family that holds longest
  int64_t longest = -1;
  for (const Family* family : kFamilies) {
    if (!lists(*family, list, name)) continue;
    const auto condition = std::ranges::find_if(family->when, [&](const auto& c) { return !holds(c, config); });
    if (condition == family->when.end()) return family;
    if (const int64_t held = condition - family->when.begin(); held > longest) {
      longest = held;
      failed = &*condition;
    }
  }
  if (!failed) return static_cast<const Family*>(nullptr);
  const auto it = config.find(failed->key);
  return unimplemented("config.json: {} is {}: no model of {} is served with that", failed->key,
                       it == config.end() ? "missing" : json_excerpt(*it), name);
}

Result<std::vector<std::string>> stated_architectures(const Json& config) {
  const auto it = config.find("architectures");
  if (it == config.end() || it->is_null()) return std::vector<std::string>{};
  std::vector<std::string> names;
  if (it->is_array())
    for (const Json& name : *it)
      if (name.is_string()) names.push_back(name.get<std::string>());
  if (!it->is_array() || names.size() != it->size())
    return invalid_argument("config.json: architectures is {}; it must be a list of class names", json_excerpt(*it));
  return names;
}

Result<std::string> stated_model_type(const Json& config) {
  const auto it = config.find("model_type");
  if (it == config.end() || it->is_null()) return std::string();
  if (!it->is_string())
    return invalid_argument("config.json: model_type is {}; it must be a string", json_excerpt(*it));
  return it->get<std::string>();
}

Status unknown_architecture(const std::vector<std::string>& names) {
  return unimplemented("config.json: architectures is [{}], which is not served; served are {}{}",
                       fmt::join(names, ", "), served_list(),
                       did_you_mean(names.front(), all_names(&Family::hf_architectures)));
}

Result<const Family*> family_of_model_type(const std::string& model_type, const Json& config) {
  if (model_type.empty())
    return invalid_argument("config.json: neither architectures nor model_type is stated; served are {}",
                            served_list());
  MR_ASSIGN_OR_RETURN(const Family* family, family_listing(&Family::model_types, model_type, config));
  if (family) return family;
  return unimplemented("config.json: model_type is {}, which is not served; served are {}{}", model_type,
                       fmt::join(all_names(&Family::model_types), ", "),
                       did_you_mean(model_type, all_names(&Family::model_types)));
}

}  // namespace

std::span<const Family* const> all_families() { return kFamilies; }

const Family* find_family(std::string_view name) {
  for (const Family* family : kFamilies)
    if (family->name == name) return family;
  return nullptr;
}

Result<const Family*> family_of_config(const Json& config, std::string* architecture) {
  if (!config.is_object()) return invalid_argument("config.json: holds {}; it must be an object", json_kind(config));
  MR_ASSIGN_OR_RETURN(const auto names, stated_architectures(config));
  MR_ASSIGN_OR_RETURN(const std::string model_type, stated_model_type(config));
  if (names.empty()) {
    MR_ASSIGN_OR_RETURN(const Family* family, family_of_model_type(model_type, config));
    if (architecture) *architecture = family->hf_architectures.front();
    return family;
  }
  for (const std::string& name : names) {
    MR_ASSIGN_OR_RETURN(const Family* family, family_listing(&Family::hf_architectures, name, config));
    if (!family) continue;
    const auto is_known = [&](const Family* f) { return lists(*f, &Family::model_types, model_type); };
    if (!is_known(family) && std::ranges::any_of(kFamilies, is_known))
      return invalid_argument("config.json: architectures says {} but model_type says {}; they must agree", name,
                              model_type);
    if (architecture) *architecture = name;
    return family;
  }
  return unknown_architecture(names);
}

std::vector<const ConfigRow*> config_rows(const Family& family) {
  std::vector<const ConfigRow*> rows;
  std::set<Field> taken;
  each_in_chain(family, [&](const Family& f) {
    std::set<Field> own;
    for (const FixedRow& row : f.fixed) own.insert(row.field);
    for (const ConfigRow& row : f.config) {
      if (taken.contains(row.field)) continue;
      rows.push_back(&row);
      own.insert(row.field);
    }
    taken.merge(own);
  });
  return rows;
}

std::vector<const FixedRow*> fixed_rows(const Family& family) {
  std::vector<const FixedRow*> rows;
  std::set<Field> taken;
  each_in_chain(family, [&](const Family& f) {
    for (const FixedRow& row : f.fixed)
      if (taken.insert(row.field).second) rows.push_back(&row);
    for (const ConfigRow& row : f.config) taken.insert(row.field);
  });
  return rows;
}

std::vector<const WeightRow*> weight_rows(const Family& family) {
  std::vector<const WeightRow*> rows;
  std::set<std::string> taken;
  each_in_chain(family, [&](const Family& f) {
    for (const WeightRow& row : f.weights)
      if (std::ranges::none_of(row.canonical, [&](const std::string& name) { return taken.contains(name); }))
        rows.push_back(&row);
    for (const WeightRow& row : f.weights) taken.insert(row.canonical.begin(), row.canonical.end());
  });
  return rows;
}

std::vector<const RefusedRow*> refused_rows(const Family& family) {
  std::vector<const RefusedRow*> rows;
  each_in_chain(family, [&](const Family& f) {
    for (const RefusedRow& row : f.refused) rows.push_back(&row);
  });
  for (const RefusedRow& row : kRefused) rows.push_back(&row);
  return rows;
}

bool is_harmless_key(const Family& family, std::string_view key) {
  bool harmless = kHarmlessKeys.contains(key);
  each_in_chain(family,
                [&](const Family& f) { harmless |= std::ranges::find(f.harmless_keys, key) != f.harmless_keys.end(); });
  return harmless;
}

bool is_harmless_tensor(const Family& family, std::string_view name) {
  bool harmless = false;
  each_in_chain(family, [&](const Family& f) {
    for (const std::string& pattern : f.harmless_tensors) harmless |= matches_pattern(pattern, name);
  });
  return harmless;
}

bool matches_pattern(std::string_view pattern, std::string_view name) {
  size_t p = 0, n = 0, star = std::string_view::npos, resume = 0;
  while (n < name.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++, resume = n;
    } else if (p < pattern.size() && pattern[p] == name[n]) {
      ++p, ++n;
    } else if (star != std::string_view::npos) {
      p = star + 1, n = ++resume;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

}  // namespace millrace
