#include "weights/torch_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <fstream>

#include "base/cpu.h"
#include "base/file.h"
#include "base/random.h"
#include "weights/safetensors.h"
#include "weights/zip.h"

namespace millrace {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// Without the fsync of an atomic write.
bool write_plain(const std::string& path, const std::string& bytes) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  return out.good();
}

Tensor counted(const Shape& shape) {
  Tensor t = Tensor::empty(DType::kF32, shape);
  for (int64_t i = 0; i < t.numel(); ++i) t.data<float>()[i] = static_cast<float>(i);
  return t;
}

std::string short_string(std::string_view text) {
  return std::string("U") + static_cast<char>(text.size()) + std::string(text);
}
// (storage, offset, shape, strides) of storage `key` with `elements` floats, as torch pickles it. Numbers below 256.
std::string tensor_pickle(std::string_view key, int elements, int offset, std::vector<int> shape,
                          std::vector<int> strides) {
  const auto number = [](int n) { return std::string("K") + static_cast<char>(n); };
  std::string out = "ctorch._utils\n_rebuild_tensor_v2\n((" + short_string("storage") + "ctorch\nFloatStorage\n" +
                    short_string(key) + short_string("cpu") + number(elements) + "tQ" + number(offset) + "(";
  for (const int size : shape) out += number(size);
  out += "t(";
  for (const int stride : strides) out += number(stride);
  return out +
         "t\x89"
         "ccollections\nOrderedDict\n)RtR";
}
std::string dict_pickle(const std::string& items) { return "\x80\x02}(" + items + "u."; }

// An archive with this pickle and storage "0" of `elements` floats 0, 1, 2 ...
std::string write_archive(const TemporaryDirectory& folder, const std::string& pickle, int64_t elements) {
  const std::string path = folder.file("x.bin");
  const Tensor data = counted({elements});
  auto writer = ZipWriter::create(path);
  EXPECT_TRUE(writer->add("top/data.pkl", pickle).ok());
  EXPECT_TRUE(
      writer->add("top/data/0", {static_cast<const char*>(data.raw()), static_cast<size_t>(data.bytes())}).ok());
  EXPECT_TRUE(writer->finish().ok());
  return path;
}
std::string error_of(const std::string& pickle, int64_t elements = 12) {
  const TemporaryDirectory folder;
  const auto file = open_torch_file(write_archive(folder, pickle, elements));
  EXPECT_FALSE(file.ok());
  return file.status().message();
}

TEST(TorchFile, WhatIsWrittenIsReadBack) {
  const TemporaryDirectory folder;
  const Tensor matrix = counted({3, 4});
  Tensor half = Tensor::zeros(DType::kBf16, {2}), flags = Tensor::zeros(DType::kBool, {3});
  half.data<bf16>()[1] = to_bf16(2.5f);
  for (const bool zip64 : {false, true}) {
    const std::string path = folder.file("x.bin");
    const std::vector<NamedTensor> tensors = {
        {"a.weight", {matrix}},           {"b", {half}},
        {"c", {matrix.transposed(0, 1)}}, {"d", {flags}},
        {"e", {matrix, matrix}},          {"empty", {Tensor::empty(DType::kF32, {0, 4})}},
        {"scalar", {counted(Shape{})}}};
    ASSERT_TRUE(write_torch_file(path, tensors, {.always_zip64 = zip64}).ok());
    const auto file = open_torch_file(path);
    ASSERT_TRUE(file.ok()) << file.status().to_string();
    EXPECT_THAT((*file)->names(), ElementsAre("a.weight", "b", "c", "d", "e", "empty", "scalar"));
    EXPECT_EQ(element_as_float(*(*file)->tensor("b"), 1), 2.5f);
    EXPECT_EQ(element_as_float(*(*file)->tensor("c"), 1), 4.0f);
    EXPECT_EQ((*file)->tensor("d")->dtype(), DType::kBool);
    EXPECT_EQ(element_as_float(*(*file)->tensor("e"), 23), 11.0f);
    EXPECT_EQ((*file)->tensor("empty")->shape(), (Shape{0, 4}));
    EXPECT_EQ((*file)->tensor("scalar")->rank(), 0);
    EXPECT_EQ(reinterpret_cast<uintptr_t>((*file)->tensor("a.weight")->raw()) % 64, 0u);
  }
}

