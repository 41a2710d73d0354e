// The result tables that the Python load scripts write, and ours. Files are UTF-8 with a byte order mark, commas,
// lines that end in CR LF, floats rounded to four digits, mode 0600; a file that exists is left alone and the time is
// added to the new one's name.
#pragma once
#include <string>
#include <vector>

#include "bench/session.h"

namespace millrace::bench {

enum class CsvDialect {
  kGen1,  // Chinese titles; static latencies in ms, with the "increment latency": gaps between chunks that overlap no
          // request's time to first token
  kGen2,  // English titles; static latencies in s
  kMillrace,
};
Result<CsvDialect> find_csv_dialect(std::string_view name);  // "gen1", "gen2", "millrace"

struct CsvTable {
  std::vector<std::string> titles;
  std::vector<std::vector<std::string>> rows;
  std::string text() const;  // without the mark
};
// Of `millrace bench parallel`; rows sorted by input, output, concurrency (with speculation by concurrency).
// `num_speculative_tokens` > 0 adds the acceptance columns.
CsvTable static_table(CsvDialect dialect, const std::vector<Point>& points, int64_t num_speculative_tokens);
// Of `millrace bench serving`; rows sorted by rate.
CsvTable dynamic_table(CsvDialect dialect, const std::vector<Point>& points);

// As Python prints round(x, 4): "3.0", "0.1234".
std::string python_float(double value);
// Writes the table and returns the path taken.
Result<std::string> write_csv(const std::string& path, const CsvTable& table);

}  // namespace millrace::bench
