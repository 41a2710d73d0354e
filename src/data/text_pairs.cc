#include "data/text_pairs.h"

#include <nlohmann/json.hpp>
#include <optional>

#include "base/file.h"
#include "base/json.h"
#include "base/text.h"

namespace millrace::data {
namespace {

constexpr size_t kMaxFileBytes = size_t{4} << 30;
constexpr const char* kNames[] = {"sharegpt", "alpaca", "custom", "human-eval", "spec-bench"};

Result<std::string> text_at(const Json& row, const char* key, bool required = true) {
  const auto found = row.find(key);
  if (found == row.end() && !required) return std::string();
  if (found == row.end()) return invalid_argument("\"{}\" is missing", key);
  if (!found->is_string()) return invalid_argument("\"{}\" is {}; a string is wanted", key, json_kind(*found));
  return found->get<std::string>();
}

// Nothing for conversations of fewer than two turns.
Result<std::optional<TextPair>> sharegpt_pair(const Json& row) {
  const auto turns = row.find("conversations");
  if (turns == row.end() || !turns->is_array()) return invalid_argument("\"conversations\" is missing or no list");
  if (turns->size() < 2) return std::optional<TextPair>();
  if (!(*turns)[0].is_object() || !(*turns)[1].is_object())
    return invalid_argument("a turn of \"conversations\" is no object");
  MR_ASSIGN_OR_RETURN(std::string prompt, text_at((*turns)[0], "value"));
  MR_ASSIGN_OR_RETURN(std::string reference, text_at((*turns)[1], "value"));
  return std::optional<TextPair>({std::move(prompt), std::move(reference)});
}

std::string alpaca_template(const std::string& instruction, const std::string& input) {
  if (input.empty())
    return "Below is an instruction that describes a task. Write a response that appropriately completes the "
           "request.\n\n### Instruction:\n" +
           instruction + "\n\n### Response:";
  return "Below is an instruction that describes a task, paired with an input that provides further context. Write a "
         "response that appropriately completes the request.\n\n### Instruction:\n" +
         instruction + "\n\n### Input:\n" + input + "\n\n### Response:";
}

Result<std::optional<TextPair>> alpaca_pair(const Json& row, AlpacaPrompt wanted) {
  MR_ASSIGN_OR_RETURN(std::string input, text_at(row, "input", false));
  MR_ASSIGN_OR_RETURN(std::string output, text_at(row, "output"));
  if (wanted == AlpacaPrompt::kInput) return std::optional<TextPair>({std::move(input), std::move(output)});
  MR_ASSIGN_OR_RETURN(const std::string instruction, text_at(row, "instruction"));
  return std::optional<TextPair>({alpaca_template(instruction, input), std::move(output)});
}

Result<std::optional<TextPair>> custom_pair(const Json& row) {
  const char* prompt_key = row.contains("prompt") ? "prompt" : "input";
  const char* answer_key = row.contains("completion") ? "completion" : "output";
  MR_ASSIGN_OR_RETURN(std::string prompt, text_at(row, prompt_key));
  MR_ASSIGN_OR_RETURN(std::string reference, text_at(row, answer_key, false));
  return std::optional<TextPair>({std::move(prompt), std::move(reference)});
}

Result<std::optional<TextPair>> human_eval_pair(const Json& row) {
  MR_ASSIGN_OR_RETURN(std::string prompt, text_at(row, "prompt"));
  MR_ASSIGN_OR_RETURN(std::string reference, text_at(row, "canonical_solution"));
  return std::optional<TextPair>({std::move(prompt), std::move(reference)});
}

Result<std::optional<TextPair>> spec_bench_pair(const Json& row) {
  const auto turns = row.find("turns");
  if (turns == row.end() || !turns->is_array() || turns->empty() || !turns->front().is_string())
    return invalid_argument("\"turns\" must be a list that begins with a text");
  return std::optional<TextPair>({turns->front().get<std::string>(), ""});
}

Result<std::optional<TextPair>> pair_of(const Json& row, PairFormat format, AlpacaPrompt alpaca) {
  if (!row.is_object()) return invalid_argument("{}; an object is wanted", json_kind(row));
  switch (format) {
    case PairFormat::kShareGpt:
      return sharegpt_pair(row);
    case PairFormat::kAlpaca:
      return alpaca_pair(row, alpaca);
    case PairFormat::kHumanEval:
      return human_eval_pair(row);
    case PairFormat::kSpecBench:
      return spec_bench_pair(row);
    case PairFormat::kCustom:
      break;
  }
  return custom_pair(row);
}

// The rows of a JSON list, or of JSONL.
Result<std::vector<Json>> read_rows(const std::string& path) {
  MR_ASSIGN_OR_RETURN(const std::string text, read_file(path, kMaxFileBytes));
  std::vector<Json> rows;
  if (trim(std::string_view(text).substr(0, 4096)).starts_with('[')) {
    Result<Json> list = parse_json(text, {.max_bytes = kMaxFileBytes});
    if (!list.ok()) return list.status().at(path);
    for (Json& row : *list) rows.push_back(std::move(row));
    return rows;
  }
  size_t number = 0;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view line = trim(std::string_view(text).substr(begin, end - begin));
    begin = end + 1;
    ++number;
    if (line.empty()) continue;
    Result<Json> row = parse_json(line);
    if (!row.ok()) return row.status().at(fmt::format("{} line {}", path, number));
    rows.push_back(std::move(*row));
  }
  return rows;
}

}  // namespace

Result<PairFormat> find_pair_format(std::string_view name) {
  const std::vector<std::string> names(std::begin(kNames), std::end(kNames));
  for (size_t i = 0; i < names.size(); ++i)
    if (name == names[i]) return static_cast<PairFormat>(i);
  return invalid_argument("'{}' is no data set format{}; there are sharegpt, alpaca, custom, human-eval and spec-bench",
                          name, did_you_mean(name, names));
}

Result<std::vector<TextPair>> read_pairs(const std::string& path, PairFormat format, AlpacaPrompt alpaca) {
  MR_ASSIGN_OR_RETURN(const std::vector<Json> rows, read_rows(path));
  std::vector<TextPair> pairs;
  for (size_t i = 0; i < rows.size(); ++i) {
    Result<std::optional<TextPair>> pair = pair_of(rows[i], format, alpaca);
    if (!pair.ok()) return pair.status().at(fmt::format("{} row {}", path, i + 1));
    if (*pair) pairs.push_back(std::move(**pair));
  }
  if (pairs.empty())
    return invalid_argument("{}: no usable row of format {}", path, kNames[static_cast<size_t>(format)]);
  return pairs;
}

}  // namespace millrace::data