TEST(TorchFile, PythonFindsASoundArchiveAndPickle) {
  if (std::system("python3 -c 'import zipfile, pickletools' 2>/dev/null") != 0)
    GTEST_SKIP() << "the check of the archive by Python: python3 is absent";
  const TemporaryDirectory folder;
  const std::string script = R"(
import pickle, pickletools, struct, sys, zipfile
class Reader(pickle.Unpickler):
    def find_class(self, module, name):
        if (module, name) == ('collections', 'OrderedDict'):
            return dict
        assert (module, name) in {('torch._utils', '_rebuild_tensor_v2'), ('torch', 'FloatStorage')}, (module, name)
        return (lambda *a: a) if module == 'torch._utils' else name
    def persistent_load(self, pid):
        return pid
archive = zipfile.ZipFile(sys.argv[1])
assert archive.testzip() is None
names = archive.namelist()
assert names[0] == 'archive/data.pkl' and 'archive/version' in names
for info in archive.infolist():
    assert info.compress_type == 0 and info.flag_bits & 1 == 0
    raw = open(sys.argv[1], 'rb').read()
    name, extra = struct.unpack('<HH', raw[info.header_offset + 26:info.header_offset + 30])
    assert (info.header_offset + 30 + name + extra) % 64 == 0
pickletools.dis(archive.open('archive/data.pkl'), open('/dev/null', 'w'))
tensors = Reader(archive.open('archive/data.pkl')).load()
storage, offset, shape, stride, grad, hooks = tensors['a']
assert storage == ('storage', 'FloatStorage', '0', 'cpu', 12) and offset == 0 and shape == (3, 4) and stride == (4, 1)
assert grad is False and hooks == {}
assert struct.unpack('<12f', archive.read('archive/data/0')) == tuple(range(12))
)";
  ASSERT_TRUE(write_file(folder.file("check.py"), script).ok());
  for (const bool zip64 : {false, true}) {
    const std::string path = folder.file("x.bin");
    ASSERT_TRUE(
        write_torch_file(path, std::vector<NamedTensor>{{"a", {counted({3, 4})}}}, {.always_zip64 = zip64}).ok());
    EXPECT_EQ(std::system(fmt::format("python3 {} {}", folder.file("check.py"), path).c_str()), 0);
  }
}

TEST(TorchFile, ViewsOfOneStorageShareItsMemory) {
  const TemporaryDirectory folder;
  const std::string pickle = dict_pickle(short_string("a") + tensor_pickle("0", 12, 0, {3, 4}, {4, 1}) +
                                         short_string("t") + tensor_pickle("0", 12, 4, {4, 2}, {1, 4}));
  const auto file = open_torch_file(write_archive(folder, pickle, 12));
  ASSERT_TRUE(file.ok()) << file.status().to_string();
  const Tensor a = *(*file)->tensor("a"), t = *(*file)->tensor("t");
  EXPECT_EQ(t.data<float>(), a.data<float>() + 4);
  EXPECT_FALSE(t.contiguous());
  EXPECT_EQ(element_as_float(t.to_contiguous(), 1), 8.0f);
}

TEST(TorchFile, NestedDictsParametersAndOtherValuesAreUnderstood) {
  const TemporaryDirectory folder;
  const std::string parameter = "ctorch._utils\n_rebuild_parameter\n(" + tensor_pickle("0", 12, 2, {2}, {1}) +
                                "\x88"
                                "ccollections\nOrderedDict\n)RtR";
  const std::string pickle =
      dict_pickle(short_string("step") + "K\x07" + short_string("model") + "ccollections\nOrderedDict\n)R(" +
                  short_string("w") + parameter + "u}(" + short_string("_metadata") + "Nub" + short_string("list") +
                  "](K\x01"
                  "G\x3f\xf8" +
                  std::string(6, '\0') + "e");
  const auto file = open_torch_file(write_archive(folder, pickle, 12));
  ASSERT_TRUE(file.ok()) << file.status().to_string();
  EXPECT_THAT((*file)->names(), ElementsAre("model.w"));
  EXPECT_EQ(element_as_float(*(*file)->tensor("model.w"), 1), 3.0f);
}

