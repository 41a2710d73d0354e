// millrace init
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "cli/command.h"
#include "models/families/presets.h"
#include "tokenizer/byte_level.h"
#include "weights/model_folder.h"

namespace millrace::cli {
namespace {

struct InitArgs {
  std::string folder, dtype = "bfloat16", overrides;
  InitOptions options;
};

// The byte-level tokenizer's 256 bytes and its special tokens are the first ids of the vocabulary.
Status write_tokenizer(const std::string& folder, const ByteLevelSpec& tokenizer) {
  MR_RETURN_IF_ERROR(write_file(join_path(folder, "tokenizer.json"), byte_level_tokenizer_json(tokenizer)));
  return write_file(join_path(folder, "tokenizer_config.json"), byte_level_tokenizer_config(tokenizer));
}

Status run(InitArgs& args) {
  const ByteLevelSpec tokenizer;
  args.options.dtype = *dtype_from_name(args.dtype);
  args.options.overrides = {{"eos_token_id", 256 + 2}, {"bos_token_id", 256}};
  if (!args.overrides.empty()) {
    const Result<Json> given = parse_json(args.overrides);
    if (!given.ok()) return given.status().at("--config-overrides");
    if (!given->is_object()) return invalid_argument("--config-overrides must be a JSON object");
    args.options.overrides.update(*given);
  }
  MR_RETURN_IF_ERROR(init_checkpoint(args.folder, args.options));
  MR_RETURN_IF_ERROR(write_tokenizer(args.folder, tokenizer));
  fmt::print("{}: a new {} checkpoint ({}) with random weights and a byte-level tokenizer\n", args.folder,
             args.options.family, args.options.size);
  return {};
}

std::string preset_list() {
  std::string list;
  for (const std::string& name : preset_names()) list += "\n  " + name;
  return list;
}

}  // namespace

int init(const Arguments& arguments) {
  InitArgs args;
  App app("Makes a new Hugging Face checkpoint with random weights and a byte-level tokenizer.", "init");
  app.add_option("folder", args.folder, "where to; must not hold a model yet")->required();
  app.add_option("--family", args.options.family, "model family");
  app.add_option("--size", args.options.size, "preset of that family");
  app.add_option("--config-overrides", args.overrides, "JSON object of config.json keys that replace the preset's");
  app.add_option("--dtype", args.dtype, "type of the stored weights")
      ->check(CLI::IsMember({"float32", "bfloat16", "float16"}));
  app.add_option("--seed", args.options.seed, "of the random weights");
  app.footer("Families and sizes:" + preset_list() +
             "\n\nExamples:\n"
             "  millrace init demo\n"
             "  millrace init /models/random-1b --family llama --size llama-3.2-1b\n"
             "  millrace init small --family qwen2 --size tiny --config-overrides '{\"num_hidden_layers\": 3}'");
  if (const int code = parse(app, arguments); code >= 0) return code;
  const Status status = run(args);
  return status.ok() ? 0 : fail(status);
}

}  // namespace millrace::cli
