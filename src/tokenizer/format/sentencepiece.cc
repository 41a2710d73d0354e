#include "tokenizer/format/sentencepiece.h"

#include <cmath>

#include "tokenizer/format/protobuf.h"
#include "tokenizer/model/unigram.h"
#include "tokenizer/text/sentencepiece_normalizer.h"
#include "tokenizer/text/unicode.h"

namespace millrace {
namespace {

constexpr size_t kMaxPieceBytes = 1024;

// Field numbers of sentencepiece_model.proto.
struct Spec {
  enum ModelField : uint32_t { kPieces = 1, kTrainer = 2, kNormalizer = 3 };
  enum PieceField : uint32_t { kText = 1, kScore = 2, kType = 3 };
  enum TrainerField : uint32_t {
    kModelType = 3,
    kWhitespaceAsSuffix = 24,
    kByteFallback = 35,
    kUnkId = 40,
    kBosId = 41,
    kEosId = 42,
    kPadId = 43
  };
  enum NormalizerField : uint32_t { kCharsMap = 2, kAddDummyPrefix = 3, kRemoveExtraWhitespaces = 4, kEscape = 5 };
};

struct Message {
  std::vector<Vocabulary::Entry> entries;
  std::vector<float> scores;
  std::vector<PieceType> types;
  uint64_t model_type = 1;
  bool byte_fallback = false;
  int32_t unk_id = 0, bos_id = 1, eos_id = 2, pad_id = -1;
  std::string_view chars_map;
  SentencePieceNormalizerOptions normalizer;
};

Status broken(const ProtobufReader& reader, std::string_view what) {
  return data_loss("{}: not a protobuf message from byte {} on; it is truncated or of another format", what,
                   reader.position());
}

Status read_piece(std::string_view bytes, Message& message) {
  ProtobufReader reader(bytes);
  std::string text;
  float score = 0;
  uint64_t type = 1;
  while (const auto field = reader.next()) {
    if (field->number == Spec::kText) text = field->bytes;
    if (field->number == Spec::kScore) score = field->as_float();
    if (field->number == Spec::kType) type = field->value;
  }
  const size_t id = message.entries.size();
  if (!reader.ok()) return broken(reader, fmt::format("piece {}", id));
  if (type < 1 || type > 6) return invalid_argument("piece {}: found type {}, wanted 1 to 6", id, type);
  if (text.size() > kMaxPieceBytes)
    return invalid_argument("piece {} has {} bytes; at most {} are allowed", id, text.size(), kMaxPieceBytes);
  if (!is_valid_utf8_fast(text)) return invalid_argument("piece {} is not valid UTF-8", id);
  if (!std::isfinite(score)) return invalid_argument("piece {} ('{}') has score {}", id, text, score);
  if (id >= Vocabulary::kMaxIds) return invalid_argument("there are more than {} pieces", Vocabulary::kMaxIds);
  message.entries.emplace_back(std::move(text), static_cast<int32_t>(id));
  message.scores.push_back(score);
  message.types.push_back(static_cast<PieceType>(type));
  return {};
}

Status read_trainer(std::string_view bytes, Message& message) {
  ProtobufReader reader(bytes);
  while (const auto field = reader.next()) {
    const auto id = static_cast<int32_t>(field->value);
    if (field->number == Spec::kModelType) message.model_type = field->value;
    if (field->number == Spec::kWhitespaceAsSuffix) message.normalizer.whitespace_as_suffix = field->value != 0;
    if (field->number == Spec::kByteFallback) message.byte_fallback = field->value != 0;
    if (field->number == Spec::kUnkId) message.unk_id = id;
    if (field->number == Spec::kBosId) message.bos_id = id;
    if (field->number == Spec::kEosId) message.eos_id = id;
    if (field->number == Spec::kPadId) message.pad_id = id;
  }
  return reader.ok() ? Status() : broken(reader, "trainer_spec");
}

Status read_normalizer_spec(std::string_view bytes, Message& message) {
  ProtobufReader reader(bytes);
  while (const auto field = reader.next()) {
    if (field->number == Spec::kCharsMap) message.chars_map = field->bytes;
    if (field->number == Spec::kAddDummyPrefix) message.normalizer.add_dummy_prefix = field->value != 0;
    if (field->number == Spec::kRemoveExtraWhitespaces) message.normalizer.remove_extra_whitespaces = field->value != 0;
    if (field->number == Spec::kEscape) message.normalizer.escape_whitespaces = field->value != 0;
  }
  return reader.ok() ? Status() : broken(reader, "normalizer_spec");
}

Result<Message> read_message(std::string_view bytes) {
  Message message;
  ProtobufReader reader(bytes);
  while (const auto field = reader.next()) {
    if (field->number == Spec::kPieces) MR_RETURN_IF_ERROR(read_piece(field->bytes, message));
    if (field->number == Spec::kTrainer) MR_RETURN_IF_ERROR(read_trainer(field->bytes, message));
    if (field->number == Spec::kNormalizer) MR_RETURN_IF_ERROR(read_normalizer_spec(field->bytes, message));
  }
  if (!reader.ok()) return broken(reader, "the model");
  if (message.entries.empty()) return data_loss("the sentencepiece model has no pieces");
  return message;
}

// The unknown piece is the one of that type; the trainer's id names it only if they agree.
Result<int32_t> unknown_id(const Message& message) {
  for (size_t id = 0; id < message.types.size(); ++id)
    if (message.types[id] == PieceType::kUnknown) return static_cast<int32_t>(id);
  return data_loss("the sentencepiece model has no piece of type unknown");
}

std::string piece_at(const Message& message, int32_t id, PieceType type) {
  if (id < 0 || static_cast<size_t>(id) >= message.entries.size()) return "";
  const auto at = static_cast<size_t>(id);
  return message.types[at] == type ? message.entries[at].first : "";
}

void add_special_pieces(const Message& message, TokenizerParts& parts) {
  for (size_t id = 0; id < message.entries.size(); ++id) {
    if (message.types[id] != PieceType::kControl && message.types[id] != PieceType::kUnknown) continue;
    AddedToken token;
    token.content = message.entries[id].first;
    token.id = static_cast<int32_t>(id);
    token.special = true;
    parts.added.push_back(std::move(token));
  }
}

Result<std::unique_ptr<const Model>> make_model(const Message& message, int32_t unk_id) {
  SentencePieces pieces;
  MR_ASSIGN_OR_RETURN(pieces.vocabulary, Vocabulary::build(message.entries));
  pieces.scores = message.scores;
  pieces.types = message.types;
  pieces.unk_id = unk_id;
  pieces.byte_fallback = message.byte_fallback;
  if (message.model_type == 2) return make_sentencepiece_bpe(std::move(pieces));
  if (message.model_type == 1) return make_sentencepiece_unigram(std::move(pieces));
  return unimplemented("trainer_spec.model_type is {}; 1 (Unigram) and 2 (BPE) are known", message.model_type);
}

void add_decoders(const Message& message, TokenizerParts& parts) {
  parts.decoders.push_back(replace_decoder(Pattern::literal("\xe2\x96\x81"), " "));
  if (message.byte_fallback) parts.decoders.push_back(byte_fallback_decoder());
  parts.decoders.push_back(fuse_decoder());
  if (message.normalizer.add_dummy_prefix) parts.decoders.push_back(strip_decoder(U' ', 1, 0));
}

}  // namespace

bool looks_like_sentencepiece(std::string_view bytes) {
  ProtobufReader reader(bytes);
  const auto first = reader.next();
  return first && first->number == Spec::kPieces && !first->bytes.empty();
}

Result<TokenizerParts> read_sentencepiece(std::string_view bytes, bool prefix_only_at_start) {
  MR_ASSIGN_OR_RETURN(Message message, read_message(bytes));
  MR_ASSIGN_OR_RETURN(const int32_t unk_id, unknown_id(message));
  TokenizerParts parts;
  MR_ASSIGN_OR_RETURN(parts.model, make_model(message, unk_id));
  parts.kind = message.model_type == 2 ? "sentencepiece BPE" : "sentencepiece Unigram";
  parts.names.unk = message.entries[static_cast<size_t>(unk_id)].first;
  parts.names.bos = piece_at(message, message.bos_id, PieceType::kControl);
  parts.names.eos = piece_at(message, message.eos_id, PieceType::kControl);
  parts.names.pad = piece_at(message, message.pad_id, PieceType::kControl);
  add_special_pieces(message, parts);
  add_decoders(message, parts);
  Result<CharsMap> map = CharsMap::parse(message.chars_map);
  if (!map.ok()) return map.status().at("normalizer_spec");
  message.normalizer.prefix_only_at_start = prefix_only_at_start;
  for (size_t id = 0; id < message.entries.size(); ++id)
    if (message.types[id] == PieceType::kUserDefined)
      message.normalizer.user_defined.push_back(message.entries[id].first);
  parts.normalizer = sentencepiece_normalizer(std::move(map).value(), std::move(message.normalizer));
  return parts;
}

}  // namespace millrace
