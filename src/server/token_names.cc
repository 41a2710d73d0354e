#include "server/token_names.h"

#include "base/utf8.h"

namespace millrace {

std::string TokenNames::name(int32_t id) const {
  if (as_ids_) return fmt::format("token_id:{}", id);
  return utf8_replace_invalid(codec_->token_bytes(id));
}

}  // namespace millrace
