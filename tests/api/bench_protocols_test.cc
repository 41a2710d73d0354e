// `millrace bench` on other protocols, over TLS, with pictures and with speculation, as a user runs it.
#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "base/file.h"
#include "base/text.h"
#include "report/statistics.h"
#include "tests/api/bench_command.h"
#include "tests/net/tls_front.h"

namespace millrace {
namespace {

// A folder with the tokenizer of a tiny model.
const std::string& model() {
  static const TemporaryDirectory folder;
  static const std::string path = [] {
    EXPECT_EQ(run_millrace({"init", folder.file("model"), "--size", "tiny"}).exit_code, 0);
    return folder.file("model");
  }();
  return path;
}

const std::vector<std::string> kSmall = {"--parallel-num", "2", "--prompt-tokens", "8", "--output-tokens", "6",
                                         "--epochs",       "1", "--num-warmups",   "0"};

std::string table_row(const std::string& label, const std::string& value) {
  return fmt::format("{:<40} {:<10}", label, value);
}

std::multiset<std::string> last_prompts(const MockLlm& server, size_t count) {
  const std::vector<std::string> bodies = server.bodies();
  std::multiset<std::string> prompts;
  for (size_t i = bodies.size() - count; i < bodies.size(); ++i) prompts.insert(Json::parse(bodies[i])["prompt"]);
  return prompts;
}

// Each event is one draft of three tokens, two of them accepted, and the target's own.
std::string speculation_page(int begun, int ended) {
  return fmt::format(
      "vllm:num_requests_running {}\nvllm:num_requests_waiting 0\nvllm:spec_decode_num_drafts_total {}\n"
      "vllm:spec_decode_num_draft_tokens_total {}\nvllm:spec_decode_num_accepted_tokens_total {}\n"
      "vllm:spec_decode_num_accepted_tokens_per_pos_total{{position=\"0\"}} {}\n",
      begun - ended, 4 * begun, 12 * begun, 8 * begun, 3 * begun);
}

TEST(BenchSpeculative, CountersAndEventsTellTheAcceptanceBesideTheBaseline) {
  const MockLlm with({.ttft_ms = 20, .gap_ms = 30, .tokens_per_event = 3, .metrics = speculation_page});
  const MockLlm without({.ttft_ms = 20, .gap_ms = 30});
  const TemporaryDirectory folder;
  std::string rows;
  for (int i = 0; i < 4; ++i)
    rows += R"({"task_id":"t","prompt":"def f(x):\n    return )" + std::to_string(i) +
            R"(","canonical_solution":"    return x + 1\n"})" + "\n";
  ASSERT_TRUE(write_file(folder.file("human-eval.jsonl"), rows).ok());
  const CommandResult result = bench({"speculative",
                                      "--port",
                                      port_of(with),
                                      "--baseline-url",
                                      "http://127.0.0.1:" + port_of(without),
                                      "--tokenizer",
                                      model(),
                                      "--dataset-path",
                                      folder.file("human-eval.jsonl"),
                                      "--num-speculative-tokens",
                                      "3",
                                      "--parallel-num",
                                      "2",
                                      "--prompt-tokens",
                                      "1",
                                      "--output-tokens",
                                      "13",
                                      "--epochs",
                                      "1",
                                      "--benchmark-csv",
                                      folder.file("s.csv"),
                                      "--output-json",
                                      folder.file("s.json")});
  ASSERT_EQ(result.exit_code, 0) << result.output;
  const Json figures = (*read_json_file(folder.file("s.json")))["points"][0]["figures"];
  EXPECT_NEAR(figures["acceptance"]["rate"], 8.0 / 12, 1e-9);  // the server's counters
  EXPECT_NEAR(figures["acceptance"]["length"], 3, 1e-9);
  EXPECT_NEAR(figures["acceptance"]["per_position"][0], 0.75, 1e-9);
  EXPECT_FALSE(figures["acceptance"]["estimated"].get<bool>());
  const auto table = read_csv(folder.file("s.csv"));
  EXPECT_EQ(table[0][table[0].size() - 5], "TP90_SPEC_ACCEPT_RATE");
  EXPECT_EQ(table.at(1).back(), "0.6667");  // 13 tokens in 5 events: 8 of 12 drafted
  EXPECT_TRUE(file_exists(folder.file("s.baseline.csv")));
  EXPECT_FALSE((*read_json_file(folder.file("s.baseline.json")))["points"][0]["figures"].contains("acceptance"));
  EXPECT_NE(result.output.find(table_row("  Position 0:", "75.00")), std::string::npos) << result.output;
  EXPECT_NE(result.output.find("With and without speculation"), std::string::npos);
  EXPECT_NE(result.output.find("server counters"), std::string::npos);
  EXPECT_EQ(last_prompts(with, 2), last_prompts(without, 2));
}