TEST(TorchFile, ViewsOutsideTheirStorageAreRefused) {
  const auto view = [](int offset, std::vector<int> shape, std::vector<int> strides) {
    return dict_pickle(short_string("a") + tensor_pickle("0", 12, offset, std::move(shape), std::move(strides)));
  };
  EXPECT_THAT(error_of(view(0, {13}, {1})), HasSubstr("tensor 'a': it reaches element 13 of a storage that has 12"));
  EXPECT_THAT(error_of(view(10, {3}, {1})), HasSubstr("it reaches element 13"));
  EXPECT_THAT(error_of(view(0, {3, 4}, {5, 1})), HasSubstr("it reaches element 14"));
  EXPECT_THAT(error_of(view(0, {200, 200}, {0, 0})),
              HasSubstr("it repeats elements: 40000 are made of a storage of 12"));
  EXPECT_THAT(error_of(view(0, {2}, {1}), 11), HasSubstr("storage '0' has 44 bytes; its 12 elements need 48"));
  EXPECT_THAT(error_of(dict_pickle(short_string("a") + tensor_pickle("9", 12, 0, {2}, {1}))),
              HasSubstr("storage '9' is not in the archive"));
}

struct Hostile {
  const char* name;
  std::string pickle;
  const char* message;
};
TEST(Pickle, NothingButPlainDataIsBuilt) {
  const std::string call = "cposix\nsystem\n(" + short_string("touch /tmp/owned") + "tR";
  const std::vector<Hostile> cases = {
      {"system", "\x80\x02" + call + ".", "the file asks for posix.system; only tensors, numbers"},
      {"inside", dict_pickle(short_string("a") + call), "the file asks for posix.system"},
      {"eval",
       "\x80\x02"
       "c__builtin__\neval\n(" +
           short_string("1") + "tR.",
       "asks for __builtin__.eval"},
      {"class",
       "\x80\x02"
       "csubprocess\nPopen\n)\x81.",
       "asks for subprocess.Popen"},
      {"storage_as_call",
       "\x80\x02"
       "ctorch\nFloatStorage\n)R.",
       "asks for torch.FloatStorage"},
      {"control",
       "\x80\x02"
       "cos\x01\nx\n.",
       "asks for os?.x"},
      {"call_of_number", "\x80\x02K\x01)R.", "a call of something that is not a function"},
      {"inst", "\x80\x02(iposix\nsystem\n.", "opcode 0x69 is not one that torch.save writes"},
      {"protocol", "\x80\x04.", "pickle protocol 4; torch.save writes 2"},
      {"extension", "\x80\x02\x82\x01.", "opcode 0x82 is not one"},
      {"underflow", "\x80\x02R.", "needs more values than are on the stack"},
      {"below_mark", "\x80\x02}K\x01(K\x02\x86.", "needs more values than are on the stack"},
      {"no_mark", "\x80\x02}u.", "no mark on the stack"},
      {"half_pair", "\x80\x02}(K\x01u.", "a key without a value"},
      {"items_to_number", "\x80\x02K\x01(K\x01K\x02u.", "dict items are added to something else"},
      {"memo", "\x80\x02h\x05.", "memo entry 5 was never stored"},
      {"no_stop", "\x80\x02}", "the pickle ends without STOP"},
      {"two_values", "\x80\x02}}.", "STOP with 2 values on the stack"},
      {"cut_string",
       "\x80\x02X\xff\xff\xff\x7f"
       "ab.",
       "the pickle ends inside an opcode"},
      {"cut_global",
       "\x80\x02"
       "cposix",
       "the pickle ends inside an opcode"},
      {"long", std::string("\x80\x02\x8a\x09") + std::string(9, '\1') + ".", "an integer of 9 bytes"},
      {"root", "\x80\x02K\x01.", "the file does not hold a dict of tensors"},
      {"persistent", "\x80\x02K\x01Q.", "a persistent id that is not"},
      {"parameter",
       "\x80\x02"
       "ctorch._utils\n_rebuild_parameter\n)R.",
       "a parameter without a tensor"},
      {"tensor",
       "\x80\x02"
       "ctorch._utils\n_rebuild_tensor_v2\n(K\x01tR.",
       "a tensor that is not (storage, offset"},
      {"build", "\x80\x02K\x01}b.", "attributes are set on a value that has none"},
  };
  for (const Hostile& c : cases) {
    SCOPED_TRACE(c.name);
    EXPECT_THAT(error_of(c.pickle), HasSubstr(c.message));
  }
  EXPECT_FALSE(file_exists("/tmp/owned"));
}

