// Static load, which `millrace bench parallel`, `speculative` and `modal` share: rounds of equal requests.
#pragma once
#include <string>
#include <vector>

#include "cli/bench_flags.h"

namespace millrace::cli {

struct RoundsArgs {
  TargetFlags target;
  OutputFlags output;
  int64_t epochs = 5, num_scheduler_steps = 1, prefix_caching_num = 0, num_speculative_tokens = -1, num_warmups = 4;
  std::vector<int64_t> parallel_num = {1, 4, 8}, prompt_tokens = {512, 1024, 2048}, output_tokens = {256, 256, 256};
  std::string request_rate = "inf";  // within a round
  uint64_t seed = 0;
  bool prefix_caching = false, spec_decode = false, real_output_tokens = false, pd_separate = false;
  std::string dataset_type = "random", dataset_path;
  int image_height = 0, image_width = 0;  // > 0: every request carries a picture of its own
  std::string image_format = "jpeg";
};
void add_rounds_flags(App& app, RoundsArgs& args);

Status check_rounds(RoundsArgs& args);
// Every point on every server, one after the other, with the same prompts. [server][point]
Result<std::vector<std::vector<bench::Point>>> measure_rounds(const RoundsArgs& args,
                                                              const std::vector<const LoadSetup*>& servers);

}  // namespace millrace::cli
