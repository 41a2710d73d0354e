#include "weights/zip.h"

#include <zlib.h>

#include <algorithm>
#include <cstring>
#include <set>

namespace millrace {
namespace {

// Record layouts: PKWARE APPNOTE.TXT 6.3.9, sections 4.3.7 to 4.3.16 and 4.5.3. All numbers are little-endian.
constexpr uint32_t kLocalSignature = 0x04034b50, kCentralSignature = 0x02014b50, kEndSignature = 0x06054b50,
                   kZip64EndSignature = 0x06064b50, kZip64LocatorSignature = 0x07064b50;
constexpr size_t kLocalBytes = 30, kCentralBytes = 46, kEndBytes = 22, kZip64EndBytes = 56, kZip64LocatorBytes = 20;
constexpr uint64_t kMaxEntries = 4'000'000;
constexpr uint16_t kZip64Extra = 1, kPaddingExtra = 0x4246;  // "FB"
constexpr uint64_t kAlignment = 64;

// A little-endian number at `at`; the caller has checked that it lies in the file.
template <class T>
T number(std::span<const std::byte> file, uint64_t at) {
  T value;
  std::memcpy(&value, file.data() + at, sizeof(T));
  return value;
}
bool fits(std::span<const std::byte> file, uint64_t at, uint64_t bytes) {
  return at <= file.size() && bytes <= file.size() - at;
}
std::string_view text(std::span<const std::byte> file, uint64_t at, uint64_t bytes) {
  return {reinterpret_cast<const char*>(file.data()) + at, bytes};
}

struct Directory {
  uint64_t entries = 0, offset = 0, bytes = 0;
};

// The end record: the last one whose comment ends with the file.
Result<uint64_t> find_end_record(std::span<const std::byte> file) {
  if (file.size() < kEndBytes)
    return data_loss("the file has {} bytes; a zip archive has at least {}", file.size(), kEndBytes);
  const uint64_t last = file.size() - kEndBytes;
  for (uint64_t at = last, first = last > 0xffff ? last - 0xffff : 0;; --at) {
    if (number<uint32_t>(file, at) == kEndSignature && at + kEndBytes + number<uint16_t>(file, at + 20) == file.size())
      return at;
    if (at == first) return data_loss("no end record: not a zip archive, or truncated");
  }
}

Result<Directory> read_zip64_end(std::span<const std::byte> file, uint64_t end) {
  if (end < kZip64LocatorBytes || number<uint32_t>(file, end - kZip64LocatorBytes) != kZip64LocatorSignature)
    return data_loss("the end record refers to a zip64 record that is not there");
  const uint64_t at = number<uint64_t>(file, end - kZip64LocatorBytes + 8);
  if (!fits(file, at, kZip64EndBytes) || at + kZip64EndBytes > end - kZip64LocatorBytes ||
      number<uint32_t>(file, at) != kZip64EndSignature)
    return data_loss("the zip64 end record is not where its locator says, at byte {}", at);
  return Directory{number<uint64_t>(file, at + 32), number<uint64_t>(file, at + 48), number<uint64_t>(file, at + 40)};
}

Result<Directory> find_directory(std::span<const std::byte> file) {
  MR_ASSIGN_OR_RETURN(const uint64_t end, find_end_record(file));
  Directory directory{number<uint16_t>(file, end + 10), number<uint32_t>(file, end + 16),
                      number<uint32_t>(file, end + 12)};
  if (directory.entries == 0xffff || directory.offset == 0xffffffff || directory.bytes == 0xffffffff) {
    MR_ASSIGN_OR_RETURN(directory, read_zip64_end(file, end));
  }
  if (!fits(file, directory.offset, directory.bytes) || directory.offset + directory.bytes > end)
    return data_loss("the directory ({} bytes at {}) does not lie in the file", directory.bytes, directory.offset);
  if (directory.entries > kMaxEntries || directory.entries * kCentralBytes > directory.bytes)
    return data_loss("the directory claims {} entries in {} bytes", directory.entries, directory.bytes);
  return directory;
}

// The 64-bit values of a central record's zip64 field replace those that are all ones, in this order.
Status read_zip64_extra(std::span<const std::byte> extra, std::initializer_list<uint64_t*> values) {
  for (uint64_t at = 0; fits(extra, at, 4);) {
    const auto id = number<uint16_t>(extra, at), bytes = number<uint16_t>(extra, at + 2);
    if (!fits(extra, at + 4, bytes)) return data_loss("an extra field ends outside its record");
    uint64_t value_at = at + 4;
    for (uint64_t* value : id == kZip64Extra ? values : std::initializer_list<uint64_t*>{}) {
      if (*value != 0xffffffff) continue;
      if (value_at + 8 > at + 4 + bytes) return data_loss("the zip64 field is too short");
      *value = number<uint64_t>(extra, value_at);
      value_at += 8;
    }
    at += 4u + bytes;
  }
  return {};
}

// Follows a central record to the local one in front of the data and checks that they name the same entry.
Status locate_data(std::span<const std::byte> file, uint64_t local, const Directory& directory, ZipEntry& entry) {
  if (!fits(file, local, kLocalBytes) || local + kLocalBytes > directory.offset ||
      number<uint32_t>(file, local) != kLocalSignature)
    return data_loss("entry '{}': no local record at byte {}", entry.name, local);
  const uint64_t name_bytes = number<uint16_t>(file, local + 26), extra_bytes = number<uint16_t>(file, local + 28);
  if (!fits(file, local + kLocalBytes, name_bytes + extra_bytes) ||
      text(file, local + kLocalBytes, name_bytes) != entry.name)
    return data_loss("entry '{}': its local record has another name", entry.name);
  entry.offset = local + kLocalBytes + name_bytes + extra_bytes;
  if (entry.offset > directory.offset || entry.size > directory.offset - entry.offset)
    return data_loss("entry '{}': {} bytes at {} do not lie before the directory", entry.name, entry.size,
                     entry.offset);
  return {};
}

// One central record; `at` moves behind it.
Result<ZipEntry> read_entry(std::span<const std::byte> file, const Directory& directory, uint64_t& at) {
  const uint64_t end = directory.offset + directory.bytes;
  if (at + kCentralBytes > end || number<uint32_t>(file, at) != kCentralSignature)
    return data_loss("no directory record at byte {}", at);
  const uint64_t name_bytes = number<uint16_t>(file, at + 28), extra_bytes = number<uint16_t>(file, at + 30),
                 comment_bytes = number<uint16_t>(file, at + 32);
  const uint64_t name_at = at + kCentralBytes, extra_at = name_at + name_bytes;
  if (extra_at + extra_bytes + comment_bytes > end)
    return data_loss("the directory record at byte {} ends outside it", at);
  ZipEntry entry{std::string(text(file, name_at, name_bytes)), 0, number<uint32_t>(file, at + 24),
                 number<uint32_t>(file, at + 16)};
  if (number<uint16_t>(file, at + 8) & 1) return unimplemented("entry '{}' is encrypted", entry.name);
  if (number<uint16_t>(file, at + 10) != 0)
    return unimplemented("entry '{}' is compressed; torch stores entries uncompressed", entry.name);
  uint64_t stored = number<uint32_t>(file, at + 20), local = number<uint32_t>(file, at + 42);
  MR_RETURN_IF_ERROR(read_zip64_extra(file.subspan(extra_at, extra_bytes), {&entry.size, &stored, &local}));
  if (stored != entry.size)
    return data_loss("entry '{}' is stored in {} bytes but has {}", entry.name, stored, entry.size);
  MR_RETURN_IF_ERROR(locate_data(file, local, directory, entry));
  at = extra_at + extra_bytes + comment_bytes;
  return entry;
}

Status check_disjoint(std::vector<ZipEntry>& entries) {
  std::ranges::sort(entries, {}, &ZipEntry::offset);
  std::set<std::string_view> names;
  uint64_t free_from = 0;
  for (const ZipEntry& entry : entries) {
    if (!names.insert(entry.name).second) return data_loss("entry '{}' is listed twice", entry.name);
    // The record in front of the data is at least this long.
    if (entry.offset < free_from + kLocalBytes + entry.name.size())
      return data_loss("entry '{}' at byte {} overlaps the one before it", entry.name, entry.offset);
    free_from = entry.offset + entry.size;
  }
  return {};
}

// Appends numbers in little-endian order.
class Record {
 public:
  Record& u16(uint64_t value) { return append(static_cast<uint16_t>(value)); }
  Record& u32(uint64_t value) { return append(static_cast<uint32_t>(value)); }
  Record& u64(uint64_t value) { return append(value); }
  Record& bytes(std::string_view text) {
    bytes_ += text;
    return *this;
  }
  const std::string& done() const { return bytes_; }

