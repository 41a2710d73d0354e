// The memory behind mapped files, and what was freed. Any thread.
#pragma once
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/file.h"

namespace millrace {

using MappedFiles = std::vector<std::shared_ptr<const MappedFile>>;

// This process lets go of the pages it has touched. They stay in the page cache and come back when they are read again.
void release_pages(const MappedFile& file);
// Memory that was freed goes back to the system, where the allocator keeps it for later.
void release_freed_memory();

// A whole regular file mapped read-only at a huge page's boundary and brought into memory, with huge pages where the
// kernel has them for files. `bytes` is valid while `owner` lives.
struct FilePages {
  std::shared_ptr<const void> owner;
  std::span<const std::byte> bytes;
};
Result<FilePages> map_pages(const std::string& path);

}  // namespace millrace
