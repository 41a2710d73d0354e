#include "cli/bench_rounds.h"

#include <fmt/format.h>

#include <cmath>

#include "base/file.h"
#include "base/log.h"
#include "bench/arrivals.h"
#include "bench/images.h"
#include "bench/requests.h"

namespace millrace::cli {
namespace {

constexpr int64_t kWarmupTokens = 32;

Status check_dataset(const RoundsArgs& args) {
  if (args.dataset_type == "random" && !args.dataset_path.empty())
    return invalid_argument("--dataset-path is given, but --dataset-type is random");
  if (args.dataset_type == "random" && args.real_output_tokens)
    return invalid_argument("--use-real-dataset-output-tokens needs a data set");
  if (args.dataset_type == "random") return {};
  if (args.dataset_path.empty()) return invalid_argument("--dataset-type {} needs --dataset-path", args.dataset_type);
  if (!file_exists(args.dataset_path)) return not_found("--dataset-path {}: there is no such file", args.dataset_path);
  if (args.target.tokenizer.empty())
    return invalid_argument("--dataset-type {} needs --tokenizer, which counts its tokens", args.dataset_type);
  return {};
}

Result<bench::Requests> make_requests(const RoundsArgs& args, const LoadSetup& setup,
                                      const std::vector<data::TextPair>& pairs, size_t lengths, int64_t count,
                                      uint64_t seed) {
  if (args.dataset_type == "random") {
    const bench::RandomLoad load{.input_tokens = args.prompt_tokens[lengths],
                                 .output_tokens = args.output_tokens[lengths],
                                 .prefix_tokens = args.prefix_caching ? args.prefix_caching_num : 0};
    return bench::random_requests(load, count, *setup.back_end, setup.tokenizer, seed);
  }
  bench::PairLoad load;
  if (args.dataset_type == "human-eval") load.min_tokens = 1;
  if (!args.real_output_tokens) load.output_tokens = args.output_tokens[lengths];
  return bench::pair_requests(pairs, load, count, *setup.tokenizer, seed);
}

Status add_images(const RoundsArgs& args, uint64_t seed, std::vector<bench::LoadRequest>& requests) {
  if (args.image_height == 0) return {};
  MR_ASSIGN_OR_RETURN(const bench::ImageFormat format, bench::find_image_format(args.image_format));
  for (size_t i = 0; i < requests.size(); ++i) {
    MR_ASSIGN_OR_RETURN(const std::string file,
                        bench::random_image(format, args.image_height, args.image_width, seed * 1'000'003 + i));
    requests[i].image_urls = {bench::data_url(format, file)};
  }
  return {};
}

// When each request of a round goes, round after round.
Result<std::vector<double>> round_times(const RoundsArgs& args, int64_t parallel, uint64_t seed) {
  MR_ASSIGN_OR_RETURN(const double rate, parse_rate(args.request_rate));
  if (std::isinf(rate)) return std::vector<double>();
  const auto kind = args.pd_separate ? bench::ArrivalKind::kConstant : bench::ArrivalKind::kExponential;
  std::vector<double> times;
  for (int64_t round = 0; round < args.epochs; ++round) {
    MR_ASSIGN_OR_RETURN(
        const std::vector<double> gaps,
        bench::arrival_times({.kind = kind, .rate = rate}, parallel, seed * 7919 + static_cast<uint64_t>(round)));
    for (const double at : gaps) times.push_back(at - gaps[0]);  // the first at once
  }
  return times;
}

bench::RunRecord labels_of(const RoundsArgs& args, const LoadSetup& setup, size_t lengths, int64_t parallel) {
  bench::RunRecord labels = setup.labels;
  const bool random = args.dataset_type == "random";
  labels.dataset = random ? "random" : args.dataset_path;
  labels.arrival = "rounds";
  labels.max_concurrency = parallel;
  if (random) labels.input_tokens = args.prompt_tokens[lengths];
  if (!args.real_output_tokens && setup.back_end->generates) labels.output_tokens = args.output_tokens[lengths];
  labels.epochs = args.epochs;
  labels.seed = args.seed;
  if (args.image_height > 0) labels.image_shape = fmt::format("{},{}", args.image_height, args.image_width);
  return labels;
}

// Old results count one token for the first event and k for each later one.
void check_events(const RoundsArgs& args, const bench::Point& point) {
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

Result<bench::Point> measure_point(const RoundsArgs& args, const LoadSetup& setup,
                                   const std::vector<data::TextPair>& pairs, size_t lengths, int64_t parallel,
                                   uint64_t seed) {
  MR_ASSIGN_OR_RETURN(bench::Requests made, make_requests(args, setup, pairs, lengths, args.epochs * parallel, seed));
  bench::RunRecord labels = labels_of(args, setup, lengths, parallel);
  MR_RETURN_IF_ERROR(verify_prompts(setup, args.target, args.dataset_type == "random", made, labels));
  MR_RETURN_IF_ERROR(add_images(args, seed, made.requests));
  choose_adapters(args.target, seed, made.requests);
  MR_ASSIGN_OR_RETURN(auto warmups, warmup_requests(setup, args.num_warmups, args.prompt_tokens[lengths], seed));
  MR_RETURN_IF_ERROR(add_images(args, seed ^ 0xC0FFEE, warmups));
  bench::LoadPlan plan{.requests = std::move(made.requests), .max_concurrency = parallel, .round = parallel};
  MR_ASSIGN_OR_RETURN(plan.round_due_s, round_times(args, parallel, seed));
  bench::Point point = setup.session->run(plan, labels, warmups);
  check_events(args, point);
  return point;
}

void add_dataset_flags(App& app, RoundsArgs& args) {
  app.add_option("--dataset-type", args.dataset_type, "where prompts come from")
      ->check(CLI::IsMember({"random", "sharegpt", "human-eval"}));
  app.add_option("--dataset-path", args.dataset_path, "file of the data set");
  add_switch(app, "use-real-dataset-output-tokens", args.real_output_tokens,
             "ask for as many as the data set's answers");
}

void add_climbing_flags(App& app) {
  const std::string climbing =
      "--parallel-num 1 2 4 8 climbs in steps, and 'millrace bench serving --find max-rate' finds the edge";
  for (const char* name : {"run-method", "climbing-period", "growth-rate", "control-method"})
    add_refused(app, name, climbing);
}

}  // namespace

Status check_rounds(RoundsArgs& args) {
  // A data set's texts have their own lengths.
  if (args.real_output_tokens) args.output_tokens = {1};
  if (args.dataset_type != "random") args.prompt_tokens.assign(args.output_tokens.size(), kWarmupTokens);
  if (args.target.backend == "embedding") args.output_tokens.assign(args.prompt_tokens.size(), 1);
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
  MR_RETURN_IF_ERROR(parse_rate(args.request_rate).status());
  return check_dataset(args);
}

Result<std::vector<std::vector<bench::Point>>> measure_rounds(const RoundsArgs& args,
                                                              const std::vector<const LoadSetup*>& servers) {
  std::vector<data::TextPair> pairs;
  if (args.dataset_type != "random") {
    MR_ASSIGN_OR_RETURN(const data::PairFormat format, data::find_pair_format(args.dataset_type));
    MR_ASSIGN_OR_RETURN(pairs, data::read_pairs(args.dataset_path, format));
  }
  std::vector<std::vector<bench::Point>> points(servers.size());
  for (size_t lengths = 0; lengths < args.prompt_tokens.size(); ++lengths)
    for (const int64_t parallel : args.parallel_num) {
      const uint64_t seed = args.seed * 1'000'003 + points[0].size() + 1;  // no prompt of one point comes again
      for (size_t i = 0; i < servers.size(); ++i) {
        if (interrupted()) return points;
        MR_ASSIGN_OR_RETURN(bench::Point point, measure_point(args, *servers[i], pairs, lengths, parallel, seed));
        points[i].push_back(std::move(point));
      }
    }
  return points;
}

void add_rounds_flags(App& app, RoundsArgs& args) {
  add_target_flags(app, args.target);
  app.add_option("--epochs", args.epochs, "rounds per point");
  app.add_option("--parallel-num", args.parallel_num, "requests per round, one point each")->expected(1, -1);
  app.add_option("--prompt-tokens", args.prompt_tokens, "prompt lengths")->expected(1, -1);
  app.add_option("--output-tokens", args.output_tokens, "output lengths, one per prompt length")->expected(1, -1);
  app.add_option("--request-rate", args.request_rate, "requests per second within a round; inf: all at once");
  add_switch(app, "use-pd-separate", args.pd_separate, "even gaps within a round, not exponential ones");
  app.add_option("--seed", args.seed, "of the prompts");
  app.add_option("--num-warmups", args.num_warmups, "requests before each point that do not count");
  app.add_option("--num-scheduler-steps", args.num_scheduler_steps, "of the server; tells when events do not fit it")
      ->check(CLI::PositiveNumber);
  app.add_option("--enable-prefix-caching", args.prefix_caching, "share a prefix (true without a value)")
      ->expected(0, 1);
  app.add_option("--prefix-caching-num", args.prefix_caching_num, "tokens at the front that all prompts share");
  add_switch(app, "use-spec-decode", args.spec_decode, "report the acceptance of speculation");
  app.add_option("--num-speculative-tokens", args.num_speculative_tokens, "of the server, for the acceptance");
  add_dataset_flags(app, args);
  add_climbing_flags(app);
  add_output_flags(app, args.output);
}

}  // namespace millrace::cli
