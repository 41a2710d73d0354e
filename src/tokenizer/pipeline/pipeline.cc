#include "tokenizer/pipeline/pipeline.h"

#include "tokenizer/text/unicode.h"

namespace millrace {
namespace {
// Pre-tokenizers may write three bytes for one, and pieces are counted in 32 bits.
constexpr size_t kMaxNormalizedBytes = size_t{1} << 30;
}  // namespace

Status Pipeline::encode(std::string_view text, bool parse_special, ModelScratch& scratch,
                        std::vector<int32_t>& ids) const {
  std::vector<AddedTokens::Section> sections;
  added.cut_given(text, parse_special, sections);
  for (const auto& [range, id] : sections) {
    if (id >= 0)
      ids.push_back(id);
    else
      MR_RETURN_IF_ERROR(encode_section(text.substr(range.begin, range.end - range.begin), range.begin == 0,
                                        parse_special, scratch, ids));
  }
  return {};
}

Status Pipeline::encode_section(std::string_view text, bool at_start, bool parse_special, ModelScratch& scratch,
                                std::vector<int32_t>& ids) const {
  std::string rewritten;
  if (normalizer && !(normalizer->keeps_ascii() && is_ascii(text))) {
    rewritten = text;
    MR_RETURN_IF_ERROR(normalizer->run(rewritten, at_start));
    text = rewritten;
    if (text.size() > kMaxNormalizedBytes)
      return resource_exhausted("the normalized text has {} bytes; at most {} can be tokenized at once", text.size(),
                                kMaxNormalizedBytes);
  }
  std::vector<AddedTokens::Section> sections;
  added.cut_normalized(text, parse_special, sections);
  for (const auto& [range, id] : sections) {
    if (id >= 0)
      ids.push_back(id);
    else
      MR_RETURN_IF_ERROR(encode_normalized(text.substr(range.begin, range.end - range.begin),
                                           at_start && range.begin == 0, scratch, ids));
  }
  return {};
}

Status Pipeline::encode_normalized(std::string_view text, bool at_start, ModelScratch& scratch,
                                   std::vector<int32_t>& ids) const {
  PieceList list;
  list.text = text;
  list.at_start = at_start;
  list.pieces = {{0, static_cast<uint32_t>(text.size())}};
  for (const PreTokenizerPtr& step : pre_tokenizers) MR_RETURN_IF_ERROR(step->run(list));
  return model->encode(list, scratch, ids);
}

}  // namespace millrace