TEST(Pickle, UnknownClassesStayOpaqueWhereAskedFor) {
  const std::string pickle = "\x80\x02}(" + short_string("args") + "cargparse\nNamespace\n)\x81}(" +
                             short_string("lr") + "K\x01ub" + short_string("n") + "\x8a\x02\xfe\xffu.";
  const auto read = read_pickle(pickle, {.keep_unknown = true});
  ASSERT_TRUE(read.ok()) << read.status().to_string();
  const PickleNode& root = read->nodes[read->root];
  const PickleNode& object = read->nodes[root.items[1]];
  EXPECT_EQ(object.kind, PickleNode::Kind::kObject);
  EXPECT_EQ(read->nodes[object.items[0]].text, "argparse\nNamespace");
  EXPECT_EQ(object.items.size(), 3u);
  EXPECT_EQ(read->nodes[root.items[3]].integer, -2);
}

TEST(Pickle, BombsHitALimitBeforeTheyHurt) {
  const PickleOptions small{.max_bytes = 1 << 20, .max_nodes = 1000};
  const auto error = [&](const std::string& pickle) { return read_pickle(pickle, small).status().message(); };
  EXPECT_THAT(error("\x80\x02" + std::string(5000, ')')), HasSubstr("more than 1000 values"));
  EXPECT_THAT(error("\x80\x02" + std::string(5000, '(')), HasSubstr("too many marks"));
  std::string memo = "\x80\x02N";
  for (int i = 0; i < 5000; ++i) memo += std::string("r") + std::string(reinterpret_cast<const char*>(&i), 4);
  EXPECT_THAT(error(memo), HasSubstr("more than 1000 memo entries"));
  // A list of 100 pairs, taken again and again by OrderedDict.
  std::string again = "\x80\x02](";
  for (int i = 0; i < 100; ++i) again += "NN\x86";
  again += "eq\x01";
  for (int i = 0; i < 200; ++i) again += "ccollections\nOrderedDict\nh\x01\x85R";
  EXPECT_THAT(error(again), HasSubstr("more than"));
  EXPECT_THAT(error(std::string((1 << 20) + 1, 'N')), HasSubstr("at most 1048576 are read"));
}

TEST(Pickle, ADictInsideItselfAndSharedDictsAreBounded) {
  EXPECT_THAT(error_of("\x80\x02}q\x01(" + short_string("a") + "h\x01u."), HasSubstr("nest more than 8 levels"));
  // Each of six levels holds the next one forty times: 40^6 ways to the tensor.
  std::string bomb = "}(" + short_string("t") + tensor_pickle("0", 12, 0, {1}, {1}) + "uq" + '\1';
  for (char level = 1; level <= 6; ++level) {
    bomb = "}(K\x7f" + bomb;
    for (char i = 0; i < 39; ++i) bomb += std::string("K") + i + "h" + level;
    bomb += std::string("uq") + static_cast<char>(level + 1);
  }
  EXPECT_THAT(error_of("\x80\x02" + bomb + "."), HasSubstr("more than 1000000 entries"));
}

TEST(Zip, FilesThatAreNotArchivesOfTorchAreExplained) {
  const TemporaryDirectory folder;
  const auto error = [&](std::string_view bytes) {
    EXPECT_TRUE(write_file(folder.file("f"), bytes).ok());
    return open_torch_file(folder.file("f")).status().message();
  };
  EXPECT_THAT(error(std::string_view("\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80", 16)),
              HasSubstr("torch.save before version 1.6"));
  EXPECT_THAT(error("hello"), HasSubstr("not a file of torch.save"));
  EXPECT_THAT(error(""), HasSubstr("not a file of torch.save"));
  EXPECT_THAT(error("version https://git-lfs.github.com/spec/v1\n"), HasSubstr("a Git LFS pointer"));
  EXPECT_THAT(error("PK\x03\x04 and then nothing that is a directory"), HasSubstr("no end record"));
}

// Archives with one thing wrong, made by spoiling bytes of a sound one.
class ZipDamage : public testing::Test {
 protected:
  void SetUp() override {
    const std::string path = folder_.file("x.zip");
    auto writer = ZipWriter::create(path);
    ASSERT_TRUE(writer->add("a/data.pkl", "\x80\x02}.").ok());
    ASSERT_TRUE(writer->add("a/data/0", "0123456789").ok());
    ASSERT_TRUE(writer->finish().ok());
    archive_ = *read_file(path);
    central_ = archive_.find("PK\x01\x02");
    end_ = archive_.rfind("PK\x05\x06");
  }
  std::string error() const {
    const auto entries = read_zip_directory(std::as_bytes(std::span(archive_)));
    EXPECT_FALSE(entries.ok());
    return entries.status().message();
  }
  void put(size_t at, std::string_view bytes) { archive_.replace(at, bytes.size(), bytes); }

