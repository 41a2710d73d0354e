// One quantised matrix of a checkpoint in the project's form. Formats: AutoAWQ's GEMM layout, AutoGPTQ's (both
// conventions of zero points, act-order), compressed-tensors' int-quantized and pack-quantized, AutoSmoothQuant's.
// Tables of scales are converted at once, values only when somebody asks for rows. Any thread.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "tensor/quantized_matrix.h"
#include "weights/checkpoint.h"
#include "weights/quantization_config.h"

namespace millrace {

struct QuantizedModule {
  QuantizedMatrix matrix;
  std::vector<std::string> tensors;  // of the checkpoint that it is made of
};

// The matrix [rows, columns] that the files hold under `module` ("model.layers.0.self_attn.q_proj"); nothing if it is
// not quantised there. Every shape is checked against the others; errors name the tensor. `int8_units`: with
// SmoothQuant, x arrives in units of its int8 values.
Result<std::optional<QuantizedModule>> read_quantized_module(const Checkpoint& checkpoint,
                                                             const QuantizationConfig& config,
                                                             const std::string& module, int64_t rows, int64_t columns,
                                                             bool int8_units = false);

}  // namespace millrace
