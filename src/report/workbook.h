// Tables as the sheets of an Excel workbook (.xlsx). Plain data in, a file out; one thread.
#pragma once
#include <string>
#include <vector>

#include "base/result.h"

namespace millrace::report {

struct Sheet {
  std::string name;  // at most 31 letters, none of []:*?/\ and no apostrophe at an end; unique in the workbook
  std::vector<std::string> titles;
  std::vector<std::vector<std::string>>
      rows;  // as many cells as titles; text that is a whole finite number becomes one
};

// A first column without a title numbers the rows from 0, as pandas writes data frames. The file appears whole or not
// at all and replaces another. kInvalidArgument for names, lengths and counts that the format has no place for.
Status write_workbook(const std::string& path, const std::vector<Sheet>& sheets);

}  // namespace millrace::report
