// What a chat template may use up. A template comes from a model folder or from a request, so every bound is checked
// before the memory is taken or the work is done.
#pragma once
#include <cstddef>
#include <cstdint>

namespace millrace {

struct TemplateLimits {
  size_t max_source_bytes = size_t{1} << 20;
  int max_nesting = 250;                        // brackets and blocks inside each other, in the source
  size_t max_output_bytes = size_t{64} << 20;   // of the whole result and of each captured part
  size_t max_memory_bytes = size_t{256} << 20;  // values alive at once during one rendering, the input included
  uint64_t max_steps = 10'000'000;              // nodes evaluated, items visited, 16-byte pieces of text worked on
  int max_depth = 600;                          // evaluations inside each other: macros, recursive loops, nesting
};

}  // namespace millrace
