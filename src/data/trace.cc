#include "data/trace.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/json.h"
#include "base/text.h"

namespace millrace::data {
namespace {

constexpr int64_t kMaxTokens = int64_t{1} << 24;

Result<double> number_at(const Json& row, const char* key) {
  const auto found = row.find(key);
  if (found == row.end() || !found->is_number()) return invalid_argument("\"{}\" is missing or no number", key);
  return found->get<double>();
}

Status check(const TraceRow& row) {
  if (row.at_s < 0 || row.at_s > 1e12) return invalid_argument("the time {} is out of range", row.at_s);
  if (row.input_tokens < 1 || row.input_tokens > kMaxTokens || row.output_tokens < 1 || row.output_tokens > kMaxTokens)
    return invalid_argument("lengths are {} and {} tokens; 1 to {} are wanted", row.input_tokens, row.output_tokens,
                            kMaxTokens);
  return {};
}

Result<TraceRow> mooncake_row(const std::string& line) {
  MR_ASSIGN_OR_RETURN(const Json json, parse_json(line));
  if (!json.is_object()) return invalid_argument("{}; an object is wanted", json_kind(json));
  MR_ASSIGN_OR_RETURN(const double ms, number_at(json, "timestamp"));
  MR_ASSIGN_OR_RETURN(const double input, number_at(json, "input_length"));
  MR_ASSIGN_OR_RETURN(const double output, number_at(json, "output_length"));
  if (!(input < 1e9 && output < 1e9)) return invalid_argument("a length is above 10^9 tokens");
  TraceRow row{ms * 1e-3, static_cast<int64_t>(input), static_cast<int64_t>(output), {}};
  if (const auto ids = json.find("hash_ids"); ids != json.end() && ids->is_array())
    for (const Json& id : *ids)
      if (id.is_number_integer()) row.hash_ids.push_back(id.get<int64_t>());
  return row;
}

struct CsvColumns {
  size_t time, model, input, output;
};

Result<size_t> column(const std::vector<std::string>& header, std::string_view name) {
  for (size_t i = 0; i < header.size(); ++i)
    if (trim(header[i]) == name) return i;
  return invalid_argument("the header has no column '{}'; a BurstGPT table or Mooncake lines are wanted", name);
}

Result<CsvColumns> burst_columns(const std::string& line) {
  const std::vector<std::string> header = split(line, ',');
  CsvColumns columns{};
  MR_ASSIGN_OR_RETURN(columns.time, column(header, "Timestamp"));
  MR_ASSIGN_OR_RETURN(columns.model, column(header, "Model"));
  MR_ASSIGN_OR_RETURN(columns.input, column(header, "Request tokens"));
  MR_ASSIGN_OR_RETURN(columns.output, column(header, "Response tokens"));
  return columns;
}

Result<double> number(const std::string& text) {
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  if (end == text.c_str() || !(std::abs(value) < 1e12)) return invalid_argument("'{}' is no number", text);
  return value;
}

// A row without answer tokens or of another model has output_tokens 0.
Result<TraceRow> burst_row(const CsvColumns& columns, const std::string& line) {
  const std::vector<std::string> cells = split(line, ',');
  if (cells.size() <= std::max({columns.time, columns.model, columns.input, columns.output}))
    return invalid_argument("{} columns are too few", cells.size());
  if (trim(cells[columns.model]) != "GPT-4") return TraceRow{};
  MR_ASSIGN_OR_RETURN(const double time, number(cells[columns.time]));
  MR_ASSIGN_OR_RETURN(const double input, number(cells[columns.input]));
  MR_ASSIGN_OR_RETURN(const double output, number(cells[columns.output]));
  return TraceRow{time, static_cast<int64_t>(input), static_cast<int64_t>(output), {}};
}

}  // namespace

Result<std::vector<TraceRow>> read_trace(const std::string& path) {
  MR_ASSIGN_OR_RETURN(const std::string text, read_file(path, size_t{2} << 30));
  std::vector<TraceRow> rows;
  std::optional<CsvColumns> columns;
  int64_t number = 0;
  for (const std::string& raw : split(text, '\n')) {
    ++number;
    const std::string line(trim(raw));
    if (line.empty()) continue;
    const std::string where = fmt::format("{} line {}", path, number);
    if (!line.starts_with('{') && !columns) {
      const auto found = burst_columns(line);
      if (!found.ok()) return found.status().at(where);
      columns = *found;
      continue;
    }
    Result<TraceRow> row = columns ? burst_row(*columns, line) : mooncake_row(line);
    if (!row.ok()) return row.status().at(where);
    if (columns && row->output_tokens <= 0) continue;
    if (const Status status = check(*row); !status.ok()) return status.at(where);
    rows.push_back(std::move(*row));
  }
  if (rows.empty()) return invalid_argument("{}: no usable row", path);
  std::stable_sort(rows.begin(), rows.end(), [](const auto& a, const auto& b) { return a.at_s < b.at_s; });
  const double first = rows.front().at_s;
  for (TraceRow& row : rows) row.at_s -= first;
  return rows;
}

}  // namespace millrace::data