TEST(BenchSpeculative, WithoutCountersTheEventsEstimateIt) {
  const MockLlm server({.ttft_ms = 5, .gap_ms = 5, .tokens_per_event = 4});
  const TemporaryDirectory folder;
  const CommandResult result =
      bench({"speculative", "--port", port_of(server), "--dataset-type", "random", "--num-speculative-tokens", "4",
             "--parallel-num", "1", "--prompt-tokens", "8", "--output-tokens", "13", "--epochs", "1", "--benchmark-csv",
             folder.file("s.csv"), "--csv-dialect", "gen1"});
  ASSERT_EQ(result.exit_code, 0) << result.output;
  EXPECT_NE(result.output.find("events (estimated)"), std::string::npos) << result.output;
  EXPECT_EQ(read_csv(folder.file("s.csv")).at(1).back(), "0.8");  // (13 - 1) / (3 steps x 5): the target's token counts
  const auto table = read_csv(folder.file("s.millrace.csv"));
  const auto from = std::find(table[0].begin(), table[0].end(), "acceptance_from");
  ASSERT_NE(from, table[0].end());
  EXPECT_EQ(table.at(1)[static_cast<size_t>(from - table[0].begin())], "events");
}

TEST(BenchModal, EveryRequestCarriesAPictureOfItsOwn) {
  for (const char* format : {"png", "jpeg"}) {
    const MockLlm server({.ttft_ms = 5, .gap_ms = 1, .image_height = 48, .image_width = 64});
    const TemporaryDirectory folder;
    const CommandResult result =
        bench({"modal", "--port", port_of(server), "--tokenizer", model(), "--height", "48", "--width", "64",
               "--image-format", format, "--benchmark-csv", folder.file("m.csv")},
              kSmall);
    ASSERT_EQ(result.exit_code, 0) << result.output;
    EXPECT_EQ(read_csv(folder.file("m.csv"))[0].at(3), "Image_Shape");
    EXPECT_NE(read_file(folder.file("m.csv"))->find("\n8.0,6.0,2,\"48,64\","), std::string::npos);
    std::set<std::string> pictures;
    for (const std::string& body : server.bodies())
      pictures.insert(Json::parse(body)["messages"][0]["content"][1]["image_url"]["url"]);
    EXPECT_EQ(pictures.size(), server.bodies().size()) << format;
  }
}

