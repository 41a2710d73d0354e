// A text and the pieces it is cut into on its way to the model.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace millrace {

// Bytes [begin, end) of the text that the piece belongs to.
struct Piece {
  uint32_t begin = 0, end = 0;
};

// `text` is borrowed from the caller until a step rewrites it; then it lies in `storage`. Pieces are in order and never
// empty. All text is valid UTF-8.
struct PieceList {
  std::string_view text;
  std::string storage;
  std::vector<Piece> pieces;
  bool at_start = true;  // the first piece begins where the whole input begins

  std::string_view view(const Piece& piece) const { return text.substr(piece.begin, piece.end - piece.begin); }
  // Takes over rewritten text.
  void replace_text(std::string new_text, std::vector<Piece> new_pieces) {
    storage = std::move(new_text);
    text = storage;
    pieces = std::move(new_pieces);
  }
};

}  // namespace millrace
