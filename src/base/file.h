// Files: whole reads under a limit, read-only maps, and writes that appear complete or not at all.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace millrace {

bool file_exists(const std::string& path);
bool is_directory(const std::string& path);
Result<uint64_t> file_size(const std::string& path);
Result<std::string> read_file(const std::string& path, size_t max_bytes = size_t{1} << 30);
// Names in the folder, sorted, without "." and "..".
Result<std::vector<std::string>> list_directory(const std::string& path);
Status make_directories(const std::string& path);
std::string join_path(std::string_view folder, std::string_view name);

// A whole regular file mapped read-only. The span stays valid while the object lives; shared by whoever points into it.
class MappedFile {
 public:
  static Result<std::shared_ptr<const MappedFile>> open(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  std::span<const std::byte> bytes() const { return {data_, size_}; }
  std::string_view text() const { return {reinterpret_cast<const char*>(data_), size_}; }
  const std::string& path() const { return path_; }

 private:
  MappedFile(std::string path, const std::byte* data, size_t size) : path_(std::move(path)), data_(data), size_(size) {}
  std::string path_;
  const std::byte* data_;
  size_t size_;
};

// Writes "<path>.tmp.<pid>" and renames it to `path` in commit(), after fsync. Destroyed without commit: nothing
// remains.
class AtomicFileWriter {
 public:
  static Result<AtomicFileWriter> create(const std::string& path);
  AtomicFileWriter(AtomicFileWriter&& other) noexcept;
  AtomicFileWriter& operator=(AtomicFileWriter&&) = delete;
  ~AtomicFileWriter();
  Status write(std::span<const std::byte> bytes);
  Status write(std::string_view text);
  Status commit();

 private:
  AtomicFileWriter(std::string path, std::string temporary, int fd);
  std::string path_, temporary_;
  int fd_ = -1;
};
Status write_file(const std::string& path, std::string_view text);

// A new empty folder under the system's temporary folder, removed with its contents on destruction.
class TemporaryDirectory {
 public:
  TemporaryDirectory();
  ~TemporaryDirectory();
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  const std::string& path() const { return path_; }
  std::string file(std::string_view name) const { return join_path(path_, name); }

 private:
  std::string path_;
};

}  // namespace millrace