  TemporaryDirectory folder_;
  std::string archive_;
  size_t central_ = 0, end_ = 0;
};

TEST_F(ZipDamage, SoundArchivesAreRead) {
  const auto entries = read_zip_directory(std::as_bytes(std::span(archive_)));
  ASSERT_TRUE(entries.ok()) << entries.status().to_string();
  ASSERT_EQ(entries->size(), 2u);
  EXPECT_EQ((*entries)[1].name, "a/data/0");
  EXPECT_EQ(archive_.substr((*entries)[1].offset, (*entries)[1].size), "0123456789");
  EXPECT_EQ((*entries)[1].offset % 64, 0u);
  EXPECT_TRUE(zip_checksum_matches(std::as_bytes(std::span(archive_)), (*entries)[1]));
}
TEST_F(ZipDamage, CompressedEntriesAreRefused) {
  put(central_ + 10, "\x08");
  EXPECT_THAT(error(), HasSubstr("entry 'a/data.pkl' is compressed"));
}
TEST_F(ZipDamage, EncryptedEntriesAreRefused) {
  put(central_ + 8, "\x01");
  EXPECT_THAT(error(), HasSubstr("is encrypted"));
}
TEST_F(ZipDamage, SizesOutsideTheFileAreRefused) {
  put(central_ + 20, std::string_view("\xff\xff\xff\x0f\xff\xff\xff\x0f", 8));
  EXPECT_THAT(error(), HasSubstr("do not lie before the directory"));
}
TEST_F(ZipDamage, StoredAndRealSizesMustAgree) {
  put(central_ + 20, std::string_view("\x02\0\0\0", 4));
  EXPECT_THAT(error(), HasSubstr("is stored in 2 bytes but has 4"));
}
TEST_F(ZipDamage, EntriesThatShareBytesAreRefused) {
  const size_t second = archive_.find("PK\x01\x02", central_ + 4);
  put(second + 42, archive_.substr(central_ + 42, 4));
  EXPECT_THAT(error(), HasSubstr("its local record has another name"));
  put(second + 46, "a/data.p");  // now the names agree up to their lengths
  EXPECT_FALSE(read_zip_directory(std::as_bytes(std::span(archive_))).ok());
}
TEST_F(ZipDamage, RunningIntoTheNextEntryIsRefused) {
  put(central_ + 20, std::string_view("\x44\0\0\0\x44\0\0\0", 8));
  EXPECT_THAT(error(), HasSubstr("overlaps the one before it"));
}
TEST_F(ZipDamage, ADirectoryOutsideTheFileIsRefused) {
  put(end_ + 16, std::string_view("\xf0\xff\xff\x7f", 4));
  EXPECT_THAT(error(), HasSubstr("does not lie in the file"));
}
TEST_F(ZipDamage, MoreEntriesThanBytesAreRefused) {
  put(end_ + 10, "\xff\xfe");
  EXPECT_THAT(error(), HasSubstr("the directory claims 65279 entries"));
}
TEST_F(ZipDamage, AMissingZip64RecordIsRefused) {
  put(end_ + 10, "\xff\xff");
  EXPECT_THAT(error(), HasSubstr("zip64 record that is not there"));
}
TEST_F(ZipDamage, AWrongChecksumOfTheObjectIsRefused) {
  const size_t object = archive_.find("\x80\x02}.");
  put(object + 2, "]");
  ASSERT_TRUE(write_file(folder_.file("f"), archive_).ok());
  EXPECT_THAT(open_torch_file(folder_.file("f")).status().message(), HasSubstr("a/data.pkl has the wrong checksum"));
}

// Opens a damaged file and touches what it gives.
bool opens_soundly(const std::string& path) {
  const auto file = open_torch_file(path);
  if (!file.ok()) return false;
  for (const std::string& name : (*file)->names()) {
    const auto tensor = (*file)->tensor(name);
    if (tensor.ok() && tensor->numel() > 0 && tensor->numel() < 1000) tensor->to_contiguous();
  }
  return true;
}

