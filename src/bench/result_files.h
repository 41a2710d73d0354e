// Results of earlier runs, ours and other tools', as points of a rate sweep. A file may hold anything: every number,
// length and count is checked, and an error names the file and what was wanted. Any thread.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "bench/rate_sweep.h"

namespace millrace::bench {

// The points of one file that have a request rate. The format follows from the content:
//   ours             {"format": "millrace-bench", "points": [...]} of --output-json
//   vLLM             the object of --save-result, or several of them, one per line, as --append-result writes; P90
//                    comes from the per-request lists of --save-detailed, else from "p90_ttft_ms" and "p90_tpot_ms".
//                    vLLM 0.6.1 has the mean of E2EL under its median and the reverse; that is put right
//   DistServe        a list of {"prompt_len", "output_len", "start_time", "end_time", "token_timestamps"}, in seconds
//   Python scripts   a static table with one row: TTFT and TPOT of the English titles, TTFT of the Chinese ones
// The last two state no rate: it is the last number of `name`, the number of requests the one before
// ("1024-512-300-0.5.csv"). `name` is the file's name without folders.
Result<std::vector<SweepPoint>> parse_results(std::string_view text, std::string_view name);

// A file, or all *.json, *.exp and *.csv files of a folder (a table beside a *.json of the same name is left out). With
// `requests_num` above 0 only the points that were to send so many requests.
Result<SweepSystem> read_system(const std::string& name, const std::string& path, int64_t requests_num);

}  // namespace millrace::bench
