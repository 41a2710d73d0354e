// millrace bench parallel
#include "cli/bench_loads.h"
#include "cli/bench_rounds.h"

namespace millrace::cli {
namespace {

Result<int> run(RoundsArgs& args) {
  MR_RETURN_IF_ERROR(check_rounds(args));
  MR_ASSIGN_OR_RETURN(LoadSetup setup, open_load("parallel", args.target, args.output));
  if (args.spec_decode) setup.labels.num_speculative_tokens = std::max<int64_t>(args.num_speculative_tokens, 0);
  MR_ASSIGN_OR_RETURN(const auto points, measure_rounds(args, {&setup}));
  return finish_load(setup, args.output, points[0], /*is_static=*/true, setup.labels.num_speculative_tokens);
}

RoundsArgs args_of(const ParallelLoad& load) {
  RoundsArgs args;
  args.epochs = load.epochs, args.num_warmups = load.num_warmups, args.seed = load.seed;
  args.parallel_num = load.parallel_num, args.prompt_tokens = load.prompt_tokens;
  args.output_tokens = load.output_tokens;
  return args;
}

}  // namespace

Status check_parallel_load(const ParallelLoad& load) {
  RoundsArgs args = args_of(load);
  return check_rounds(args);
}

Result<std::vector<bench::Point>> run_parallel_load(const ParallelLoad& load, LoadSetup& setup) {
  MR_ASSIGN_OR_RETURN(auto points, measure_rounds(args_of(load), {&setup}));
  return std::move(points[0]);
}

int bench_parallel(const Arguments& arguments) {
  RoundsArgs args;
  App app(
      "Static load: rounds of a fixed number of requests of fixed lengths; each round waits for the one before. The "
      "prompts of all requests differ, apart from a prefix that --prefix-caching-num asks for.",
      "bench parallel");
  add_rounds_flags(app, args);
  app.footer(
      "Examples:\n"
      "  millrace bench parallel --port 8000 --parallel-num 1 4 --prompt-tokens 128 512 --output-tokens 64 64\n"
      "  millrace bench parallel --backend openai-chat --tokenizer /models/Qwen2.5-0.5B --parallel-num 8 \\\n"
      "      --prompt-tokens 1024 --output-tokens 256 --epochs 3 --benchmark-csv parallel.csv --csv-dialect gen1");
  if (const int code = parse(app, arguments); code >= 0) return code;
  const Result<int> code = run(args);
  return code.ok() ? *code : fail(code.status());
}

}  // namespace millrace::cli