TEST(TorchFile, MutatedFilesGiveTensorsOrAStatusInBoundedMemory) {
  const TemporaryDirectory folder;
  const std::string path = folder.file("x.bin");
  ASSERT_TRUE(write_torch_file(path, std::vector<NamedTensor>{{"a", {counted({3, 4})}}, {"b", {counted({2})}}}).ok());
  const std::string valid = *read_file(path);
  const int64_t resident = resident_bytes();
  Random random(5);
  int opened = 0;
  for (int i = 0; i < 800; ++i) {
    std::string bytes = valid;
    for (uint32_t n = 1 + random.below(3); n > 0; --n) {
      const uint32_t at = random.below(static_cast<uint32_t>(bytes.size()));
      random.below(8) == 0 ? bytes.resize(at + 1) : static_cast<void>(bytes[at] = static_cast<char>(random()));
    }
    ASSERT_TRUE(write_plain(folder.file("m.bin"), bytes));
    opened += opens_soundly(folder.file("m.bin"));
  }
  EXPECT_GT(opened, 0);
  EXPECT_LT(resident_bytes() - resident, int64_t{400} << 20);
}

TEST(TorchFile, MutatedViewsStayInsideTheirStorages) {
  const TemporaryDirectory folder;
  const std::string valid = dict_pickle(short_string("a") + tensor_pickle("0", 12, 1, {3, 3}, {4, 1}) +
                                        short_string("b") + tensor_pickle("0", 12, 4, {4, 2}, {1, 4}));
  Random random(17);
  int opened = 0;
  for (int i = 0; i < 400; ++i) {
    std::string pickle = valid;
    // The numbers of offsets, shapes and strides follow a 'K'.
    for (uint32_t n = 1 + random.below(3); n > 0;) {
      const size_t at = pickle.find('K', random.below(static_cast<uint32_t>(pickle.size())));
      if (at == std::string::npos) continue;
      pickle[at + 1] = static_cast<char>(random.below(16));
      --n;
    }
    opened += opens_soundly(write_archive(folder, pickle, 12));
  }
  EXPECT_GT(opened, 10);
  EXPECT_LT(opened, 390);
}

TEST(Pickle, MutatedPicklesGiveValuesOrAStatus) {
  const std::string valid =
      dict_pickle(short_string("a") + tensor_pickle("0", 12, 0, {3, 4}, {4, 1}) + short_string("b") +
                  "](K\x01K\x02"
                  "eq\x01" +
                  short_string("c") + "h\x01" + short_string("d") +
                  "\x8a\x08"
                  "abcdefgh" +
                  short_string("e") + "NN\x86");
  ASSERT_TRUE(read_pickle(valid).ok());
  Random random(9);
  const std::string opcodes =
      "cqrhj(})]t\x85\x86\x87XUJKM\x8aGN\x88\x89suaeQR\x81"
      "b.";
  int read = 0;
  for (int i = 0; i < 60000; ++i) {
    std::string bytes = valid;
    for (uint32_t n = 1 + random.below(4); n > 0; --n) {
      const uint32_t at = random.below(static_cast<uint32_t>(bytes.size()));
      const uint32_t way = random.below(3);
      if (way == 0) bytes[at] = static_cast<char>(random());
      if (way == 1) bytes.insert(at, 1, opcodes[random.below(static_cast<uint32_t>(opcodes.size()))]);
      if (way == 2) bytes.erase(at, 1 + random.below(4));
      if (bytes.empty()) bytes = "N";
    }
    const auto pickle = read_pickle(bytes, {.keep_unknown = random.below(2) == 0});
    read += pickle.ok();
    if (!pickle.ok()) continue;
    for (const PickleNode& node : pickle->nodes)
      for (const int32_t item : node.items) ASSERT_LT(static_cast<size_t>(item), pickle->nodes.size());
  }
  EXPECT_GT(read, 0);
}

TEST(TorchFile, AFileOfPyTorchHoldsTheSameKindOfTensorsAsItsSafetensorsSibling) {
  const std::string root = MILLRACE_SOURCE_DIR "/../shared/data/models/formats/";
  if (!is_directory(root)) GTEST_SKIP() << "the file of PyTorch: " << root << " is absent";
  const auto torch = open_torch_file(root + "test.pth");
  ASSERT_TRUE(torch.ok()) << torch.status().to_string();
  EXPECT_EQ((*torch)->names().size(), 20u);
  for (const std::string& name : (*torch)->names()) {
    const Tensor tensor = *(*torch)->tensor(name);
    EXPECT_EQ(tensor.shape(), (Shape{10, 10})) << name;
    for (int64_t i = 0; i < 100; ++i) ASSERT_LT(std::abs(element_as_float(tensor, i)), 100.0f) << name;
  }
}

}  // namespace
}  // namespace millrace