TEST(BenchBackEnds, BaseAndTrtAndEmbeddingAreSpoken) {
  const TemporaryDirectory folder;
  for (const char* name : {"base", "trt"}) {
    const MockLlm server({.ttft_ms = 10, .gap_ms = 5});
    const CommandResult result = bench({"parallel", "--backend", name, "--port", port_of(server), "--tokenizer",
                                        model(), "--model", "m", "--output-json", folder.file("r.json")},
                                       kSmall);
    ASSERT_EQ(result.exit_code, 0) << name << result.output;
    const Json point = (*read_json_file(folder.file("r.json")))["points"][0];
    EXPECT_EQ(point["requests"][0]["output_tokens_from"], "protocol");
    const Json body = Json::parse(server.bodies().back());
    if (std::string_view(name) == "trt") {
      EXPECT_EQ(point["figures"]["output_tokens"], 12);
      EXPECT_EQ(body["min_length"], 6);
      EXPECT_TRUE(body["text_input"].is_string());
    } else {
      EXPECT_EQ(body["max_tokens"], 14);  // prompt and output
      EXPECT_EQ(body["model_name"], "m");
    }
  }
  const MockLlm server({.ttft_ms = 30, .gap_ms = 1});
  const CommandResult result =
      bench({"parallel", "--backend", "embedding", "--port", port_of(server), "--model", "m", "--parallel-num", "2",
             "--prompt-tokens", "8", "16", "--epochs", "2", "--benchmark-csv", folder.file("e.csv")});
  ASSERT_EQ(result.exit_code, 0) << result.output;
  EXPECT_TRUE(read_file(folder.file("e.csv"))->starts_with("\xEF\xBB\xBFInput_Length,"));
  EXPECT_NE(read_file(folder.file("e.csv"))->find("\r\n8.0,2,"), std::string::npos);
  const auto table = read_csv(folder.file("e.csv"));
  EXPECT_EQ(table[0],
            (std::vector<std::string>{"Input_Length", "Concurrency", "QPS", "INPUT_TOKEN_THROUGHPUT",
                                      "TP90_REQ_LATENCY", "TP99_REQ_LATENCY", "MAX_REQ_LATENCY", "AVG_REQ_LATENCY"}));
  EXPECT_EQ(table.at(1)[0], "8.0");
  EXPECT_GT(std::stod(table.at(2).back()), 30);  // ms
}

TEST(BenchTls, ServersAreReachedOverHttps) {
  const MockLlm server({.ttft_ms = 10, .gap_ms = 5, .metrics = speculation_page});
  const TemporaryDirectory folder;
  const std::string ca = folder.file("ca.pem");
  const TlsFront front(server.port(), {}, ca);
  const std::string url = fmt::format("https://localhost:{}", front.port());
  const CommandResult trusted =
      bench({"parallel", "--base-url", url, "--ca-file", ca, "--output-json", folder.file("r.json")}, kSmall);
  ASSERT_EQ(trusted.exit_code, 0) << trusted.output;
  EXPECT_EQ((*read_json_file(folder.file("r.json")))["points"][0]["figures"]["output_tokens"], 12);
  EXPECT_EQ(front.server_name(), "localhost");
  EXPECT_EQ(bench({"serving", "--base-url", url, "--insecure", "--num-prompts", "4", "--random-input-len", "8",
                   "--random-output-len", "4", "--request-rate", "100"})
                .exit_code,
            0);
}

TEST(BenchFlags, SamplingOptionsReachTheServer) {
  const MockLlm server({.ttft_ms = 1, .gap_ms = 1});
  ASSERT_EQ(bench({"parallel", "--port", port_of(server), "--best-of", "2", "--use-beam-search", "--top-p", "0.8",
                   "--top-k", "5"},
                  kSmall)
                .exit_code,
            0);
  const Json body = Json::parse(server.bodies().back());
  EXPECT_EQ(body["best_of"], 2);
  EXPECT_EQ(body["use_beam_search"], true);
  EXPECT_EQ(body["top_p"], 0.8);
  EXPECT_EQ(body["top_k"], 5);
}

TEST(BenchFlags, AdaptersAreChosenByChanceAndSeed) {
  const auto chosen = [](const char* seed) {
    const MockLlm server({.ttft_ms = 1, .gap_ms = 1});
    EXPECT_EQ(bench({"serve",
                     "--port",
                     port_of(server),
                     "--lora-modules",
                     "a",
                     "b",
                     "--model",
                     "m",
                     "--num-prompts",
                     "40",
                     "--random-input-len",
                     "4",
                     "--random-output-len",
                     "1",
                     "--max-concurrency",
                     "1",
                     "--num-warmups",
                     "0",
                     "--seed",
                     seed})
                  .exit_code,
              0);
    std::string models;
    for (const std::string& body : server.bodies()) models += Json::parse(body)["model"].get<std::string>();
    return models;
  };
  const std::string first = chosen("1");
  EXPECT_EQ(first[0], 'm');  // the request that asks whether the server is there
  EXPECT_GT(std::count(first.begin(), first.end(), 'a'), 5);
  EXPECT_GT(std::count(first.begin(), first.end(), 'b'), 5);
  EXPECT_EQ(chosen("1"), first);
  EXPECT_NE(chosen("2"), first);
}

