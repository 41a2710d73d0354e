// millrace tokenize
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <iostream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/json.h"
#include "cli/command.h"
#include "engine/local/model_text.h"
#include "models/families/families.h"

namespace millrace::cli {
namespace {

struct TokenizeArgs {
  std::string model;
  std::optional<std::string> text;
  bool decode = false, json = false, special = true;
};

// A token's bytes, readable: as JSON shows a string.
std::string shown(const std::string& bytes) { return dump_json(Json(bytes)); }

Status show_tokens(const Tokenizer& tokenizer, const TokenizeArgs& args, const std::string& text) {
  MR_ASSIGN_OR_RETURN(const std::vector<int32_t> ids, tokenizer.encode(text, {.add_special_tokens = args.special}));
  if (args.json) {
    fmt::print("{}\n", dump_json(Json{{"count", ids.size()}, {"tokens", ids}}));
    return {};
  }
  for (const int32_t id : ids)
    fmt::print("{:>8}  {}\n", id,
               shown(tokenizer.is_special(id) ? tokenizer.token_text(id) : tokenizer.token_bytes(id)));
  fmt::print("{} tokens, {} bytes\n", ids.size(), text.size());
  return {};
}

// Ids separated by anything that is not a digit.
Result<std::vector<int32_t>> read_ids(const std::string& text) {
  std::vector<int32_t> ids;
  for (size_t i = 0; i < text.size();) {
    if (text[i] < '0' || text[i] > '9') {
      if (std::string_view(" \t\r\n,[]").find(text[i]) == std::string_view::npos)
        return invalid_argument("'{}' is no part of a list of token ids", text[i]);
      ++i;
      continue;
    }
    int64_t id = 0;
    for (; i < text.size() && text[i] >= '0' && text[i] <= '9' && id <= INT32_MAX; ++i) id = id * 10 + (text[i] - '0');
    if (id > INT32_MAX) return invalid_argument("a token id is above {}", INT32_MAX);
    ids.push_back(static_cast<int32_t>(id));
  }
  return ids;
}

// As the engine loads it, where the folder holds a model of a known family.
Result<std::shared_ptr<const Tokenizer>> load(const std::string& path) {
  const std::string config_path = join_path(path, "config.json");
  if (is_directory(path) && file_exists(config_path)) {
    MR_ASSIGN_OR_RETURN(const Json config, read_json_file(config_path));
    if (const Result<const Family*> family = family_of_config(config); family.ok())
      return load_tokenizer(path, **family);
  }
  return Tokenizer::load(path);
}

Status run(const TokenizeArgs& args) {
  MR_ASSIGN_OR_RETURN(const std::shared_ptr<const Tokenizer> tokenizer, load(args.model));
  const std::string text = args.text ? *args.text : std::string(std::istreambuf_iterator<char>(std::cin), {});
  if (!args.decode) return show_tokens(*tokenizer, args, text);
  MR_ASSIGN_OR_RETURN(const std::vector<int32_t> ids, read_ids(text));
  fmt::print("{}\n", tokenizer->decode(ids, {.skip_special_tokens = !args.special}));
  return {};
}

}  // namespace

int tokenize(const Arguments& arguments) {
  TokenizeArgs args;
  App app("Shows the token ids of a text, or with --decode the text of token ids. Reads standard input without a text.",
          "tokenize");
  app.add_option("--model,--tokenizer", args.model, "model folder or tokenizer file")->required();
  app.add_option("text", args.text, "the text, or with --decode the ids");
  app.add_flag("--decode", args.decode, "from ids to text");
  app.add_flag("--json", args.json, "print {\"count\", \"tokens\"}");
  add_switch(app, "add-special-tokens", args.special,
             "with the special tokens that the tokenizer adds (default), and shown in a decoded text");
  app.footer(
      "Examples:\n"
      "  millrace tokenize --model /models/Qwen2.5-0.5B 'How many tokens?'\n"
      "  millrace tokenize --model /models/Qwen2.5-0.5B --decode '[4340, 1657]'\n"
      "  millrace tokenize --model tokenizer.json --json < book.txt");
  if (const int code = parse(app, arguments); code >= 0) return code;
  const Status status = run(args);
  return status.ok() ? 0 : fail(status);
}

}  // namespace millrace::cli
