// A file that holds named tensors, and what goes into one. Opening reads and checks the table of contents; the data
// stay in the file, which is mapped, until they are touched. Immutable after opening: any thread.
#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/file_pages.h"
#include "base/result.h"
#include "tensor/tensor.h"

namespace millrace {

class TensorFile {
 public:
  virtual ~TensorFile() = default;
  virtual const std::string& path() const = 0;
  // In the order of the file.
  virtual const std::vector<std::string>& names() const = 0;
  // Where the tensors lie.
  virtual const std::shared_ptr<const MappedFile>& mapping() const = 0;
  // A view into the mapping, kept alive by the tensor; an owned copy where the file does not align it to its element
  // type. Strided if the file says so. Errors: kNotFound, or kUnimplemented for an element type Tensor does not know.
  virtual Result<Tensor> tensor(const std::string& name) const = 0;
  // The same, not copied where it is not aligned: elements may be read only through Tensor::to_contiguous and
  // copy_elements.
  virtual Result<Tensor> stored(const std::string& name) const { return tensor(name); }
};

// A tensor to be written: the pieces' rows one after another. Pieces agree in dtype and in all axes but the first; a
// single piece may have any rank.
struct NamedTensor {
  std::string name;
  std::vector<Tensor> pieces;

  DType dtype() const { return pieces.front().dtype(); }
  std::vector<int64_t> shape() const;
  int64_t bytes() const;
};

// Bytes of a tensor of this shape, or nothing if that overflows 62 bits or a size is negative.
std::optional<int64_t> checked_bytes(const std::vector<int64_t>& shape, int64_t bytes_per_element);

}  // namespace millrace
