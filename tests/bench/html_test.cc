// The page that `millrace bench` writes: its size and its numbers as a browser shows them.
#include "bench/html.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/random.h"
#include "bench/outputs.h"
#include "bench/validity.h"
#include "tests/report/browser.h"

namespace millrace::bench {
namespace {

// `requests` answers of 64 tokens at `rate` requests/s; every 97th is refused.
Point point(double rate, int requests, uint64_t seed) {
  Random random(seed);
  Point p;
  for (int i = 0; i < requests; ++i) {
    const double due = i / rate;
    RequestRecord r{.index = i, .scheduled_s = due, .sent_s = due + 1e-4, .head_s = due + 0.01};
    r.first_token_s = due + 0.1 + 0.1 * static_cast<double>(random.uniform());
    for (int t = 0; t < 64; ++t) r.chunks.push_back({r.first_token_s + 0.02 * t, 1});
    r.last_token_s = r.done_s = r.chunks.back().at_s;
    r.prompt_tokens = 100;
    r.output_tokens = r.requested_output_tokens = 64;
    r.output_source = r.prompt_source = CountSource::kUsage;
    if (i % 97 == 96)
      r = {.index = i,
           .scheduled_s = due,
           .sent_s = due,
           .done_s = due + 0.01,
           .outcome = Outcome::kRefused,
           .http_status = 429,
           .error = "<too many>"};
    p.run.requests.push_back(std::move(r));
  }
  p.run.command = "serving", p.run.model = "m", p.run.dataset = "random", p.run.arrival = "constant";
  p.run.request_rate = rate, p.run.planned_requests = requests;
  p.run.last_issue_s = requests / rate;
  p.run.wall_s = p.run.requests.back().done_s;
  p.run.client.loop_lag_ms.assign(2000, 0.05);
  p.measures = measure(p.run, {{Metric::kTtft, 150}, {Metric::kTpot, 50}});
  p.checks = check_validity(p.run, p.measures);
  return p;
}

TEST(BenchReport, TenThousandRequestsStayBelowThreeMegabytes) {
  const size_t one = html_report("t", {point(40, 10'000, 1)}).to_html().size();
  std::vector<Point> points;
  for (int i = 0; i < 8; ++i) points.push_back(point(10 + 10 * i, 1250, static_cast<uint64_t>(i)));
  const size_t several = html_report("t", points).to_html().size();
  RecordProperty("bytes_one_point", static_cast<int>(one));
  RecordProperty("bytes_eight_points", static_cast<int>(several));
  EXPECT_LT(one, 3'000'000u);
  EXPECT_LT(several, 3'000'000u);
}

TEST(BenchReportInChromium, TenThousandRequestsShowTheirNumbers) {
  MR_NEED_CHROMIUM(browser);
  const std::vector<Point> points = {point(20, 5000, 1), point(80, 5000, 2)};
  const Json seen = seen_by_browser(html_report("Two rates", points).to_html(), browser);
  EXPECT_EQ(seen["valid"], "true");
  EXPECT_EQ(seen["marks"], 0);
  EXPECT_EQ(seen["resources"], 0);
  EXPECT_EQ(seen["charts"], 4 + 2 * 6);  // the panels against the rate, six charts for each point
  // The summary, cell by cell as the program computes it.
  const report::Table summary = summary_table(points);
  for (size_t row = 0; row < summary.rows().size(); ++row)
    EXPECT_EQ(seen["tables"][0][row + 1], Json(summary.rows()[row]));
  EXPECT_EQ(seen["tables"][0][1][1], "4949");
  EXPECT_EQ(seen["tables"][0][1][2], "51");
  const Json& crossings = seen["tables"][1];
  EXPECT_EQ(crossings[1][0], "P90 Time to First Token");
  EXPECT_EQ(crossings[1][3], "at or below 20.00");  // P90 is 190 ms, the limit 150
  EXPECT_EQ(crossings[2][3], "not reached");
  const Json& data = seen["data"]["points"];
  EXPECT_EQ(data[1]["requests"]["sent_s"].size(), 5000u);
  EXPECT_EQ(data[1]["figures"]["completed"], 4949);
  EXPECT_NEAR(data[0]["figures"]["tpot_ms"]["p50"].get<double>(), 20, 1e-6);
  EXPECT_EQ(data[0]["figures"]["slo"]["ttft"], 150);
  // Under the pointer of the first panel: the nearer rate with its P90.
  EXPECT_NE(seen["tips"][0].get<std::string>().find("m: ms"), std::string::npos) << seen["tips"][0];
}

}  // namespace
}  // namespace millrace::bench
