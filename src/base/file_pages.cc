#include "base/file_pages.h"

#include <fcntl.h>
#include <malloc.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

namespace millrace {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;

Status failed(const std::string& path, const char* action) {
  const int error = errno;
  const std::string text = std::generic_category().message(error);
  if (error == ENOENT) return not_found("{}: {}: {}", path, action, text);
  return invalid_argument("{}: {}: {}", path, action, text);
}

struct Descriptor {
  int fd;
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
};

// An address range that the kernel keeps free, given back whole.
struct Range {
  std::byte* begin;
  size_t bytes;
  void operator()(const void*) const { ::munmap(begin, bytes); }
};

}  // namespace

void release_pages(const MappedFile& file) {
  const auto bytes = file.bytes();
  if (!bytes.empty()) ::madvise(const_cast<std::byte*>(bytes.data()), bytes.size(), MADV_DONTNEED);
}

void release_freed_memory() {
#ifdef __GLIBC__
  ::malloc_trim(0);
#endif
}

Result<FilePages> map_pages(const std::string& path) {
  const Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  struct stat info {};
  if (file.fd < 0 || ::fstat(file.fd, &info) != 0) return failed(path, "open");
  if (!S_ISREG(info.st_mode) || info.st_size <= 0) return invalid_argument("{}: not a regular file with bytes", path);
  const auto size = static_cast<size_t>(info.st_size);
  void* const kept = ::mmap(nullptr, size + kHugePage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (kept == MAP_FAILED) return failed(path, "mmap");
  const Range range{static_cast<std::byte*>(kept), size + kHugePage};
  std::byte* const begin = range.begin + (-reinterpret_cast<uintptr_t>(kept) & (kHugePage - 1));
  const std::shared_ptr<const void> owner(begin, range);
  if (::mmap(begin, size, PROT_READ, MAP_PRIVATE | MAP_FIXED, file.fd, 0) == MAP_FAILED) return failed(path, "mmap");
  ::madvise(begin, size, MADV_HUGEPAGE);
#ifdef MADV_POPULATE_READ
  ::madvise(begin, size, MADV_POPULATE_READ);
#endif
  return FilePages{owner, {begin, size}};
}

}  // namespace millrace
