#include "tokenizer/model/bpe_merge.h"

#include <algorithm>
#include <bit>

namespace millrace {
namespace {
constexpr size_t kShortWord = 48;  // symbols; measured: beyond it the heap is faster
}

PairTable::PairTable(std::span<const BpeMerge> merges) {
  if (merges.empty()) return;
  slots_.resize(std::bit_ceil(merges.size() * 2));
  mask_ = slots_.size() - 1;
  shift_ = 64 - std::countr_zero(slots_.size());
  for (const BpeMerge& m : merges) {
    const uint64_t key = key_of(m.left, m.right);
    size_t i = start_of(key);
    while (slots_[i].key != kEmpty && slots_[i].key != key) i = (i + 1) & mask_;
    slots_[i] = {key, m.rank, m.result};
  }
}

void BpeMerger::merge(const PairTable& pairs, std::vector<BpeSymbol>& symbols) {
  if (symbols.size() < 2) return;
  if (symbols.size() <= kShortWord)
    merge_short(pairs, symbols);
  else
    merge_long(pairs, symbols);
}

void BpeMerger::merge_short(const PairTable& pairs, std::vector<BpeSymbol>& symbols) {
  size_t n = symbols.size();
  found_.resize(kShortWord);
  for (size_t i = 0; i + 1 < n; ++i) found_[i] = pairs.find(symbols[i].id, symbols[i + 1].id);
  while (n > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < n; ++i)
      if (found_[i].rank < found_[best].rank) best = i;
    if (found_[best].rank == PairTable::kNoRank) break;
    symbols[best].id = found_[best].result;
    std::move(symbols.begin() + static_cast<ptrdiff_t>(best) + 2, symbols.begin() + static_cast<ptrdiff_t>(n),
              symbols.begin() + static_cast<ptrdiff_t>(best) + 1);
    std::move(found_.begin() + static_cast<ptrdiff_t>(best) + 1, found_.begin() + static_cast<ptrdiff_t>(n) - 1,
              found_.begin() + static_cast<ptrdiff_t>(best));
    --n;
    if (best > 0) found_[best - 1] = pairs.find(symbols[best - 1].id, symbols[best].id);
    if (best + 1 < n) found_[best] = pairs.find(symbols[best].id, symbols[best + 1].id);
  }
  symbols.resize(n);
}

void BpeMerger::set_pair(const PairTable& pairs, const std::vector<BpeSymbol>& symbols, uint32_t at) {
  const uint32_t next = nodes_[at].next;
  const PairTable::Found found = next == kNone ? PairTable::Found{} : pairs.find(symbols[at].id, symbols[next].id);
  nodes_[at].rank = found.rank;
  nodes_[at].result = found.result;
}

void BpeMerger::push_pair(const PairTable& pairs, const std::vector<BpeSymbol>& symbols, uint32_t at) {
  set_pair(pairs, symbols, at);
  if (nodes_[at].rank == PairTable::kNoRank) return;
  heap_.push_back({nodes_[at].rank, at, nodes_[at].result});
  std::push_heap(heap_.begin(), heap_.end());
}

void BpeMerger::merge_long(const PairTable& pairs, std::vector<BpeSymbol>& symbols) {
  const auto n = static_cast<uint32_t>(symbols.size());
  nodes_.resize(n);
  heap_.clear();
  for (uint32_t i = 0; i < n; ++i) {
    nodes_[i].previous = i == 0 ? kNone : i - 1;
    nodes_[i].next = i + 1 == n ? kNone : i + 1;
    set_pair(pairs, symbols, i);
    if (nodes_[i].rank != PairTable::kNoRank) heap_.push_back({nodes_[i].rank, i, nodes_[i].result});
  }
  std::make_heap(heap_.begin(), heap_.end());
  while (!heap_.empty()) {
    const Candidate top = heap_.front();
    std::pop_heap(heap_.begin(), heap_.end());
    heap_.pop_back();
    Node& node = nodes_[top.at];
    if (symbols[top.at].id == kMerged || node.rank != top.rank || node.result != top.result) continue;
    const uint32_t gone = node.next;
    symbols[top.at].id = top.result;
    symbols[gone].id = kMerged;
    node.next = nodes_[gone].next;
    if (node.next != kNone) nodes_[node.next].previous = top.at;
    push_pair(pairs, symbols, top.at);
    if (node.previous != kNone) push_pair(pairs, symbols, node.previous);
  }
  std::erase_if(symbols, [](const BpeSymbol& s) { return s.id == kMerged; });
}

}  // namespace millrace