 private:
  template <class T>
  Record& append(T value) {
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof(T));
    return *this;
  }
  std::string bytes_;
};

constexpr uint16_t kVersion = 45, kUtf8Flag = 0x800, kDosDate = 0x21;  // 1 January 1980
bool wide(uint64_t value) { return value >= 0xffffffff; }

// An extra field of 'Z's that makes the data behind `unpadded` bytes begin on a boundary.
std::string padding_field(uint64_t unpadded) {
  const uint64_t at = unpadded + 4;
  const std::string padding((kAlignment - at % kAlignment) % kAlignment, 'Z');
  return Record().u16(kPaddingExtra).u16(padding.size()).bytes(padding).done();
}

std::string zip64_field(std::initializer_list<uint64_t> values) {
  Record field;
  field.u16(kZip64Extra).u16(8 * values.size());
  for (const uint64_t value : values) field.u64(value);
  return field.done();
}

}  // namespace

Result<std::vector<ZipEntry>> read_zip_directory(std::span<const std::byte> file) {
  MR_ASSIGN_OR_RETURN(const Directory directory, find_directory(file));
  std::vector<ZipEntry> entries;
  uint64_t at = directory.offset;
  for (uint64_t i = 0; i < directory.entries; ++i) {
    MR_ASSIGN_OR_RETURN(ZipEntry entry, read_entry(file, directory, at));
    entries.push_back(std::move(entry));
  }
  MR_RETURN_IF_ERROR(check_disjoint(entries));
  return entries;
}

