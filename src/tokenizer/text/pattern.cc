#include "tokenizer/text/pattern.h"

#include <algorithm>

namespace millrace {
namespace {

struct Part {
  Piece piece;
  bool is_match;
};

std::vector<Part> cover(Piece range, const std::vector<Piece>& matches, bool invert) {
  std::vector<Part> parts;
  parts.reserve(matches.size() * 2 + 1);
  uint32_t at = range.begin;
  for (const Piece& m : matches) {
    if (m.begin > at) parts.push_back({{at, m.begin}, invert});
    parts.push_back({m, !invert});
    at = m.end;
  }
  if (at < range.end) parts.push_back({{at, range.end}, invert});
  return parts;
}

void push(std::vector<Piece>& out, Piece piece) {
  if (piece.end > piece.begin) out.push_back(piece);
}

// Joins parts from left to right where `joins(part, previous part was a match)`.
template <class Joins>
void merge_forward(const std::vector<Part>& parts, Joins joins, std::vector<Piece>& out) {
  std::optional<Piece> open;
  bool previous = false;
  for (const Part& part : parts) {
    if (open && joins(part, previous)) {
      open->end = part.piece.end;
    } else {
      if (open) push(out, *open);
      open = part.piece;
    }
    previous = part.is_match;
  }
  if (open) push(out, *open);
}

void merge_with_next(const std::vector<Part>& parts, std::vector<Piece>& out) {
  const size_t first = out.size();
  std::optional<Piece> open;
  bool following = false;
  for (size_t i = parts.size(); i-- > 0;) {
    if (open && parts[i].is_match && !following) {
      open->begin = parts[i].piece.begin;
    } else {
      if (open) push(out, *open);
      open = parts[i].piece;
    }
    following = parts[i].is_match;
  }
  if (open) push(out, *open);
  std::reverse(out.begin() + static_cast<ptrdiff_t>(first), out.end());
}

// What needs no look at the neighbours: keeps the gaps, the matches, or both.
void keep_parts(Piece range, const std::vector<Piece>& matches, bool keep_gaps, bool keep_matches,
                std::vector<Piece>& out) {
  uint32_t at = range.begin;
  for (const Piece& m : matches) {
    if (keep_gaps) push(out, {at, m.begin});
    if (keep_matches) push(out, m);
    at = m.end;
  }
  if (keep_gaps) push(out, {at, range.end});
}

}  // namespace

void cut(Piece range, const std::vector<Piece>& matches, bool invert, SplitBehavior behavior, std::vector<Piece>& out) {
  switch (behavior) {
    case SplitBehavior::kRemoved:
      return keep_parts(range, matches, !invert, invert, out);
    case SplitBehavior::kIsolated:
      return keep_parts(range, matches, true, true, out);
    case SplitBehavior::kContiguous:
      return merge_forward(
          cover(range, matches, invert), [](const Part& part, bool previous) { return part.is_match == previous; },
          out);
    case SplitBehavior::kMergedWithPrevious:
      return merge_forward(
          cover(range, matches, invert), [](const Part& part, bool previous) { return part.is_match && !previous; },
          out);
    case SplitBehavior::kMergedWithNext:
      return merge_with_next(cover(range, matches, invert), out);
  }
}

Result<Pattern> Pattern::regex(std::string_view text) {
  Pattern pattern;
  pattern.scanner_ = SplitScanner::for_pattern(text);
  if (pattern.scanner_) return pattern;
  MR_ASSIGN_OR_RETURN(pattern.regex_, Regex::compile(text));
  return pattern;
}

Pattern Pattern::literal(std::string text) {
  Pattern pattern;
  pattern.literal_ = std::move(text);
  return pattern;
}

Pattern::Finder::Finder(const Pattern& pattern) : pattern_(pattern) {
  if (pattern.regex_) scratch_.emplace(*pattern.regex_);
}

Status Pattern::Finder::find(std::string_view text, Piece range, std::vector<Piece>& matches) {
  if (pattern_.scanner_) {
    pattern_.scanner_->scan(text, range, matches);
    return {};
  }
  if (pattern_.regex_) return pattern_.regex_->find_all(text, range, *scratch_, matches);
  const std::string& wanted = pattern_.literal_;
  if (wanted.empty()) return {};
  const std::string_view inside = text.substr(0, range.end);
  for (size_t at = inside.find(wanted, range.begin); at != std::string_view::npos;
       at = inside.find(wanted, at + wanted.size()))
    matches.push_back({static_cast<uint32_t>(at), static_cast<uint32_t>(at + wanted.size())});
  return {};
}

Result<std::string> Pattern::replace(std::string_view text, std::string_view content) const {
  std::vector<Piece> matches;
  MR_RETURN_IF_ERROR(Finder(*this).find(text, {0, static_cast<uint32_t>(text.size())}, matches));
  std::string out;
  out.reserve(text.size() + matches.size() * content.size());
  size_t at = 0;
  for (const Piece& m : matches) {
    out.append(text, at, m.begin - at).append(content);
    at = m.end;
  }
  return out.append(text.substr(at));
}

}  // namespace millrace