TEST(BenchFlags, WhatHasNoCounterpartIsRefusedWithWhatDoes) {
  for (const auto& [command, flag, said] : {std::tuple("parallel", "--run-method", "climbs in steps"),
                                            {"parallel", "--growth-rate", "climbs in steps"},
                                            {"serve", "--profile", "the server's own profiler"}}) {
    const CommandResult result = bench({command, flag});
    EXPECT_EQ(result.exit_code, 2);
    EXPECT_NE(result.output.find(flag), std::string::npos) << result.output;
    EXPECT_NE(result.output.find(said), std::string::npos) << result.output;
  }
}

TEST(BenchFlags, EveryFlagOfTheOriginalsIsTaken) {
  const std::map<std::string, std::vector<const char*>> kFlags = {{"parallel",
                                                                   {"backend",
                                                                    "host",
                                                                    "port",
                                                                    "url",
                                                                    "app-code",
                                                                    "tokenizer",
                                                                    "served-model-name",
                                                                    "epochs",
                                                                    "parallel-num",
                                                                    "prompt-tokens",
                                                                    "output-tokens",
                                                                    "benchmark-csv",
                                                                    "request-rate",
                                                                    "best-of",
                                                                    "use-beam-search",
                                                                    "seed",
                                                                    "num-scheduler-steps",
                                                                    "enable-prefix-caching",
                                                                    "prefix-caching-num",
                                                                    "use-spec-decode",
                                                                    "num-speculative-tokens",
                                                                    "dataset-type",
                                                                    "dataset-path",
                                                                    "use-real-dataset-output-tokens",
                                                                    "use-pd-separate"}},
                                                                  {"serving",
                                                                   {"backend",
                                                                    "host",
                                                                    "port",
                                                                    "url",
                                                                    "app-code",
                                                                    "tokenizer",
                                                                    "served-model-name",
                                                                    "dataset",
                                                                    "dataset-type",
                                                                    "num-prompts",
                                                                    "request-rate",
                                                                    "concurrent-num",
                                                                    "max-tokens",
                                                                    "max-prompt-tokens",
                                                                    "request-time",
                                                                    "max-requests",
                                                                    "is-evenly-rate",
                                                                    "benchmark-csv",
                                                                    "best-of",
                                                                    "use-beam-search",
                                                                    "seed"}},
                                                                  {"serve",
                                                                   {"backend",
                                                                    "base-url",
                                                                    "host",
                                                                    "port",
                                                                    "endpoint",
                                                                    "dataset-name",
                                                                    "dataset-path",
                                                                    "model",
                                                                    "tokenizer",
                                                                    "num-prompts",
                                                                    "request-rate",
                                                                    "burstiness",
                                                                    "max-concurrency",
                                                                    "seed",
                                                                    "ignore-eos",
                                                                    "percentile-metrics",
                                                                    "metric-percentiles",
                                                                    "goodput",
                                                                    "save-result",
                                                                    "save-detailed",
                                                                    "append-result",
                                                                    "metadata",
                                                                    "result-dir",
                                                                    "result-filename",
                                                                    "random-input-len",
                                                                    "random-output-len",
                                                                    "random-range-ratio",
                                                                    "random-prefix-len",
                                                                    "sharegpt-output-len",
                                                                    "lora-modules",
                                                                    "ramp-up-strategy",
                                                                    "ramp-up-start-rps",
                                                                    "ramp-up-end-rps",
                                                                    "num-warmups",
                                                                    "plot-timeline",
                                                                    "extra-body",
                                                                    "header",
                                                                    "insecure"}}};
  for (const auto& [command, flags] : kFlags) {
    const std::string help = bench({command, "--help"}).output;
    for (const char* flag : flags)
      EXPECT_TRUE(help.find(fmt::format("--{} ", flag)) != std::string::npos ||
                  help.find(fmt::format("--{},", flag)) != std::string::npos)
          << command << " --" << flag;
  }
}