bool zip_checksum_matches(std::span<const std::byte> file, const ZipEntry& entry) {
  const auto* data = reinterpret_cast<const Bytef*>(file.data() + entry.offset);
  return crc32_z(0, data, entry.size) == entry.crc;
}

Result<ZipWriter> ZipWriter::create(const std::string& path, bool always_zip64) {
  MR_ASSIGN_OR_RETURN(AtomicFileWriter file, AtomicFileWriter::create(path));
  return ZipWriter(std::move(file), always_zip64);
}

Status ZipWriter::write(std::string_view bytes) {
  at_ += bytes.size();
  return file_.write(bytes);
}

Status ZipWriter::add(const std::string& name, std::span<const std::span<const std::byte>> pieces) {
  Written entry{name, at_, 0, 0};
  for (const auto piece : pieces) {
    entry.size += piece.size();
    entry.crc = static_cast<uint32_t>(crc32_z(entry.crc, reinterpret_cast<const Bytef*>(piece.data()), piece.size()));
  }
  const bool zip64 = always_zip64_ || wide(entry.size);
  std::string extra = zip64 ? zip64_field({entry.size, entry.size}) : "";
  extra += padding_field(at_ + kLocalBytes + name.size() + extra.size());
  const uint64_t size32 = zip64 ? 0xffffffff : entry.size;
  Record local;
  local.u32(kLocalSignature).u16(kVersion).u16(kUtf8Flag).u16(0).u16(0).u16(kDosDate).u32(entry.crc);
  local.u32(size32).u32(size32).u16(name.size()).u16(extra.size()).bytes(name).bytes(extra);
  MR_RETURN_IF_ERROR(write(local.done()));
  for (const auto piece : pieces) MR_RETURN_IF_ERROR(file_.write(piece));
  at_ += entry.size;
  entries_.push_back(std::move(entry));
  return {};
}

Status ZipWriter::add(const std::string& name, std::string_view text) {
  const std::span<const std::byte> piece = std::as_bytes(std::span(text));
  return add(name, std::span(&piece, 1));
}

Status ZipWriter::finish() {
  const uint64_t directory = at_;
  for (const Written& entry : entries_) {
    const bool zip64 = always_zip64_ || wide(entry.size) || wide(entry.header_offset);
    const std::string extra = zip64 ? zip64_field({entry.size, entry.size, entry.header_offset}) : "";
    const uint64_t size32 = zip64 ? 0xffffffff : entry.size;
    Record central;
    central.u32(kCentralSignature).u16(kVersion).u16(kVersion).u16(kUtf8Flag).u16(0).u16(0).u16(kDosDate);
    central.u32(entry.crc).u32(size32).u32(size32).u16(entry.name.size()).u16(extra.size()).u16(0).u16(0).u16(0);
    central.u32(0).u32(zip64 ? 0xffffffff : entry.header_offset).bytes(entry.name).bytes(extra);
    MR_RETURN_IF_ERROR(write(central.done()));
  }
  const uint64_t bytes = at_ - directory, count = entries_.size(), end64 = at_;
  const bool zip64 = always_zip64_ || wide(directory) || wide(bytes) || count >= 0xffff;
  Record end;
  if (zip64) {
    end.u32(kZip64EndSignature).u64(kZip64EndBytes - 12).u16(kVersion).u16(kVersion).u32(0).u32(0);
    end.u64(count).u64(count).u64(bytes).u64(directory);
    end.u32(kZip64LocatorSignature).u32(0).u64(end64).u32(1);
  }
  end.u32(kEndSignature).u16(0).u16(0).u16(zip64 ? 0xffff : count).u16(zip64 ? 0xffff : count);
  end.u32(zip64 ? 0xffffffff : bytes).u32(zip64 ? 0xffffffff : directory).u16(0);
  MR_RETURN_IF_ERROR(write(end.done()));
  return file_.commit();
}

}  // namespace millrace
