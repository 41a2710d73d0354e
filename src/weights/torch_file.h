// Files of torch.save (".bin", ".pt", ".pth") in the zip format that PyTorch writes since version 1.6. Layout of the
// archive, all entries stored, under one top folder of any name:
//   <top>/data.pkl      the object, pickled (pickle.h)
//   <top>/data/<key>    little-endian elements of the storage <key>
//   <top>/version       "3"          <top>/byteorder   "little" (newer writers)
#pragma once
#include <memory>
#include <span>
#include <string>

#include "base/result.h"
#include "weights/pickle.h"
#include "weights/tensor_file.h"

namespace millrace {

// The tensors of a torch file by name: the keys of nested dicts joined with ".". Everything that is not a tensor is
// left out. Tensors that share a storage share memory. Every storage and view is checked against the file before this
// returns.
Result<std::unique_ptr<TensorFile>> open_torch_file(const std::string& path, const PickleOptions& options = {});

struct TorchWriteOptions {
  bool always_zip64 = false;  // see ZipWriter
};
// Writes {name: tensor} so that torch.load reads it with weights_only=True too. Whole or not at all.
Status write_torch_file(const std::string& path, std::span<const NamedTensor> tensors,
                        const TorchWriteOptions& options = {});

}  // namespace millrace
