#include "tests/tokenizer/fixtures.h"

#include <zlib.h>

#include <algorithm>
#include <cstring>
#include <sstream>

#include "base/utf8.h"

namespace millrace {
namespace {

std::string gunzip(const std::string& packed) {
  z_stream stream{};
  if (inflateInit2(&stream, 16 + MAX_WBITS) != Z_OK) return {};
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(packed.data()));
  stream.avail_in = static_cast<uInt>(packed.size());
  std::string out;
  std::vector<char> buffer(1 << 18);
  int rc = Z_OK;
  while (rc == Z_OK) {
    stream.next_out = reinterpret_cast<Bytef*>(buffer.data());
    stream.avail_out = static_cast<uInt>(buffer.size());
    rc = inflate(&stream, Z_NO_FLUSH);
    out.append(buffer.data(), buffer.size() - stream.avail_out);
  }
  inflateEnd(&stream);
  EXPECT_EQ(rc, Z_STREAM_END);
  return out;
}

class GgufReader {
 public:
  explicit GgufReader(const std::string& bytes) : bytes_(bytes) {}
  template <class T>
  T number() {
    T value{};
    std::memcpy(&value, bytes_.data() + at_, sizeof(T));
    at_ += sizeof(T);
    return value;
  }
  std::string text() {
    const auto size = number<uint64_t>();
    at_ += size;
    return bytes_.substr(at_ - size, size);
  }
  void skip(uint32_t type) {
    static constexpr int kSizes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    if (type == 8) {
      text();
    } else if (type == 9) {
      const auto item = number<uint32_t>();
      for (auto n = number<uint64_t>(); n > 0; --n) skip(item);
    } else {
      at_ += static_cast<size_t>(kSizes[type]);
    }
  }
  template <class T, class Read>
  std::vector<T> list(Read read) {
    number<uint32_t>();
    std::vector<T> out(number<uint64_t>());
    for (T& item : out) item = read();
    return out;
  }

 private:
  const std::string& bytes_;
  size_t at_ = 0;
};

}  // namespace

std::string shared_file(std::string_view name) {
  return std::string(MILLRACE_SOURCE_DIR "/../shared/data/tokenizers/") + std::string(name);
}
bool has_shared() { return is_directory(shared_file("")); }

std::string read_shared(std::string_view name) {
  Result<std::string> bytes = read_file(shared_file(name));
  EXPECT_TRUE(bytes.ok()) << bytes.status().to_string();
  if (!bytes.ok()) return {};
  return name.ends_with(".gz") ? gunzip(*bytes) : *bytes;
}

TokenizerFolder& TokenizerFolder::add(std::string_view name, std::string_view content) {
  EXPECT_TRUE(write_file(folder_.file(name), content).ok());
  return *this;
}
TokenizerFolder& TokenizerFolder::add_shared(std::string_view name, std::string_view shared_name) {
  return add(name, read_shared(shared_name));
}
std::shared_ptr<const Tokenizer> TokenizerFolder::load() const {
  Result<std::shared_ptr<const Tokenizer>> tokenizer = try_load();
  if (!tokenizer.ok()) throw std::runtime_error(tokenizer.status().to_string());
  return *tokenizer;
}

GgufVocabulary read_gguf_vocabulary(const std::string& bytes) {
  GgufReader in(bytes);
  GgufVocabulary out;
  EXPECT_EQ(bytes.substr(0, 4), "GGUF");
  in.number<uint32_t>();  // the magic
  EXPECT_EQ(in.number<uint32_t>(), 3u);
  in.number<uint64_t>();  // tensors
  for (auto pairs = in.number<uint64_t>(); pairs > 0; --pairs) {
    const std::string key = in.text();
    const auto type = in.number<uint32_t>();
    if (key == "tokenizer.ggml.tokens")
      out.tokens = in.list<std::string>([&] { return in.text(); });
    else if (key == "tokenizer.ggml.merges")
      out.merges = in.list<std::string>([&] { return in.text(); });
    else if (key == "tokenizer.ggml.token_type")
      out.types = in.list<int32_t>([&] { return in.number<int32_t>(); });
    else if (key == "tokenizer.ggml.scores")
      out.scores = in.list<float>([&] { return in.number<float>(); });
    else
      in.skip(type);
  }
  return out;
}

