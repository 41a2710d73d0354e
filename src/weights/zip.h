// The part of the ZIP format that torch.save uses: stored (uncompressed) entries, zip64 where sizes ask for it.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/result.h"

namespace millrace {

struct ZipEntry {
  std::string name;
  uint64_t offset = 0;  // of the first data byte in the file
  uint64_t size = 0;
  uint32_t crc = 0;
};
// The entries in the order of their data. Checked: every record lies in the file, entries do not overlap each other or
// the directory, no name appears twice, nothing is compressed or encrypted. Checksums are not.
Result<std::vector<ZipEntry>> read_zip_directory(std::span<const std::byte> file);

// Whether the data of an entry have the checksum that the directory states.
bool zip_checksum_matches(std::span<const std::byte> file, const ZipEntry& entry);

// Writes an archive of stored entries, the data of each on a 64-byte boundary, whole or not at all.
class ZipWriter {
 public:
  // `always_zip64`: use the 64-bit records even where 32 bits would do.
  static Result<ZipWriter> create(const std::string& path, bool always_zip64 = false);
  // One entry whose data are the pieces, one after another.
  Status add(const std::string& name, std::span<const std::span<const std::byte>> pieces);
  Status add(const std::string& name, std::string_view text);
  // The directory; the file appears under its name.
  Status finish();

 private:
  struct Written {
    std::string name;
    uint64_t header_offset = 0, size = 0;
    uint32_t crc = 0;
  };
  ZipWriter(AtomicFileWriter file, bool always_zip64) : file_(std::move(file)), always_zip64_(always_zip64) {}
  Status write(std::string_view bytes);

  AtomicFileWriter file_;
  bool always_zip64_;
  uint64_t at_ = 0;
  std::vector<Written> entries_;
};

}  // namespace millrace
