#include "base/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>

#include "base/check.h"

namespace millrace {
namespace {

namespace fs = std::filesystem;

Status errno_status(const std::string& path, const char* action) {
  const int error = errno;
  const std::string text = std::generic_category().message(error);
  if (error == ENOENT) return not_found("{}: {}: no such file or folder", path, action);
  if (error == ENOSPC) return resource_exhausted("{}: {}: {}", path, action, text);
  return invalid_argument("{}: {}: {}", path, action, text);
}

struct Descriptor {
  int fd;
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
};

// The size of an open regular file.
Result<size_t> regular_size(const std::string& path, int fd) {
  struct stat info {};
  if (::fstat(fd, &info) != 0) return errno_status(path, "stat");
  if (!S_ISREG(info.st_mode)) return invalid_argument("{}: not a regular file", path);
  return static_cast<size_t>(info.st_size);
}

}  // namespace

bool file_exists(const std::string& path) { return ::access(path.c_str(), F_OK) == 0; }
bool is_directory(const std::string& path) {
  std::error_code ignored;
  return fs::is_directory(path, ignored);
}

Result<uint64_t> file_size(const std::string& path) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) return errno_status(path, "stat");
  return static_cast<uint64_t>(info.st_size);
}

Result<std::string> read_file(const std::string& path, size_t max_bytes) {
  const Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  if (file.fd < 0) return errno_status(path, "open");
  MR_ASSIGN_OR_RETURN(const size_t size, regular_size(path, file.fd));
  if (size > max_bytes) return invalid_argument("{}: {} bytes; at most {} are read", path, size, max_bytes);
  std::string text(size, '\0');
  size_t done = 0;
  while (done < size) {
    const ssize_t n = ::read(file.fd, text.data() + done, size - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno_status(path, "read");
    if (n == 0) return data_loss("{}: ended after {} of {} bytes while it was read", path, done, size);
    done += static_cast<size_t>(n);
  }
  return text;
}

Result<std::vector<std::string>> list_directory(const std::string& path) {
  std::error_code error;
  std::vector<std::string> names;
  for (fs::directory_iterator it(path, error), end; !error && it != end; it.increment(error))
    names.push_back(it->path().filename().string());
  if (error) return not_found("{}: {}", path, error.message());
  std::sort(names.begin(), names.end());
  return names;
}

Status make_directories(const std::string& path) {
  std::error_code error;
  fs::create_directories(path, error);
  if (error) return invalid_argument("{}: cannot create the folder: {}", path, error.message());
  return {};
}

std::string join_path(std::string_view folder, std::string_view name) {
  if (folder.empty() || name.starts_with('/')) return std::string(name);
  return fmt::format("{}{}{}", folder, folder.ends_with('/') ? "" : "/", name);
}

Result<std::shared_ptr<const MappedFile>> MappedFile::open(const std::string& path) {
  const Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  if (file.fd < 0) return errno_status(path, "open");
  MR_ASSIGN_OR_RETURN(const size_t size, regular_size(path, file.fd));
  void* data = nullptr;
  if (size > 0) {
    data = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.fd, 0);
    if (data == MAP_FAILED) return errno_status(path, "mmap");
  }
  return std::shared_ptr<const MappedFile>(new MappedFile(path, static_cast<const std::byte*>(data), size));
}

MappedFile::~MappedFile() {
  if (size_ > 0) ::munmap(const_cast<std::byte*>(data_), size_);
}

AtomicFileWriter::AtomicFileWriter(std::string path, std::string temporary, int fd)
    : path_(std::move(path)), temporary_(std::move(temporary)), fd_(fd) {}
AtomicFileWriter::AtomicFileWriter(AtomicFileWriter&& other) noexcept
    : path_(std::move(other.path_)), temporary_(std::move(other.temporary_)), fd_(std::exchange(other.fd_, -1)) {}

Result<AtomicFileWriter> AtomicFileWriter::create(const std::string& path) {
  std::string temporary = fmt::format("{}.tmp.{}", path, ::getpid());
  const int fd = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) return errno_status(temporary, "create");
  return AtomicFileWriter(path, std::move(temporary), fd);
}

AtomicFileWriter::~AtomicFileWriter() {
  if (fd_ < 0) return;
  ::close(fd_);
  ::unlink(temporary_.c_str());
}

Status AtomicFileWriter::write(std::span<const std::byte> bytes) {
  MR_CHECK(fd_ >= 0, "write after commit to {}", path_);
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd_, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno_status(temporary_, "write");
    bytes = bytes.subspan(static_cast<size_t>(n));
  }
  return {};
}
Status AtomicFileWriter::write(std::string_view text) { return write(std::as_bytes(std::span(text))); }

Status AtomicFileWriter::commit() {
  if (::fsync(fd_) != 0) return errno_status(temporary_, "fsync");
  ::close(std::exchange(fd_, -1));
  if (::rename(temporary_.c_str(), path_.c_str()) == 0) return {};
  const Status status = errno_status(path_, "rename");
  ::unlink(temporary_.c_str());
  return status;
}

Status write_file(const std::string& path, std::string_view text) {
  MR_ASSIGN_OR_RETURN(AtomicFileWriter writer, AtomicFileWriter::create(path));
  MR_RETURN_IF_ERROR(writer.write(text));
  return writer.commit();
}

TemporaryDirectory::TemporaryDirectory() {
  std::string pattern = (fs::temp_directory_path() / "millrace-XXXXXX").string();
  MR_CHECK(::mkdtemp(pattern.data()) != nullptr, "mkdtemp {}: {}", pattern, std::strerror(errno));
  path_ = pattern;
}
TemporaryDirectory::~TemporaryDirectory() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

}  // namespace millrace