std::string sentencepiece_model(const std::vector<ModelPiece>& pieces, int model_type, bool add_dummy_prefix) {
  const auto field = [](int number, std::string_view bytes) {
    std::string out(1, static_cast<char>(number << 3 | 2));
    size_t size = bytes.size();
    for (; size > 127; size >>= 7) out += static_cast<char>(size | 128);
    return out + static_cast<char>(size) + std::string(bytes);
  };
  std::string model;
  for (const ModelPiece& piece : pieces) {
    std::string score(4, '\0');
    std::memcpy(score.data(), &piece.score, 4);
    model += field(1, field(1, piece.text) + "\x15" + score + std::string{'\x18', static_cast<char>(piece.type)});
  }
  const bool bytes = std::ranges::any_of(pieces, [](const ModelPiece& piece) { return piece.type == 6; });
  model += field(2, std::string{'\x18', static_cast<char>(model_type), '\x98', '\x02', static_cast<char>(bytes)});
  return model + field(3, std::string{'\x18', static_cast<char>(add_dummy_prefix)});
}

std::vector<GoldenText> ggml_goldens(const std::string& name) {
  static constexpr std::string_view kSeparator = "\n__ggml_vocab_test__\n";
  const std::string texts = read_shared("gguf_vocab/ggml-vocab-" + name + ".gguf.inp");
  std::istringstream lines(read_shared("gguf_vocab/ggml-vocab-" + name + ".gguf.out"));
  std::vector<GoldenText> goldens;
  std::string line;
  for (size_t at = 0; at <= texts.size() && std::getline(lines, line);) {
    const size_t end = std::min(texts.find(kSeparator, at), texts.size());
    GoldenText golden{texts.substr(at, end - at), {}};
    std::istringstream numbers(line);
    for (int32_t id; numbers >> id;) golden.ids.push_back(id);
    goldens.push_back(std::move(golden));
    at = end + kSeparator.size();
  }
  return goldens;
}

std::string random_text(Random& random, uint32_t parts) {
  static const std::vector<std::string> kFragments = {" ",
                                                      " ",
                                                      " ",
                                                      " ",
                                                      "  ",
                                                      "   ",
                                                      "\n",
                                                      "\n\n",
                                                      "\r\n",
                                                      "\t",
                                                      "\u00a0",
                                                      "\u3000",
                                                      "\u2028",
                                                      "\u200d",
                                                      "\u200b",
                                                      "\u180e",
                                                      "the",
                                                      "The",
                                                      "ing",
                                                      "Hello",
                                                      "world",
                                                      "a",
                                                      "I",
                                                      "s",
                                                      "'s",
                                                      "'LL",
                                                      "'\u017f",
                                                      "'t",
                                                      "don't",
                                                      "under_score",
                                                      "1",
                                                      "23",
                                                      "456",
                                                      "7890",
                                                      "\uff11\uff12",
                                                      "\u00b2",
                                                      "\u00bd",
                                                      "\u0663\u0664",
                                                      "3.14",
                                                      "!",
                                                      "?",
                                                      ".",
                                                      ",",
                                                      "...",
                                                      "(",
                                                      ")",
                                                      "\"",
                                                      "--",
                                                      "#$%",
                                                      "=>",
                                                      "`",
                                                      "~",
                                                      "\u2014",
                                                      "\u201cx\u201d",
                                                      "\u3002",
                                                      "\uff01",
                                                      "\u00e9",
                                                      "e\u0301",
                                                      "\u00fc",
                                                      "\u00df",
                                                      "\u0130",
                                                      "\u0131",
                                                      "\u212b",
                                                      "\ufb01",
                                                      "\u03a3\u03c3\u03c2",
                                                      "\u0416\u0436",
                                                      "\u4e2d\u56fd",
                                                      "\u306e",
                                                      "\u30ab\u30bf\u30ab\u30ca\u30fc",
                                                      "\ud55c\uad6d\uc5b4",
                                                      "\u0645\u0631\u062d\u0628\u0627",
                                                      "\u0939\u093f\u0928\u094d\u0926\u0940",
                                                      "\u0e44\u0e17\u0e22",
                                                      "\U0001f600",
                                                      "\U0001f469\u200d\U0001f467",
                                                      "\U0001f1fa\U0001f1f8",
                                                      "\U00010348",
                                                      "\u2581",
                                                      "<s>",
                                                      "</s>",
                                                      "<unk>",
                                                      "<0x0A>",
                                                      "[INST]",
                                                      "<|im_end|>",
                                                      "\u0001"};
  std::string text;
  for (uint32_t n = random.below(parts + 1); n > 0; --n) {
    if (random.below(20) > 0) {
      text += kFragments[random.below(static_cast<uint32_t>(kFragments.size()))];
      continue;
    }
    char32_t c = random.below(4) > 0 ? random.below(0x3100) : random.below(0x20000);
    append_utf8(text, c);
  }
  return text;
}

}  // namespace millrace