TEST(BenchFlags, RoundsCanBeSpreadOut) {
  const MockLlm server({.ttft_ms = 1, .gap_ms = 1});
  ASSERT_EQ(
      bench({"parallel", "--port", port_of(server), "--parallel-num", "5", "--prompt-tokens", "4", "--output-tokens",
             "1", "--epochs", "2", "--num-warmups", "0", "--request-rate", "20", "--use-pd-separate"})
          .exit_code,
      0);
  const std::vector<double> arrivals = server.arrivals_s();  // the first is the probe
  ASSERT_EQ(arrivals.size(), 11u);
  std::vector<double> gaps;
  for (const size_t round : {1u, 6u})
    for (size_t i = 0; i < 4; ++i) gaps.push_back(arrivals[round + i + 1] - arrivals[round + i]);
  EXPECT_NEAR(report::Sample(gaps).percentile(50), 0.05, 0.01);
}

TEST(BenchFlags, TimelinesLieBesideTheResult) {
  const MockLlm server({.ttft_ms = 1, .gap_ms = 1});
  const TemporaryDirectory folder;
  ASSERT_EQ(
      bench({"serve", "--port", port_of(server), "--num-prompts", "4", "--random-input-len", "4", "--random-output-len",
             "4", "--plot-timeline", "--result-dir", folder.path(), "--result-filename", "r.json"})
          .exit_code,
      0);
  EXPECT_TRUE(file_exists(folder.file("r.json")));
  EXPECT_NE(read_file(folder.file("r.timeline.html"))->find("<svg"), std::string::npos);
}

TEST(BenchFlags, RequestTimeBoundsThePoint) {
  const MockLlm server({.ttft_ms = 1, .gap_ms = 1});
  const TemporaryDirectory folder;
  ASSERT_TRUE(
      write_file(folder.file("d.json"), R"([{"input":"one two three four five","output":"six seven eight nine"}])")
          .ok());
  ASSERT_EQ(bench({"serving",
                   "--port",
                   port_of(server),
                   "--tokenizer",
                   model(),
                   "--dataset",
                   folder.file("d.json"),
                   "--dataset-type",
                   "custom",
                   "--request-rate",
                   "20",
                   "50",
                   "--request-time",
                   "0.5",
                   "--max-requests",
                   "12",
                   "--num-warmups",
                   "0",
                   "--point-pause-s",
                   "0"})
                .exit_code,
            0);
  EXPECT_EQ(server.requests(), 1 + 10 + 12);
}

TEST(BenchPrompts, LengthsFollowTheServersCount) {
  const MockLlm server({.ttft_ms = 1, .gap_ms = 1, .bytes_per_token = 3});
  const CommandResult result =
      bench({"parallel", "--backend", "openai-chat", "--port", port_of(server), "--tokenizer", model()}, kSmall);
  ASSERT_EQ(result.exit_code, 0) << result.output;
  EXPECT_NE(result.output.find("made anew by its count"), std::string::npos) << result.output;
  const std::string text = Json::parse(server.bodies().back())["messages"][0]["content"];
  EXPECT_EQ((text.size() + 2) / 3, 8u);
  EXPECT_EQ(bench({"parallel", "--backend", "openai-chat", "--port", port_of(server), "--tokenizer", model(),
                   "--verify-prompts=false"},
                  kSmall)
                .output.find("made anew"),
            std::string::npos);
}

TEST(BenchCache, IsEmptiedBeforeEachPointAndItsShareShown) {
  const MockLlm server({.ttft_ms = 1, .gap_ms = 1});
  const CommandResult result =
      bench({"parallel", "--port", port_of(server), "--reset-prefix-cache", "--parallel-num", "1", "2",
             "--prompt-tokens", "8", "--output-tokens", "2", "--epochs", "1", "--point-pause-s", "0"});
  EXPECT_EQ(server.cache_resets(), 2);
  EXPECT_NE(result.output.find(table_row("Cached prompt tokens (%):", "50.00")), std::string::npos) << result.output;
}

