// The validity box: what must hold for figures to mean anything, checked and shown beside them. One red item makes all
// figures of the run invalid. Plain data, one thread.
#pragma once
#include <string>
#include <vector>

#include "base/json.h"
#include "report/table.h"

namespace millrace::report {

enum class Mark { kGood, kBad, kUnknown };  // kUnknown: could not be checked; shown, does not invalidate
const char* mark_name(Mark mark);           // "ok", "INVALID", "unknown"

struct ValidityItem {
  std::string name;    // "client CPU"
  std::string found;   // "97 % of one core"
  std::string wanted;  // "below 80 %"
  Mark mark = Mark::kUnknown;
};

class Validity {
 public:
  void add(ValidityItem item) { items_.push_back(std::move(item)); }
  const std::vector<ValidityItem>& items() const { return items_; }
  // No item is bad.
  bool valid() const { return reason().empty(); }
  // "client CPU is 97 % of one core (wanted: below 80 %); ..." for every bad item; "" when valid.
  std::string reason() const;

 private:
  std::vector<ValidityItem> items_;
};

// A table of the items, for the terminal.
Table to_table(const Validity& validity);
// {"valid": bool, "items": [{"name", "found", "wanted", "mark": "ok"}]}
Json to_json(const Validity& validity);

}  // namespace millrace::report
