// millrace bench parallel
#include <fmt/format.h>

#include "base/log.h"
#include "bench/requests.h"
#include "cli/bench_flags.h"
#include "cli/bench_loads.h"

namespace millrace::cli {
namespace {

struct ParallelArgs {
  TargetFlags target;
  OutputFlags output;
  int64_t epochs = 5, num_scheduler_steps = 1, prefix_caching_num = 0, num_speculative_tokens = -1, num_warmups = 4;
  std::vector<int64_t> parallel_num = {1, 4, 8}, prompt_tokens = {512, 1024, 2048}, output_tokens = {256, 256, 256};
  uint64_t seed = 0;
  bool prefix_caching = false, spec_decode = false, real_output_tokens = false;
  std::string dataset_type = "random", dataset_path;
};

Status check(const ParallelArgs& args) {
  if (args.prompt_tokens.size() != args.output_tokens.size())
    return invalid_argument(
        "--prompt-tokens has {} values and --output-tokens {}; they are pairs, so as many are wanted",
        args.prompt_tokens.size(), args.output_tokens.size());
  for (const int64_t n : args.parallel_num)
    if (n < 1 || n > 65536) return invalid_argument("--parallel-num {}: 1 to 65536 is wanted", n);
  if (args.epochs < 1) return invalid_argument("--epochs {}: 1 or more is wanted", args.epochs);
  if (args.prefix_caching_num > 0 && !args.prefix_caching)
    return invalid_argument("--prefix-caching-num needs --enable-prefix-caching");
  if (args.num_speculative_tokens > 0 && !args.spec_decode)
    return invalid_argument("--num-speculative-tokens needs --use-spec-decode");
  if (args.dataset_type == "random" && !args.dataset_path.empty())
    return invalid_argument("--dataset-path is given, but --dataset-type is random");
  if (args.dataset_type == "random" && args.real_output_tokens)
    return invalid_argument("--use-real-dataset-output-tokens needs a data set");
  if (args.dataset_type != "random" && args.dataset_path.empty())
    return invalid_argument("--dataset-type {} needs --dataset-path", args.dataset_type);
  if (args.dataset_type != "random" && args.target.tokenizer.empty())
    return invalid_argument("--dataset-type {} needs --tokenizer, which counts its tokens", args.dataset_type);
  return {};
}

Result<bench::Requests> make_requests(const ParallelArgs& args, const LoadSetup& setup,
                                      const std::vector<data::TextPair>& pairs, size_t lengths, int64_t count,
                                      uint64_t seed) {
  if (args.dataset_type == "random") {
    const bench::RandomLoad load{.input_tokens = args.prompt_tokens[lengths],
                                 .output_tokens = args.output_tokens[lengths],
                                 .prefix_tokens = args.prefix_caching ? args.prefix_caching_num : 0};
    return bench::random_requests(load, count, *setup.back_end, setup.tokenizer, seed);
  }
  bench::PairLoad load;
  if (!args.real_output_tokens) load.output_tokens = args.output_tokens[lengths];
  return bench::pair_requests(pairs, load, count, *setup.tokenizer, seed);
}

bench::RunRecord labels_of(const ParallelArgs& args, const LoadSetup& setup, size_t lengths, int64_t parallel) {
  bench::RunRecord labels = setup.labels;
  const bool random = args.dataset_type == "random";
  labels.dataset = random ? "random" : args.dataset_path;
  labels.arrival = "rounds";
  labels.max_concurrency = parallel;
  if (random) labels.input_tokens = args.prompt_tokens[lengths];
  if (!args.real_output_tokens) labels.output_tokens = args.output_tokens[lengths];
  labels.epochs = args.epochs;
  labels.seed = args.seed;
  return labels;
}

// Old results count one token for the first event and k for each later one.
void check_events(const ParallelArgs& args, const bench::Point& point) {
  if (args.spec_decode) return;
  const int64_t k = args.num_scheduler_steps;
  for (const bench::RequestRecord& r : point.run.requests) {
    if (r.outcome != bench::Outcome::kCompleted || r.output_tokens < 1) continue;
    const int64_t expected = 1 + (r.output_tokens - 1 + k - 1) / k, found = static_cast<int64_t>(r.chunks.size());
    if (expected != found)
      log_warning("an answer of {} tokens came in {} events; with --num-scheduler-steps {} it would be {}",
                  r.output_tokens, found, k, expected);
    return;
  }
}

Result<std::vector<bench::Point>> measure_all(const ParallelArgs& args, LoadSetup& setup) {
  std::vector<data::TextPair> pairs;
  if (args.dataset_type != "random") {
    MR_ASSIGN_OR_RETURN(const data::PairFormat format, data::find_pair_format(args.dataset_type));
    MR_ASSIGN_OR_RETURN(pairs, data::read_pairs(args.dataset_path, format));
  }
  std::vector<bench::Point> points;
  for (size_t lengths = 0; lengths < args.prompt_tokens.size(); ++lengths)
    for (const int64_t parallel : args.parallel_num) {
      if (interrupted()) return points;
      const uint64_t seed = args.seed * 1'000'003 + points.size() + 1;  // no prompt of one point comes again in another
      MR_ASSIGN_OR_RETURN(bench::Requests made,
                          make_requests(args, setup, pairs, lengths, args.epochs * parallel, seed));
      bench::RunRecord labels = labels_of(args, setup, lengths, parallel);
      labels.inexact_prompts = made.inexact;
      MR_ASSIGN_OR_RETURN(const auto warmups,
                          warmup_requests(setup, args.num_warmups, args.prompt_tokens[lengths], seed));
      const bench::LoadPlan plan{.requests = std::move(made.requests), .max_concurrency = parallel, .round = parallel};
      points.push_back(setup.session->run(plan, labels, warmups));
      check_events(args, points.back());
    }
  return points;
}

Result<int> run(const ParallelArgs& args) {
  MR_RETURN_IF_ERROR(check(args));
  MR_ASSIGN_OR_RETURN(LoadSetup setup, open_load("parallel", args.target, args.output));
  MR_ASSIGN_OR_RETURN(const std::vector<bench::Point> points, measure_all(args, setup));
  return finish_load(setup, args.output, points, /*is_static=*/true,
                     args.spec_decode ? args.num_speculative_tokens : 0);
}

ParallelArgs args_of(const ParallelLoad& load) {
  ParallelArgs args;
  args.epochs = load.epochs, args.num_warmups = load.num_warmups, args.seed = load.seed;
  args.parallel_num = load.parallel_num, args.prompt_tokens = load.prompt_tokens;
  args.output_tokens = load.output_tokens;
  return args;
}

}  // namespace

Status check_parallel_load(const ParallelLoad& load) { return check(args_of(load)); }

Result<std::vector<bench::Point>> run_parallel_load(const ParallelLoad& load, LoadSetup& setup) {
  return measure_all(args_of(load), setup);
}

int bench_parallel(const Arguments& arguments) {
  ParallelArgs args;
  App app(
      "Static load: rounds of a fixed number of requests of fixed lengths; each round waits for the one before. The "
      "prompts of all requests differ, apart from a prefix that --prefix-caching-num asks for.",
      "bench parallel");
  add_target_flags(app, args.target);
  app.add_option("--epochs", args.epochs, "rounds per point");
  app.add_option("--parallel-num", args.parallel_num, "requests per round, one point each")->expected(1, -1);
  app.add_option("--prompt-tokens", args.prompt_tokens, "prompt lengths")->expected(1, -1);
  app.add_option("--output-tokens", args.output_tokens, "output lengths, one per prompt length")->expected(1, -1);
  app.add_option("--seed", args.seed, "of the prompts");
  app.add_option("--num-warmups", args.num_warmups, "requests before each point that do not count");
  app.add_option("--num-scheduler-steps", args.num_scheduler_steps, "of the server; tells when events do not fit it")
      ->check(CLI::PositiveNumber);
  app.add_option("--enable-prefix-caching", args.prefix_caching, "share a prefix (true without a value)")
      ->expected(0, 1);
  app.add_option("--prefix-caching-num", args.prefix_caching_num, "tokens at the front that all prompts share");
  add_switch(app, "use-spec-decode", args.spec_decode, "report the acceptance of speculation");
  app.add_option("--num-speculative-tokens", args.num_speculative_tokens, "of the server, for the acceptance");
  app.add_option("--dataset-type", args.dataset_type, "where prompts come from")
      ->check(CLI::IsMember({"random", "sharegpt", "human-eval"}));
  app.add_option("--dataset-path", args.dataset_path, "file of the data set");
  add_switch(app, "use-real-dataset-output-tokens", args.real_output_tokens,
             "ask for as many as the data set's answers");
  add_output_flags(app, args.output);
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
