// The KV blocks of one sequence, first tokens first. Holds one reference to each block; BlockManager alone changes it.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace millrace {

class BlockTable {
 public:
  BlockTable() = default;
  BlockTable(BlockTable&&) = default;
  BlockTable& operator=(BlockTable&&) = default;
  BlockTable(const BlockTable&) = delete;
  BlockTable& operator=(const BlockTable&) = delete;

  std::span<const int32_t> blocks() const { return blocks_; }
  int64_t size() const { return static_cast<int64_t>(blocks_.size()); }

 private:
  friend class BlockManager;
  std::vector<int32_t> blocks_;
};

}  // namespace millrace