TEST(BenchErrors, EachIsOneLineThatSaysWhatToDo) {
  const MockLlm denied({.status = 401, .body = R"({"error":{"message":"bad key"}})"});
  const MockLlm busy({.status = 429, .body = R"({"error":{"message":"slow down"}})"});
  const MockLlm fine({.ttft_ms = 1, .gap_ms = 1, .model = "served"});
  const TemporaryDirectory folder;
  const std::string ca = folder.file("ca.pem");
  const TlsFront good(fine.port(), {}, ca);
  const TlsFront expired(fine.port(), {.from_s = -86'400 * 9, .to_s = -86'400}, folder.file("b.pem"));
  const TlsFront foreign(fine.port(), {.names = {"a.example"}}, folder.file("c.pem"));
  const TlsFront own(fine.port(), {.self_signed = true}, folder.file("d.pem"));
  const auto https = [](const TlsFront& front) { return fmt::format("https://localhost:{}", front.port()); };
  const struct {
    std::vector<std::string> arguments;
    const char* said;
  } cases[] = {
      {{"parallel", "--prompt-tokens", "1", "2", "--output-tokens", "3"}, "they are pairs, so as many are wanted"},
      {{"speculative", "--tokenizer", "x"}, "--dataset-type human-eval needs --dataset-path"},
      {{"speculative", "--tokenizer", "x", "--dataset-path", "/no.jsonl"},
       "--dataset-path /no.jsonl: there is no such file"},
      {{"parallel", "--host", "127.0.0.1", "--port", "1"},
       "unreachable: connecting to 127.0.0.1:1: Connection refused"},
      {{"parallel", "--host", "no-such-host.invalid"}, "unreachable: resolving no-such-host.invalid:8000"},
      {{"parallel", "--url", "ftp://x/y"}, "--url 'ftp://x/y': http://HOST:PORT/PATH or https:// is wanted"},
      {{"parallel", "--url", "http://x:0/y"}, "the port is no number from 1 to 65535"},
      {{"parallel", "--base-url", fmt::format("https://localhost:{}", fine.port())}, "does not speak TLS; is it http?"},
      {{"parallel", "--host", "localhost", "--port", std::to_string(good.port())}, "is it https?"},
      {{"parallel", "--port", port_of(denied)}, "bad key; the key is taken from OPENAI_API_KEY or --header"},
      {{"serving", "--port", port_of(busy)}, "(Too Many Requests): slow down; the server limits requests"},
      {{"parallel", "--port", port_of(fine), "--model", "other"}, "asked for model 'other', the server has 'served'"},
      {{"parallel", "--base-url", https(good)}, "signer is unknown to this machine; --ca-file FILE"},
      {{"parallel", "--base-url", https(expired), "--ca-file", folder.file("b.pem")}, "the certificate has expired on"},
      {{"parallel", "--base-url", https(foreign), "--ca-file", folder.file("c.pem")},
       "the certificate is for a.example, not for localhost"},
      {{"parallel", "--base-url", https(own)}, "the certificate is self-signed"},
      {{"parallel", "--base-url", https(good), "--ca-file", "/no.pem"}, "--ca-file /no.pem: there is no such file"},
      {{"parallel", "--insecure"}, "--insecure is for https"},
      {{"modal", "--backend", "tgi", "--port", port_of(fine)}, "--backend tgi takes no pictures"},
      {{"modal", "--height", "0"}, "sides of 1 to 8192 are wanted"},
      {{"serving", "--request-time", "0", "--dataset", "x", "--dataset-type", "custom"}, "must be above 0"},
  };
  for (const auto& c : cases) {
    const CommandResult result = bench(c.arguments);
    EXPECT_EQ(result.exit_code, 1) << result.output;
    EXPECT_NE(result.output.find(c.said), std::string::npos) << c.said << " in: " << result.output;
    EXPECT_TRUE(result.output.starts_with("millrace: ")) << result.output;
    EXPECT_EQ(split(result.output, '\n').size(), 2u) << result.output;
  }
}

}  // namespace
}  // namespace millrace
