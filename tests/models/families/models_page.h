// docs/models.md, made from the families, the built-in list of checkpoints and the list of golden folders.
#pragma once
#include <string>

namespace millrace {

std::string models_page();

}  // namespace millrace
