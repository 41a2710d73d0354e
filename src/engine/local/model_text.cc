#include "engine/local/model_text.h"

#include <algorithm>

namespace millrace {

Result<std::shared_ptr<const Tokenizer>> load_tokenizer(const std::string& path, const Family& family) {
  return Tokenizer::load(path, family.text.tokenizer_class);
}

const FamilyChatFormat* family_chat_format(const Family& family, const Tokenizer& tokenizer) {
  if (tokenizer.default_chat_template()) return nullptr;
  const auto has = [&](const std::string& token) { return tokenizer.token_id(token).has_value(); };
  for (const FamilyChatFormat& format : family.text.chat_formats)
    if (std::ranges::all_of(format.needs, has)) return &format;
  return nullptr;
}

std::vector<int32_t> family_stop_ids(const Family& family, const Tokenizer& tokenizer, const FamilyChatFormat* format,
                                     bool has_generation_config) {
  std::vector<int32_t> ids;
  const auto add = [&](const std::vector<std::string>& spellings) {
    for (const std::string& spelling : spellings)
      if (const auto id = tokenizer.token_id(spelling); id && std::ranges::find(ids, *id) == ids.end())
        ids.push_back(*id);
  };
  if (!has_generation_config) add(family.text.stop);
  if (format) add(format->stop);
  return ids;
}

}  // namespace millrace
