// Random weights for a spec: benchmarks without a checkpoint, and new checkpoints. Every element is a pure function of
// (seed, tensor's name, index), so the result does not depend on the number of threads. Uses all OpenMP threads.
#pragma once
#include <cstdint>

#include "models/families/spec.h"
#include "weights/decoder_weights.h"

namespace millrace {

// --load-format dummy: uniform with standard deviation 0.02, norm weights 1. `dtype`: kF32, kBf16 or kF16.
DecoderWeights dummy_weights(const DecoderSpec& spec, DType dtype, uint64_t seed = 0);

// As the reference initialises a new model: matrices normal with standard deviation `sigma`, norm weights 1, biases 0.
DecoderWeights initial_weights(const DecoderSpec& spec, DType dtype, uint64_t seed, double sigma = 0.02);

}  // namespace millrace
