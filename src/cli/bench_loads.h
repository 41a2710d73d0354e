// The loads of `bench serving` and `bench parallel` as plain values, for the commands that send several of them.
#pragma once
#include <string>
#include <vector>

#include "cli/bench_flags.h"

namespace millrace::cli {

// Requests at exponential gaps, one point for each rate.
struct ServingLoad {
  std::vector<std::string> request_rate;        // as on the command line: "0.05", "inf"
  std::vector<int64_t> num_prompts = {};        // one for all rates, or as many; none: as on the command line
  std::string dataset = {}, dataset_type = {};  // of the Python load scripts; both "": random prompts
  int64_t max_tokens = 1024, max_prompt_tokens = 900;
  int64_t random_input_tokens = 1024, random_output_tokens = 128;
  uint64_t seed = 0;
  int64_t num_warmups = 1;
};
// What can be said before a server is asked: lengths of lists, rates, missing files.
Status check_serving_load(const ServingLoad& load);
// The points that were measured; fewer after Ctrl-C.
Result<std::vector<bench::Point>> run_serving_load(const ServingLoad& load, LoadSetup& setup);

// Rounds of random requests, one point for each pair of lengths and number at once.
struct ParallelLoad {
  int64_t epochs = 5;
  std::vector<int64_t> parallel_num = {1, 2, 4, 8}, prompt_tokens = {512, 1024}, output_tokens = {256, 256};
  uint64_t seed = 0;
  int64_t num_warmups = 4;
};
Status check_parallel_load(const ParallelLoad& load);
Result<std::vector<bench::Point>> run_parallel_load(const ParallelLoad& load, LoadSetup& setup);

}  // namespace millrace::cli
