#include "tokenizer/text/grapheme.h"

#include <unicode/brkiter.h>
#include <unicode/uchar.h>
#include <unicode/utext.h>

#include <algorithm>
#include <memory>

#include "tokenizer/text/unicode.h"

namespace millrace {
namespace {

// One break iterator, made on first use; it serves one range after another.
class Clusters {
 public:
  Status cut(std::string_view range, const GraphemeFn& fn) {
    UErrorCode error = U_ZERO_ERROR;
    if (!breaks_) breaks_.reset(icu::BreakIterator::createCharacterInstance(icu::Locale::getRoot(), error));
    UText utext = UTEXT_INITIALIZER;
    if (U_SUCCESS(error)) utext_openUTF8(&utext, range.data(), static_cast<int64_t>(range.size()), &error);
    if (U_SUCCESS(error)) breaks_->setText(&utext, error);
    if (U_FAILURE(error)) return internal_error("cutting text into grapheme clusters failed: {}", u_errorName(error));
    int32_t begin = breaks_->first();
    for (int32_t end = breaks_->next(); end != icu::BreakIterator::DONE; begin = end, end = breaks_->next())
      fn(range.substr(static_cast<size_t>(begin), static_cast<size_t>(end - begin)));
    utext_close(&utext);
    return {};
  }

 private:
  std::unique_ptr<icu::BreakIterator> breaks_;
};

bool is_prepended(char32_t c) {
  return u_getIntPropertyValue(static_cast<UChar32>(c), UCHAR_GRAPHEME_CLUSTER_BREAK) == U_GCB_PREPEND;
}

// The next place from `end` on where an ASCII character follows another and surely starts a cluster.
size_t end_of_clusters(std::string_view text, size_t end) {
  while (end < text.size()) {
    if (static_cast<uint8_t>(text[end]) < 0x80 && !is_prepended(decode_valid(&text[previous_char(text, end)]).code))
      break;
    ++end;
  }
  return end;
}

// A run of ASCII characters; only CR LF is a cluster of two.
void cut_ascii(std::string_view run, const GraphemeFn& ascii, const GraphemeFn& cluster) {
  while (!run.empty()) {
    const size_t pair = std::min(run.find("\r\n"), run.size());
    if (pair > 0) ascii(run.substr(0, pair));
    if (pair == run.size()) return;
    cluster(run.substr(pair, 2));
    run.remove_prefix(pair + 2);
  }
}

}  // namespace

Status for_each_grapheme(std::string_view text, const GraphemeFn& ascii, const GraphemeFn& cluster) {
  Clusters clusters;
  for (size_t at = 0; at < text.size();) {
    const size_t ascii_end = at + ascii_prefix(text.substr(at));
    // The last ASCII character may go on in what follows.
    const size_t sure = ascii_end == text.size() || ascii_end == at ? ascii_end : ascii_end - 1;
    cut_ascii(text.substr(at, sure - at), ascii, cluster);
    at = sure;
    if (at >= text.size()) break;
    const size_t end = end_of_clusters(text, std::max(ascii_end, at + 1));
    MR_RETURN_IF_ERROR(clusters.cut(text.substr(at, end - at), cluster));
    at = end;
  }
  return {};
}

}  // namespace millrace
