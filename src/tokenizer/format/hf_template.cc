// Post-processors and decoders of tokenizer.json.
#include <array>

#include "tokenizer/format/hf_json.h"

namespace millrace {
namespace {

constexpr int kMaxSequenceDepth = 16;
constexpr size_t kMaxTemplateIds = 4096;

// Puts `inner` where `outer` says the text goes.
Result<Template> nest(const Template& outer, const Template& inner, const JsonNode& node) {
  Template out;
  for (const int32_t item : outer) {
    if (item == kText)
      out.insert(out.end(), inner.begin(), inner.end());
    else
      out.push_back(item);
    if (out.size() > kMaxTemplateIds)
      return invalid_argument("{}: puts more than {} tokens around a text", node.path(), kMaxTemplateIds);
  }
  return out;
}

// ["[CLS]", 101]
Result<int32_t> read_token_and_id(const JsonNode& node) {
  MR_ASSIGN_OR_RETURN(const std::vector<JsonNode> pair, node.list());
  if (pair.size() != 2) return node.wrong("a token and its id");
  MR_ASSIGN_OR_RETURN(const int64_t id, pair[1].integer(0, Vocabulary::kMaxIds - 1));
  return static_cast<int32_t>(id);
}

Result<Template> read_cls_and_sep(const JsonNode& node) {
  MR_ASSIGN_OR_RETURN(const JsonNode cls_node, node.at("cls"));
  MR_ASSIGN_OR_RETURN(const JsonNode sep_node, node.at("sep"));
  MR_ASSIGN_OR_RETURN(const int32_t cls, read_token_and_id(cls_node));
  MR_ASSIGN_OR_RETURN(const int32_t sep, read_token_and_id(sep_node));
  return Template{cls, kText, sep};
}

Status append_special(const JsonNode& root, const JsonNode& piece, Template& out) {
  MR_ASSIGN_OR_RETURN(const JsonNode name_node, piece.at("id"));
  MR_ASSIGN_OR_RETURN(const std::string name, name_node.string());
  MR_ASSIGN_OR_RETURN(const JsonNode tokens, root.at("special_tokens"));
  MR_ASSIGN_OR_RETURN(const JsonNode token, tokens.at(name));
  MR_ASSIGN_OR_RETURN(const JsonNode ids_node, token.at("ids"));
  MR_ASSIGN_OR_RETURN(const std::vector<JsonNode> ids, ids_node.list());
  for (const JsonNode& item : ids) {
    MR_ASSIGN_OR_RETURN(const int64_t id, item.integer(0, Vocabulary::kMaxIds - 1));
    out.push_back(static_cast<int32_t>(id));
  }
  return {};
}

Result<Template> read_template(const JsonNode& node) {
  MR_ASSIGN_OR_RETURN(const JsonNode single, node.at("single"));
  MR_ASSIGN_OR_RETURN(const std::vector<JsonNode> pieces, single.list());
  Template out;
  for (const JsonNode& piece : pieces) {
    if (const auto special = piece.find("SpecialToken")) {
      MR_RETURN_IF_ERROR(append_special(node, *special, out));
    } else if (piece.find("Sequence")) {
      out.push_back(kText);
    } else {
      return piece.wrong("an object with 'SpecialToken' or 'Sequence'");
    }
    if (out.size() > kMaxTemplateIds)
      return invalid_argument("{}: puts more than {} tokens around a text", node.path(), kMaxTemplateIds);
  }
  return out;
}

Result<Template> post_processor_of(const JsonNode& node, int depth) {
  if (depth > kMaxSequenceDepth) return invalid_argument("{}: sequences nest too deep", node.path());
  MR_ASSIGN_OR_RETURN(const JsonNode type_node, node.at("type"));
  MR_ASSIGN_OR_RETURN(const std::string type, type_node.string());
  if (type == "ByteLevel") return Template{kText};  // moves offsets only
  if (type == "TemplateProcessing") return read_template(node);
  if (type == "BertProcessing" || type == "RobertaProcessing") return read_cls_and_sep(node);
  if (type != "Sequence") return unimplemented("{}: post-processor '{}' is not known", type_node.path(), type);
  MR_ASSIGN_OR_RETURN(const JsonNode list_node, node.at("processors"));
  MR_ASSIGN_OR_RETURN(const std::vector<JsonNode> list, list_node.list());
  Template out = {kText};
  for (const JsonNode& item : list) {
    MR_ASSIGN_OR_RETURN(const Template outer, post_processor_of(item, depth + 1));
    MR_ASSIGN_OR_RETURN(out, nest(outer, out, item));
  }
  return out;
}

using DecoderReader = Result<DecoderPtr> (*)(const JsonNode& node);

Result<DecoderPtr> read_strip(const JsonNode& node) {
  MR_ASSIGN_OR_RETURN(const char32_t content, node.character_or("content", U' '));
  MR_ASSIGN_OR_RETURN(const int64_t start, node.integer_or("start", 0, 0, INT32_MAX));
  MR_ASSIGN_OR_RETURN(const int64_t stop, node.integer_or("stop", 0, 0, INT32_MAX));
  return strip_decoder(content, static_cast<size_t>(start), static_cast<size_t>(stop));
}

Result<DecoderPtr> read_replace(const JsonNode& node) {
  MR_ASSIGN_OR_RETURN(const JsonNode pattern_node, node.at("pattern"));
  MR_ASSIGN_OR_RETURN(Pattern pattern, read_pattern(pattern_node));
  MR_ASSIGN_OR_RETURN(std::string content, node.string_or("content", ""));
  return replace_decoder(std::move(pattern), std::move(content));
}

Result<DecoderPtr> read_metaspace(const JsonNode& node) {
  MR_ASSIGN_OR_RETURN(const char32_t mark, node.character_or("replacement", U'\u2581'));
  MR_ASSIGN_OR_RETURN(const bool add_prefix, node.boolean_or("add_prefix_space", true));
  MR_ASSIGN_OR_RETURN(const std::string scheme, node.string_or("prepend_scheme", add_prefix ? "always" : "never"));
  return metaspace_decoder(mark, scheme != "never");
}

Result<DecoderPtr> read_wordpiece(const JsonNode& node) {
  MR_ASSIGN_OR_RETURN(std::string prefix, node.string_or("prefix", "##"));
  MR_ASSIGN_OR_RETURN(const bool cleanup, node.boolean_or("cleanup", true));
  return wordpiece_decoder(std::move(prefix), cleanup);
}

Result<DecoderPtr> read_bpe(const JsonNode& node) {
  MR_ASSIGN_OR_RETURN(std::string suffix, node.string_or("suffix", "</w>"));
  return bpe_decoder(std::move(suffix));
}

Result<DecoderPtr> read_ctc(const JsonNode& node) {
  MR_ASSIGN_OR_RETURN(std::string pad, node.string_or("pad_token", "<pad>"));
  MR_ASSIGN_OR_RETURN(std::string delimiter, node.string_or("word_delimiter_token", "|"));
  MR_ASSIGN_OR_RETURN(const bool cleanup, node.boolean_or("cleanup", true));
  return ctc_decoder(std::move(pad), std::move(delimiter), cleanup);
}

struct DecoderRow {
  std::string_view type;
  DecoderReader read;
};
constexpr std::array<DecoderRow, 9> kDecoders = {{
    {"ByteLevel", [](const JsonNode&) -> Result<DecoderPtr> { return byte_level_decoder(); }},
    {"ByteFallback", [](const JsonNode&) -> Result<DecoderPtr> { return byte_fallback_decoder(); }},
    {"Fuse", [](const JsonNode&) -> Result<DecoderPtr> { return fuse_decoder(); }},
    {"Strip", read_strip},
    {"Replace", read_replace},
    {"Metaspace", read_metaspace},
    {"WordPiece", read_wordpiece},
    {"BPEDecoder", read_bpe},
    {"CTC", read_ctc},
}};

Status append_decoder(const JsonNode& node, int depth, std::vector<DecoderPtr>& out) {
  if (depth > kMaxSequenceDepth) return invalid_argument("{}: sequences nest too deep", node.path());
  MR_ASSIGN_OR_RETURN(const JsonNode type_node, node.at("type"));
  MR_ASSIGN_OR_RETURN(const std::string type, type_node.string());
  if (type == "Sequence") {
    MR_ASSIGN_OR_RETURN(const JsonNode list_node, node.at("decoders"));
    MR_ASSIGN_OR_RETURN(const std::vector<JsonNode> list, list_node.list());
    for (const JsonNode& item : list) MR_RETURN_IF_ERROR(append_decoder(item, depth + 1, out));
    return {};
  }
  for (const DecoderRow& row : kDecoders) {
    if (row.type != type) continue;
    MR_ASSIGN_OR_RETURN(DecoderPtr decoder, row.read(node));
    out.push_back(std::move(decoder));
    return {};
  }
  return unimplemented("{}: decoder '{}' is not known", type_node.path(), type);
}

}  // namespace

Result<Template> read_post_processor(const JsonNode& node) { return post_processor_of(node, 0); }

Result<std::vector<DecoderPtr>> read_decoder(const JsonNode& node) {
  std::vector<DecoderPtr> decoders;
  MR_RETURN_IF_ERROR(append_decoder(node, 0, decoders));
  return decoders;
}

}  // namespace millrace
