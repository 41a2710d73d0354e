#include "bench/csv.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cmath>
#include <ctime>

#include "base/file.h"
#include "base/text.h"

namespace millrace::bench {
namespace {

using report::Sample;
constexpr const char* kDialects[] = {"gen1", "gen2", "millrace"};

// Adds a column and its value; the titles of the first row are the table's.
class Row {
 public:
  void add(const std::string& title, double value) { add(title, python_float(value)); }
  void add(const std::string& title, int64_t value) { add(title, std::to_string(value)); }
  void add(const std::string& title, std::string value) {
    titles.push_back(title);
    cells.push_back(std::move(value));
  }
  std::vector<std::string> titles, cells;
};

// `rows` of `points`. A table with invalid figures has one more column, which says why; without it the columns are the
// format's own.
CsvTable table_of(const std::vector<Row>& rows, const std::vector<const Point*>& points) {
  CsvTable table;
  bool invalid = false;
  for (const Row& row : rows) {
    table.titles = row.titles;
    table.rows.push_back(row.cells);
  }
  for (const Point* point : points) invalid = invalid || worst(point->checks) == Level::kInvalid;
  if (!invalid) return table;
  table.titles.push_back("INVALID");
  for (size_t i = 0; i < points.size(); ++i) table.rows[i].push_back(invalid_because(points[i]->checks));
  return table;
}

double figure(const Sample& sample, std::string_view name) {
  if (name == "MAX") return sample.max();
  if (name == "MIN") return sample.min();
  if (name == "AVG") return sample.mean();
  return sample.percentile(std::stod(std::string(name.substr(2))));
}

// "TP75_TTFT(s)" for "TP75" and "TTFT(s)".
void add_figures(Row& row, const Sample& sample, const std::vector<const char*>& names, const std::string& what) {
  for (const char* name : names) row.add(fmt::format("{}_{}", name, what), figure(sample, name));
}

Sample in_seconds(const Sample& ms) {
  std::vector<double> values(ms.sorted().begin(), ms.sorted().end());
  for (double& value : values) value *= 1e-3;
  return Sample(std::move(values));
}

bool counts(const RequestRecord& r) { return r.outcome == Outcome::kCompleted && !r.chunks.empty(); }

template <class Value>
Sample over_requests(const RunRecord& run, const Value& value) {
  std::vector<double> values;
  for (const RequestRecord& r : run.requests)
    if (counts(r))
      if (const std::optional<double> v = value(r)) values.push_back(*v);
  return Sample(std::move(values));
}

// When the token with this number (from 0) arrived; tokens of one event arrive together.
double token_time(const RequestRecord& r, double number) {
  double seen = 0;
  for (const Chunk& chunk : r.chunks)
    if ((seen += chunk.tokens) > number) return chunk.at_s;
  return r.last_token_s;
}

// The stretches of time in which some request waited for its first token, merged.
std::vector<std::pair<double, double>> prefills(const RunRecord& run) {
  std::vector<std::pair<double, double>> spans, merged;
  for (const RequestRecord& r : run.requests)
    if (counts(r)) spans.emplace_back(r.sent_s, r.first_token_s);
  std::sort(spans.begin(), spans.end());
  for (const auto& span : spans) {
    if (!merged.empty() && span.first <= merged.back().second)
      merged.back().second = std::max(merged.back().second, span.second);
    else
      merged.push_back(span);
  }
  return merged;
}

Sample increment_latency_ms(const RunRecord& run) {
  const auto spans = prefills(run);
  std::vector<double> values;
  for (const RequestRecord& r : run.requests) {
    if (!counts(r)) continue;
    for (size_t i = 1; i < r.chunks.size(); ++i) {
      const double from = r.chunks[i - 1].at_s, to = r.chunks[i].at_s;
      const auto next =
          std::upper_bound(spans.begin(), spans.end(), std::pair(from, std::numeric_limits<double>::infinity()));
      const bool overlaps =
          (next != spans.end() && next->first < to) || (next != spans.begin() && std::prev(next)->second > from);
      if (!overlaps) values.push_back((to - from) * 1e3);
    }
  }
  return Sample(std::move(values));
}

// What was asked for where all requests asked for the same, else the mean of what was counted; 512.0 as Python prints
// it.
double mean_length(int64_t asked, int64_t counted, int64_t completed) {
  if (asked != kUnknown) return static_cast<double>(asked);
  return completed > 0 ? static_cast<double>(counted) / static_cast<double>(completed) : NAN;
}
double input_length(const Point& p) {
  return mean_length(p.run.input_tokens, p.measures.input_tokens, p.measures.completed);
}
double output_length(const Point& p) {
  return mean_length(p.run.output_tokens, p.measures.output_tokens, p.measures.completed);
}

void add_static_gen1(Row& row, const Point& p) {
  row.add("输入长度", input_length(p));
  row.add("输出长度", output_length(p));
  row.add("并发数", p.run.max_concurrency);
  if (!p.run.image_shape.empty()) row.add("图像尺寸", p.run.image_shape);
  row.add("输出tokens总吞吐", p.measures.output_throughput);
  const Sample& ttft = p.measures.sample(Metric::kTtft);
  row.add("首tokens时延TP90（ms）", ttft.percentile(90));
  row.add("首tokens时延TP99（ms）", ttft.percentile(99));
  row.add("最大首tokens时延（ms）", ttft.max());
  row.add("平均首tokens时延（ms）", ttft.mean());
  const Sample increment = increment_latency_ms(p.run);
  row.add("增量时延TP90（ms）", increment.percentile(90));
  row.add("增量时延TP99（ms）", increment.percentile(99));
  row.add("最大增量时延（ms）", increment.max());
  row.add("平均增量时延（ms）", increment.mean());
}

void add_acceptance(Row& row, CsvDialect dialect, const Point& p, int64_t num_speculative_tokens) {
  const auto found = acceptance(p.run, num_speculative_tokens);
  Sample rates(found ? std::vector<double>{found->rate} : std::vector<double>{});
  if (found && !found->per_request.empty())
    rates = dialect == CsvDialect::kGen1 ? found->per_request_with_own : found->per_request;
  const char* zh[] = {"投机接受率TP90", "投机接受率TP99", "投机最大接受率", "投机最小接受率", "投机平均接受率"};
  const char* names[] = {"TP90", "TP99", "MAX", "MIN", "AVG"};
  for (size_t i = 0; i < std::size(names); ++i)
    row.add(dialect == CsvDialect::kGen1 ? zh[i] : fmt::format("{}_SPEC_ACCEPT_RATE", names[i]),
            figure(rates, names[i]));
}

void add_static_gen2(Row& row, const Point& p) {
  const Measures& m = p.measures;
  const auto between = [](const RequestRecord& r) -> std::optional<double> {
    return r.output_tokens >= 2 ? std::optional(token_time(r, 1) - r.first_token_s) : std::nullopt;
  };
  const auto tpot2 = [](const RequestRecord& r) -> std::optional<double> {
    if (r.output_tokens < 3) return std::nullopt;
    return (r.last_token_s - token_time(r, 1)) / static_cast<double>(r.output_tokens - 2);
  };
  row.add("Input_Length", input_length(p));
  row.add("Output_Length", output_length(p));
  row.add("Concurrency", p.run.max_concurrency);
  if (!p.run.image_shape.empty()) row.add("Image_Shape", p.run.image_shape);
  row.add("Total_Token_Throughput(tokens/s)", m.total_throughput);
  row.add("Output_Token_Throughput(tokens/s)", m.output_throughput);
  add_figures(row, in_seconds(m.sample(Metric::kTtft)), {"TP75", "TP90", "TP95", "TP99", "MAX", "AVG"}, "TTFT(s)");
  add_figures(row, in_seconds(m.sample(Metric::kTpot)), {"TP75", "TP90", "TP95", "TP99", "MAX", "AVG"}, "TPOT(s)");
  add_figures(row, over_requests(p.run, tpot2), {"TP90", "TP95", "TP99", "MAX", "AVG"}, "TPOT_SEC(s)");
  add_figures(row, over_requests(p.run, between), {"TP90", "TP95", "TP99", "MIN", "MAX", "AVG"},
              "TIME_BETWEEN_FIRST_AND_SECOND_TOKEN(s)");
  add_figures(row, in_seconds(m.sample(Metric::kE2el)), {"TP75", "TP90", "TP95", "TP99", "MAX", "AVG"}, "E2E(s)");
  row.add("Total_Time(s)", m.duration_s);
  row.add("QPS", m.request_throughput);
  row.add("Fail_Rate", m.issued > 0 ? static_cast<double>(m.failed) / static_cast<double>(m.issued) : 0);
  row.add("Backend", p.run.backend);
  row.add("Temperature", p.run.temperature == 0 ? std::string("0") : python_float(p.run.temperature));
  row.add("Top_k", p.run.top_k);
  row.add("Top_p", p.run.top_p == 1 ? std::string("1") : python_float(p.run.top_p));
}

// Requests without generated tokens; latencies in ms.
void add_embedding(Row& row, const Point& p) {
  const Measures& m = p.measures;
  const Sample& latency = m.sample(Metric::kE2el);
  row.add("Input_Length", input_length(p));
  row.add("Concurrency", p.run.max_concurrency);
  row.add("QPS", m.request_throughput);
  row.add("INPUT_TOKEN_THROUGHPUT", m.duration_s > 0 ? static_cast<double>(m.input_tokens) / m.duration_s : 0);
  add_figures(row, latency, {"TP90", "TP99", "MAX", "AVG"}, "REQ_LATENCY");
}

void add_ours(Row& row, const Point& p, int64_t num_speculative_tokens) {
  const Measures& m = p.measures;
  row.add("input_tokens", p.run.input_tokens == kUnknown ? std::string() : std::to_string(p.run.input_tokens));
  row.add("output_tokens", p.run.output_tokens == kUnknown ? std::string() : std::to_string(p.run.output_tokens));
  row.add("max_concurrency", p.run.max_concurrency);
  if (!p.run.image_shape.empty()) row.add("image_shape", p.run.image_shape);
  row.add("request_rate", p.run.request_rate);
  row.add("issued", m.issued);
  row.add("completed", m.completed);
  row.add("failed", m.failed);
  row.add("short_outputs", m.short_outputs);
  row.add("duration_s", m.duration_s);
  row.add("request_throughput", m.request_throughput);
  row.add("output_throughput", m.output_throughput);
  row.add("total_token_throughput", m.total_throughput);
  row.add("steady_output_throughput", m.steady ? m.steady->output_throughput : NAN);
  row.add("goodput", m.limits.empty() ? NAN : m.goodput);
  row.add("slo_attainment", m.limits.empty() ? NAN : m.attainment);
  for (size_t i = 0; i < static_cast<size_t>(Metric::kCount); ++i) {
    const std::string name = kMetricNames[i];
    row.add(name + "_mean_ms", m.samples[i].mean());
    row.add(name + "_min_ms", m.samples[i].min());
    row.add(name + "_max_ms", m.samples[i].max());
    for (const int percent : {50, 75, 90, 95, 99})
      row.add(fmt::format("{}_p{}_ms", name, percent), m.samples[i].percentile(percent));
  }
  if (const auto found = acceptance(p.run, num_speculative_tokens); num_speculative_tokens > 0) {
    row.add("acceptance_rate", found ? found->rate : NAN);
    row.add("acceptance_length", found ? found->length : NAN);
    row.add("acceptance_from", std::string(!found ? "" : found->estimated ? "events" : "server counters"));
  }
  row.add("validity", std::string(kLevelNames[static_cast<size_t>(worst(p.checks))]));
}

bool fewer_at_once(const Point* a, const Point* b) { return a->run.max_concurrency < b->run.max_concurrency; }
bool shorter(const Point* a, const Point* b) {
  const auto key = [](const Point& p) { return std::tuple(input_length(p), output_length(p), p.run.max_concurrency); };
  return key(*a) < key(*b);
}
bool slower(const Point* a, const Point* b) { return a->run.request_rate < b->run.request_rate; }

std::vector<const Point*> sorted(const std::vector<Point>& points, bool (*before)(const Point*, const Point*)) {
  std::vector<const Point*> order;
  for (const Point& point : points) order.push_back(&point);
  std::stable_sort(order.begin(), order.end(), before);
  return order;
}

void add_dynamic(Row& row, CsvDialect dialect, const Point& p) {
  const Measures& m = p.measures;
  const double n = static_cast<double>(std::max<int64_t>(m.completed, 1));
  const auto rate = [](const RequestRecord& r) -> std::optional<double> {
    const double span = r.last_token_s - r.first_token_s;
    return span > 0 ? std::optional(static_cast<double>(r.output_tokens) / span) : std::nullopt;
  };
  const auto per_token_ms = [](const RequestRecord& r) -> std::optional<double> {  // n, not n - 1
    if (r.output_tokens < 1) return std::nullopt;
    return (r.last_token_s - r.first_token_s) * 1e3 / static_cast<double>(r.output_tokens);
  };
  const char* zh[] = {"数据集",
                      "输入平均长度（tokens）",
                      "输出平均长度（tokens）",
                      "请求频率（req/s）",
                      "请求吞吐（req/s）",
                      "请求平均时延（s）",
                      "平均输出tokens吞吐（tokens/s）",
                      "单请求每tokens平均时延（ms）",
                      "首tokens平均时延（ms）",
                      "输出tokens总吞吐（tokens/s）"};
  const char* en[] = {"DATASET",
                      "AVG_Input_Length",
                      "AVG_Output_Length",
                      "REQ_RATE",
                      "QPS",
                      "AVG_REQ_LATENCY",
                      "AVG_PER_REQ_OUTPUT_TOKEN_THROUGHPUT",
                      "AVG_LATENCY_PER_TOKEN_FOR_A_SINGLE_REQ",
                      "AVG_TTFT",
                      "AVG_OUTPUT_TOKEN_THROUGHPUT"};
  const char** titles = dialect == CsvDialect::kGen1 ? zh : en;
  row.add(titles[0], p.run.dataset);
  row.add(titles[1], static_cast<double>(m.input_tokens) / n);
  row.add(titles[2], static_cast<double>(m.output_tokens) / n);
  row.add(titles[3], p.run.request_rate);
  row.add(titles[4], m.request_throughput);
  row.add(titles[5], m.sample(Metric::kE2el).mean() * 1e-3);
  row.add(titles[6], over_requests(p.run, rate).mean());
  row.add(titles[7], over_requests(p.run, per_token_ms).mean());
  row.add(titles[8], m.sample(Metric::kTtft).mean());
  row.add(titles[9], m.output_throughput);
}

std::string quoted(const std::string& cell) {
  if (cell.find_first_of(",\"\r\n") == std::string::npos) return cell;
  std::string out = "\"";
  for (const char c : cell) out += c == '"' ? std::string("\"\"") : std::string(1, c);
  return out + '"';
}

std::string line(const std::vector<std::string>& cells) {
  std::string out;
  for (size_t i = 0; i < cells.size(); ++i) out += (i > 0 ? "," : "") + quoted(cells[i]);
  return out + "\r\n";
}

}  // namespace

Result<CsvDialect> find_csv_dialect(std::string_view name) {
  for (size_t i = 0; i < std::size(kDialects); ++i)
    if (name == kDialects[i]) return static_cast<CsvDialect>(i);
  return invalid_argument("'{}' is no CSV dialect; there are gen1, gen2 and millrace", name);
}

std::string python_float(double value) {
  if (std::isnan(value)) return "";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  std::string text = fmt::format("{:.4f}", value);
  while (text.ends_with('0') && text[text.size() - 2] != '.') text.pop_back();
  return text;
}

std::string CsvTable::text() const {
  std::string out = line(titles);
  for (const auto& row : rows) out += line(row);
  return out;
}

CsvTable static_table(CsvDialect dialect, const std::vector<Point>& points, int64_t num_speculative_tokens) {
  const bool speculative = num_speculative_tokens > 0;
  const auto order = sorted(points, speculative ? fewer_at_once : shorter);
  std::vector<Row> rows;
  for (const Point* point : order) {
    Row& row = rows.emplace_back();
    if (dialect == CsvDialect::kMillrace)
      add_ours(row, *point, num_speculative_tokens);
    else if (point->run.backend == "embedding")
      add_embedding(row, *point);
    else
      (dialect == CsvDialect::kGen1 ? add_static_gen1 : add_static_gen2)(row, *point);
    if (speculative && dialect != CsvDialect::kMillrace) add_acceptance(row, dialect, *point, num_speculative_tokens);
  }
  return table_of(rows, order);
}

CsvTable dynamic_table(CsvDialect dialect, const std::vector<Point>& points) {
  const auto order = sorted(points, slower);
  std::vector<Row> rows;
  for (const Point* point : order) {
    Row& row = rows.emplace_back();
    if (dialect == CsvDialect::kMillrace)
      add_ours(row, *point, 0);
    else
      add_dynamic(row, dialect, *point);
  }
  return table_of(rows, order);
}

Result<std::string> write_csv(const std::string& path, const CsvTable& table) {
  std::string taken = path;
  if (file_exists(taken)) {
    const std::time_t now = std::time(nullptr);
    std::tm parts{};
    localtime_r(&now, &parts);
    char stamp[32];
    std::strftime(stamp, sizeof stamp, "_%Y%m%d%H%M%S", &parts);
    const size_t dot = path.ends_with(".csv") ? path.size() - 4 : path.size();
    taken = path.substr(0, dot) + stamp + path.substr(dot);
  }
  MR_RETURN_IF_ERROR(write_file(taken, "\xEF\xBB\xBF" + table.text()));
  ::chmod(taken.c_str(), S_IRUSR | S_IWUSR);
  return taken;
}

}  // namespace millrace::bench
