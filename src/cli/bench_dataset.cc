// millrace bench dataset
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/json.h"
#include "bench/prompts.h"
#include "cli/command.h"
#include "data/lengths.h"

namespace millrace::cli {
namespace {

struct DatasetArgs {
  std::string tokenizer, output = "dataset.json";
  data::LengthSpread input{.min = 16, .max = 1024, .avg = 256, .std = 128},
      answer{.min = 16, .max = 512, .avg = 128, .std = 64};
  int64_t requests = 1000;
  uint64_t seed = 0;
};

Status run(const DatasetArgs& args) {
  MR_RETURN_IF_ERROR(data::check_spread(args.input, "input"));
  MR_RETURN_IF_ERROR(data::check_spread(args.answer, "output"));
  if (args.requests < 1 || args.requests > 10'000'000)
    return invalid_argument("--num-requests {}: 1 to 10000000 is wanted", args.requests);
  MR_ASSIGN_OR_RETURN(const std::shared_ptr<const Tokenizer> tokenizer, Tokenizer::load(args.tokenizer));
  Random random(args.seed);
  const std::vector<int64_t> inputs = data::draw_lengths(args.input, args.requests, random);
  const std::vector<int64_t> outputs = data::draw_lengths(args.answer, args.requests, random);
  bench::PromptMaker maker(tokenizer, args.seed + 1);
  Json rows = Json::array();
  int64_t inexact = 0, in_sum = 0, out_sum = 0;
  for (size_t i = 0; i < inputs.size(); ++i) {
    MR_ASSIGN_OR_RETURN(const bench::PromptMaker::Text input, maker.text(inputs[i]));
    MR_ASSIGN_OR_RETURN(const bench::PromptMaker::Text output, maker.text(outputs[i]));
    inexact += !input.exact + !output.exact;
    in_sum += input.tokens, out_sum += output.tokens;
    rows.push_back({{"input", input.text}, {"output", output.text}});
  }
  MR_RETURN_IF_ERROR(write_file(args.output, dump_json(rows)));
  const auto n = static_cast<double>(args.requests);
  fmt::print("{}: {} requests, on average {:.1f} tokens in and {:.1f} out; {} texts miss their length\n", args.output,
             args.requests, static_cast<double>(in_sum) / n, static_cast<double>(out_sum) / n, inexact);
  return {};
}

}  // namespace

int bench_dataset(const Arguments& arguments) {
  DatasetArgs args;
  App app(
      "Writes a data set of random texts with exact token counts: a JSON list of {\"input\", \"output\"}, for "
      "'millrace bench serving --dataset-type custom'. Lengths follow a normal distribution cut at both ends.",
      "bench dataset");
  app.add_option("--tokenizer", args.tokenizer, "folder or file that counts the tokens")->required();
  app.add_option("--output", args.output, "file to write");
  app.add_option("--num-requests", args.requests, "rows");
  app.add_option("--min-input", args.input.min, "tokens");
  app.add_option("--max-input", args.input.max, "tokens");
  app.add_option("--avg-input", args.input.avg, "tokens, before the cut");
  app.add_option("--std-input", args.input.std, "tokens, before the cut");
  app.add_option("--min-output", args.answer.min, "tokens");
  app.add_option("--max-output", args.answer.max, "tokens");
  app.add_option("--avg-output", args.answer.avg, "tokens, before the cut");
  app.add_option("--std-output", args.answer.std, "tokens, before the cut");
  app.add_option("--seed", args.seed, "of lengths and texts");
  app.footer(
      "Example:\n"
      "  millrace bench dataset --tokenizer /models/Qwen2.5-0.5B --num-requests 500 --min-input 50 --max-input 900 \\\n"
      "      --avg-input 300 --std-input 150 --min-output 10 --max-output 200 --avg-output 80 --std-output 40");
  if (const int code = parse(app, arguments); code >= 0) return code;
  const Status status = run(args);
  return status.ok() ? 0 : fail(status);
}

}  // namespace millrace::cli
