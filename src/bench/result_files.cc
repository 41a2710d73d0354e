#include "bench/result_files.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/text.h"
#include "report/table.h"

namespace millrace::bench {
namespace {

constexpr size_t kMaxFileBytes = size_t{1} << 30;
constexpr double kLargest = 1e12;  // of any time, count or throughput
constexpr size_t kMaxFiles = 10'000;

Result<double> checked(const Json& value, std::string_view what) {
  if (!value.is_number()) return invalid_argument("\"{}\" is {}; a number is wanted", what, json_excerpt(value));
  const double number = value.get<double>();
  if (!(number >= 0 && number <= kLargest))
    return invalid_argument("\"{}\" is {}; 0 to {:g} is wanted", what, json_excerpt(value), kLargest);
  return number;
}

const Json* find(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

Result<double> number_at(const Json& object, const char* key) {
  const Json* value = find(object, key);
  if (!value) return invalid_argument("there is no \"{}\"", key);
  return checked(*value, key);
}

// NaN when it is not there.
Result<double> number_if_there(const Json& object, const char* key) {
  const Json* value = find(object, key);
  if (!value) return double{NAN};
  return checked(*value, key);
}

Result<std::vector<double>> numbers(const Json& list, std::string_view what) {
  if (!list.is_array()) return invalid_argument("\"{}\" is {}; a list is wanted", what, json_excerpt(list));
  std::vector<double> values;
  values.reserve(list.size());
  for (const Json& value : list) {
    MR_ASSIGN_OR_RETURN(const double number, checked(value, what));
    values.push_back(number);
  }
  return values;
}

// Nothing for "inf" or null: such a point has no place on the axis.
Result<std::optional<double>> rate_of(const Json& value) {
  if (value.is_null() || (value.is_string() && value.get<std::string>() == "inf")) return std::optional<double>();
  MR_ASSIGN_OR_RETURN(const double rate, checked(value, "request_rate"));
  if (rate <= 0) return invalid_argument("\"request_rate\" is {}; above 0 is wanted", json_excerpt(value));
  return std::optional(rate);
}

// Ours.

double milliseconds(double from_s, double to_s) { return std::isnan(from_s) ? NAN : (to_s - from_s) * 1e3; }

Result<SweepAnswer> our_answer(const Json& request) {
  MR_ASSIGN_OR_RETURN(const double sent, number_at(request, "sent_s"));
  MR_ASSIGN_OR_RETURN(const double first, number_if_there(request, "first_token_s"));
  MR_ASSIGN_OR_RETURN(const double last, number_if_there(request, "last_token_s"));
  MR_ASSIGN_OR_RETURN(const double tokens, number_if_there(request, "output_tokens"));
  if (first < sent || last < first) return invalid_argument("a request has its tokens before it was sent");
  return SweepAnswer{.ttft_ms = milliseconds(sent, first),
                     .tpot_ms = tokens > 1 ? milliseconds(first, last) / (tokens - 1) : NAN,
                     .e2el_ms = milliseconds(sent, last),
                     .output_tokens = std::isnan(tokens) ? 0 : tokens};
}

Status read_our_requests(const Json& requests, SweepPoint& point) {
  point.answers.emplace();
  for (const Json& request : requests) {
    if (!request.is_object()) return invalid_argument("a request is {}; an object is wanted", json_excerpt(request));
    const Json* outcome = find(request, "outcome");
    if (!outcome || !outcome->is_string()) return invalid_argument("a request has no \"outcome\"");
    if (*outcome == kOutcomeNames[static_cast<size_t>(Outcome::kInterrupted)]) continue;
    ++point.issued;
    if (*outcome != kOutcomeNames[static_cast<size_t>(Outcome::kCompleted)]) continue;
    ++point.completed;
    MR_ASSIGN_OR_RETURN(const SweepAnswer answer, our_answer(request));
    point.answers->push_back(answer);
  }
  return {};
}

std::string our_problem(const Json& point) {
  const Json* validity = find(point, "validity");
  if (!validity || !validity->is_object()) return "no validity is stated";
  const Json* valid = find(*validity, "valid");
  if (valid && *valid == true) return "";
  if (const Json* items = find(*validity, "items"); items && items->is_array())
    for (const Json& item : *items)
      if (item.is_object() && item.value("mark", Json()) == "INVALID" && item.value("name", Json()).is_string() &&
          item.value("found", Json()).is_string())
        return item["name"].get<std::string>() + " " + item["found"].get<std::string>();
  return "the file says that its figures are invalid";
}

Result<std::optional<SweepPoint>> our_point(const Json& json) {
  const Json *config = json.is_object() ? find(json, "config") : nullptr,
             *figures = json.is_object() ? find(json, "figures") : nullptr,
             *requests = json.is_object() ? find(json, "requests") : nullptr;
  if (!config || !config->is_object() || !figures || !figures->is_object() || !requests || !requests->is_array())
    return invalid_argument("a point lacks one of \"config\", \"figures\" and \"requests\"");
  MR_ASSIGN_OR_RETURN(const std::optional<double> rate, rate_of(config->value("request_rate", Json())));
  if (!rate) return std::optional<SweepPoint>();
  SweepPoint point{.rate = *rate};
  MR_ASSIGN_OR_RETURN(const double planned, number_at(*config, "planned_requests"));
  point.planned = static_cast<int64_t>(planned);
  MR_ASSIGN_OR_RETURN(point.duration_s, number_at(*figures, "duration_s"));
  MR_ASSIGN_OR_RETURN(point.output_throughput, number_at(*figures, "output_throughput"));
  MR_RETURN_IF_ERROR(read_our_requests(*requests, point));
  fill_from_answers(point);
  point.judged = true;
  point.problem = our_problem(json);
  return std::optional(std::move(point));
}

Result<std::vector<SweepPoint>> our_points(const Json& json) {
  if (json.value("version", Json()) != 1)
    return invalid_argument("version {} of our results; 1 is known", json_excerpt(json.value("version", Json())));
  const Json* list = find(json, "points");
  if (!list || !list->is_array()) return invalid_argument("there is no list \"points\"");
  std::vector<SweepPoint> points;
  for (const Json& each : *list) {
    MR_ASSIGN_OR_RETURN(std::optional<SweepPoint> point, our_point(each));
    if (point) points.push_back(std::move(*point));
  }
  return points;
}

// vLLM's.

// The per-request lists of --save-detailed.
struct VllmLists {
  std::vector<double> ttfts, output_lens, latencies;
  std::vector<bool> failed;
};

Result<std::vector<double>> sums(const Json& lists) {
  if (!lists.is_array()) return invalid_argument("\"itls\" is {}; a list is wanted", json_excerpt(lists));
  std::vector<double> out;
  for (const Json& list : lists) {
    MR_ASSIGN_OR_RETURN(const std::vector<double> gaps, numbers(list, "itls"));
    double sum = 0;
    for (const double gap : gaps) sum += gap;
    out.push_back(sum);
  }
  return out;
}

Result<VllmLists> vllm_lists(const Json& json) {
  VllmLists lists;
  MR_ASSIGN_OR_RETURN(lists.ttfts, numbers(json["ttfts"], "ttfts"));
  MR_ASSIGN_OR_RETURN(lists.output_lens, numbers(json.value("output_lens", Json()), "output_lens"));
  const size_t count = lists.ttfts.size();
  if (const Json* latencies = find(json, "latencies")) {
    MR_ASSIGN_OR_RETURN(lists.latencies, numbers(*latencies, "latencies"));
  } else {
    MR_ASSIGN_OR_RETURN(lists.latencies, sums(json.value("itls", Json())));
    for (size_t i = 0; i < std::min(count, lists.latencies.size()); ++i) lists.latencies[i] += lists.ttfts[i];
  }
  if (lists.output_lens.size() != count || lists.latencies.size() != count)
    return invalid_argument("the per-request lists have {}, {} and {} entries; as many are wanted", count,
                            lists.output_lens.size(), lists.latencies.size());
  lists.failed.resize(count);
  const Json* errors = find(json, "errors");
  if (errors && (!errors->is_array() || errors->size() != count))
    return invalid_argument("\"errors\" is no list of {} texts", count);
  for (size_t i = 0; i < count; ++i)
    lists.failed[i] =
        errors ? (*errors)[i].is_string() && !(*errors)[i].get<std::string>().empty() : lists.ttfts[i] == 0;
  return lists;
}

Status read_vllm_answers(const Json& json, SweepPoint& point) {
  MR_ASSIGN_OR_RETURN(const VllmLists lists, vllm_lists(json));
  point.answers.emplace();
  for (size_t i = 0; i < lists.ttfts.size(); ++i) {
    if (lists.failed[i]) continue;
    const double ttft = lists.ttfts[i] * 1e3, e2el = std::max(lists.latencies[i] * 1e3, ttft), n = lists.output_lens[i];
    point.answers->push_back({ttft, n > 1 ? (e2el - ttft) / (n - 1) : NAN, e2el, n});
  }
  fill_from_answers(point);
  return {};
}

// vLLM 0.6.1 and before wrote "best_of", and the mean and the median of E2EL in each other's place.
bool has_swapped_e2el(const Json& json) { return json.contains("best_of") && !json.contains("failed"); }

Status read_vllm_figures(const Json& json, SweepPoint& point) {
  MR_ASSIGN_OR_RETURN(point.ttft_p90_ms, number_if_there(json, "p90_ttft_ms"));
  MR_ASSIGN_OR_RETURN(point.tpot_p90_ms, number_if_there(json, "p90_tpot_ms"));
  MR_ASSIGN_OR_RETURN(point.e2el_p90_ms, number_if_there(json, "p90_e2el_ms"));
  MR_ASSIGN_OR_RETURN(point.e2el_mean_ms, number_if_there(json, "mean_e2el_ms"));
  MR_ASSIGN_OR_RETURN(point.e2el_median_ms, number_if_there(json, "median_e2el_ms"));
  if (has_swapped_e2el(json)) std::swap(point.e2el_mean_ms, point.e2el_median_ms);
  if (std::isnan(point.ttft_p90_ms) && std::isnan(point.tpot_p90_ms))
    return invalid_argument(
        "this vLLM result has neither P90 nor per-request lists; run it with --metric-percentiles 90 or "
        "--save-detailed");
  return {};
}

Result<std::optional<SweepPoint>> vllm_point(const Json& json) {
  MR_ASSIGN_OR_RETURN(const std::optional<double> rate, rate_of(json.value("request_rate", Json())));
  if (!rate) return std::optional<SweepPoint>();
  SweepPoint point{.rate = *rate};
  MR_ASSIGN_OR_RETURN(const double planned, number_at(json, "num_prompts"));
  MR_ASSIGN_OR_RETURN(const double completed, number_at(json, "completed"));
  MR_ASSIGN_OR_RETURN(const double failed, number_if_there(json, "failed"));
  MR_ASSIGN_OR_RETURN(point.duration_s, number_at(json, "duration"));
  MR_ASSIGN_OR_RETURN(point.output_throughput, number_at(json, "output_throughput"));
  point.planned = static_cast<int64_t>(planned);
  point.completed = static_cast<int64_t>(completed);
  point.issued = static_cast<int64_t>(std::isnan(failed) ? planned : completed + failed);
  MR_RETURN_IF_ERROR(find(json, "ttfts") ? read_vllm_answers(json, point) : read_vllm_figures(json, point));
  return std::optional(std::move(point));
}

bool is_vllm(const Json& json) {
  return json.is_object() && json.contains("request_throughput") && json.contains("request_rate");
}

// Files whose name tells the rate.

struct NameNumbers {
  double rate = 0;
  int64_t requests = 0;  // 0: not told
};

// A number that is the whole text, or ends where a time stamp ("_2026...") begins.
std::optional<double> whole_number(const std::string& text) {
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  if (end == text.c_str() || (*end != '\0' && *end != '_') || !(value > 0 && value <= 1e9)) return std::nullopt;
  return value;
}

Result<NameNumbers> numbers_of_name(std::string_view name) {
  const std::vector<std::string> parts = split(name.substr(0, name.rfind('.')), '-');
  const auto rate = whole_number(parts.back());
  if (!rate) return invalid_argument("the name does not end in the request rate, as in 1024-512-300-0.5.csv");
  NameNumbers found{.rate = *rate};
  if (parts.size() > 1)
    if (const auto requests = whole_number(parts[parts.size() - 2])) found.requests = static_cast<int64_t>(*requests);
  return found;
}

struct Span {
  double begin = INFINITY, end = 0;
};

Result<SweepAnswer> distserve_answer(const Json& json, Span& span) {
  if (!json.is_object()) return invalid_argument("an entry is {}; an object is wanted", json_excerpt(json));
  MR_ASSIGN_OR_RETURN(const double begin, number_at(json, "start_time"));
  MR_ASSIGN_OR_RETURN(const double end, number_at(json, "end_time"));
  MR_ASSIGN_OR_RETURN(const double tokens, number_at(json, "output_len"));
  MR_ASSIGN_OR_RETURN(const std::vector<double> times,
                      numbers(json.value("token_timestamps", Json()), "token_timestamps"));
  if (times.empty() || times.front() < begin || times.back() < times.front() || end < begin)
    return invalid_argument("\"token_timestamps\" are not in the order start, first, last");
  span.begin = std::min(span.begin, begin), span.end = std::max(span.end, end);
  return SweepAnswer{.ttft_ms = (times.front() - begin) * 1e3,
                     .tpot_ms = tokens > 1 ? (times.back() - times.front()) * 1e3 / (tokens - 1) : NAN,
                     .e2el_ms = (times.back() - begin) * 1e3,
                     .output_tokens = tokens};
}

Result<std::vector<SweepPoint>> distserve_points(const Json& list, std::string_view name) {
  if (list.empty()) return invalid_argument("the list is empty");
  MR_ASSIGN_OR_RETURN(const NameNumbers from_name, numbers_of_name(name));
  SweepPoint point{.rate = from_name.rate, .answers = std::vector<SweepAnswer>()};
  Span span;
  double tokens = 0;
  for (const Json& each : list) {
    MR_ASSIGN_OR_RETURN(const SweepAnswer answer, distserve_answer(each, span));
    tokens += answer.output_tokens;
    point.answers->push_back(answer);
  }
  point.issued = point.completed = static_cast<int64_t>(list.size());
  point.planned = from_name.requests > 0 ? from_name.requests : point.issued;
  point.duration_s = span.end - span.begin;
  point.output_throughput = point.duration_s > 0 ? tokens / point.duration_s : NAN;
  fill_from_answers(point);
  return std::vector{std::move(point)};
}

class CsvRow {
 public:
  CsvRow(const std::vector<std::string>& titles, const std::vector<std::string>& cells)
      : titles_(titles), cells_(cells) {}
  // NaN when there is no such column or its cell is empty.
  Result<double> number(std::string_view title, double factor = 1) const {
    const size_t column = static_cast<size_t>(std::find(titles_.begin(), titles_.end(), title) - titles_.begin());
    if (column >= titles_.size() || column >= cells_.size() || cells_[column].empty()) return double{NAN};
    char* end = nullptr;
    const double value = std::strtod(cells_[column].c_str(), &end);
    if (*end != '\0' || !(value >= 0 && value <= kLargest))
      return invalid_argument("column {} holds '{}'; a number from 0 is wanted", title, cells_[column].substr(0, 60));
    return value * factor;
  }

 private:
  const std::vector<std::string>&titles_, &cells_;
};

Status read_static_row(const CsvRow& row, SweepPoint& point) {
  MR_ASSIGN_OR_RETURN(point.ttft_p90_ms, row.number("TP90_TTFT(s)", 1e3));
  MR_ASSIGN_OR_RETURN(point.tpot_p90_ms, row.number("TP90_TPOT(s)", 1e3));
  MR_ASSIGN_OR_RETURN(point.e2el_p90_ms, row.number("TP90_E2E(s)", 1e3));
  MR_ASSIGN_OR_RETURN(point.e2el_mean_ms, row.number("AVG_E2E(s)", 1e3));
  MR_ASSIGN_OR_RETURN(point.output_throughput, row.number("Output_Token_Throughput(tokens/s)"));
  MR_ASSIGN_OR_RETURN(point.duration_s, row.number("Total_Time(s)"));
  point.e2el_median_ms = NAN;
  if (!std::isnan(point.ttft_p90_ms)) return {};
  MR_ASSIGN_OR_RETURN(point.ttft_p90_ms, row.number("首tokens时延TP90（ms）"));
  MR_ASSIGN_OR_RETURN(point.output_throughput, row.number("输出tokens总吞吐"));
  if (std::isnan(point.ttft_p90_ms))
    return invalid_argument(
        "no column TP90_TTFT(s) or 首tokens时延TP90（ms）; a static table of the load scripts is wanted");
  return {};
}

Result<std::vector<SweepPoint>> csv_points(std::string_view text, std::string_view name) {
  MR_ASSIGN_OR_RETURN(const auto rows, report::parse_csv(text));
  if (rows.size() != 2)
    return invalid_argument("{} rows below the titles; one is wanted, a file for each rate",
                            rows.empty() ? 0 : rows.size() - 1);
  MR_ASSIGN_OR_RETURN(const NameNumbers from_name, numbers_of_name(name));
  SweepPoint point{.rate = from_name.rate, .planned = from_name.requests};
  point.issued = point.completed = from_name.requests;
  MR_RETURN_IF_ERROR(read_static_row(CsvRow(rows[0], rows[1]), point));
  return std::vector{std::move(point)};
}

Result<std::vector<SweepPoint>> points_of_json(const Json& json, std::string_view name) {
  if (json.is_array()) return distserve_points(json, name);
  if (json.is_object() && json.value("format", Json()) == "millrace-bench") return our_points(json);
  if (!is_vllm(json))
    return invalid_argument("this is no result of 'millrace bench', 'vllm bench serve' or DistServe: it is {}",
                            json_excerpt(json));
  MR_ASSIGN_OR_RETURN(std::optional<SweepPoint> point, vllm_point(json));
  std::vector<SweepPoint> points;
  if (point) points.push_back(std::move(*point));
  return points;
}

// Objects one below the other, as --append-result writes them.
Result<std::vector<SweepPoint>> points_of_lines(std::string_view text, std::string_view name) {
  std::vector<SweepPoint> points;
  for (const std::string& line : split(text, '\n')) {
    if (trim(line).empty()) continue;
    MR_ASSIGN_OR_RETURN(const Json json, parse_json(line));
    MR_ASSIGN_OR_RETURN(std::vector<SweepPoint> more, points_of_json(json, name));
    std::move(more.begin(), more.end(), std::back_inserter(points));
  }
  return points;
}

bool has_several_lines(std::string_view text) { return trim(text).find("}\n{") != std::string_view::npos; }

}  // namespace

Result<std::vector<SweepPoint>> parse_results(std::string_view text, std::string_view name) {
  if (name.ends_with(".csv")) return csv_points(text, name);
  if (has_several_lines(text)) return points_of_lines(text, name);
  MR_ASSIGN_OR_RETURN(const Json json, parse_json(text, {.max_bytes = kMaxFileBytes}));
  return points_of_json(json, name);
}

namespace {

std::string without_ending(const std::string& name) { return name.substr(0, name.rfind('.')); }

bool is_result_name(const std::string& name) {
  return (name.ends_with(".json") || name.ends_with(".exp") || name.ends_with(".csv")) &&
         !name.ends_with(".millrace.csv");
}

Result<std::vector<std::string>> result_names(const std::string& folder) {
  MR_ASSIGN_OR_RETURN(const std::vector<std::string> all, list_directory(folder));
  std::vector<std::string> names;
  for (const std::string& name : all) {
    const bool beside =
        name.ends_with(".csv") && std::binary_search(all.begin(), all.end(), without_ending(name) + ".json");
    if (is_result_name(name) && !beside) names.push_back(name);
  }
  if (names.size() > kMaxFiles)
    return invalid_argument("{}: {} result files; {} at most", folder, names.size(), kMaxFiles);
  if (names.empty()) return not_found("{}: there is no *.json, *.exp or *.csv file in it", folder);
  return names;
}

Status add_file(const std::string& path, int64_t requests_num, SweepSystem& system) {
  MR_ASSIGN_OR_RETURN(const std::string text, read_file(path, kMaxFileBytes));
  Result<std::vector<SweepPoint>> points = parse_results(text, path.substr(path.rfind('/') + 1));
  if (!points.ok()) return points.status().at(path);
  for (SweepPoint& point : *points)
    if (requests_num <= 0 || point.planned == requests_num) system.points.push_back(std::move(point));
  return {};
}

}  // namespace

Result<SweepSystem> read_system(const std::string& name, const std::string& path, int64_t requests_num) {
  SweepSystem system{name, {}};
  if (is_directory(path)) {
    MR_ASSIGN_OR_RETURN(const std::vector<std::string> names, result_names(path));
    for (const std::string& each : names) MR_RETURN_IF_ERROR(add_file(join_path(path, each), requests_num, system));
  } else {
    if (!file_exists(path)) return not_found("{}: there is no such file or folder", path);
    MR_RETURN_IF_ERROR(add_file(path, requests_num, system));
  }
  if (system.points.empty())
    return invalid_argument("{}: no result with a request rate{}", path,
                            requests_num > 0 ? fmt::format(" and {} requests (--requests-num)", requests_num) : "");
  MR_RETURN_IF_ERROR(merge_equal_rates(system));
  return system;
}

}  // namespace millrace::bench
