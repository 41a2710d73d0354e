// What Python's str can do, on valid UTF-8. Positions and widths count characters unless a name says bytes.
// "Space" is what str.isspace() calls so.
#pragma once
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace millrace::jinja {

bool is_space(char32_t c);
bool is_identifier_start(char32_t c);
bool is_identifier_part(char32_t c);
// Whether repr() shows the character as it is.
bool is_printable(char32_t c);
bool is_word_char(char32_t c);  // \w of Python's re

// Byte offset of character `index`; index <= number of characters.
size_t byte_offset(std::string_view text, size_t index);
std::vector<std::string_view> split_chars(std::string_view text);

enum class Side : uint8_t { kLeft, kRight, kBoth };
std::string_view strip_space(std::string_view text, Side side = Side::kBoth);
std::string_view strip_chars(std::string_view text, std::string_view chars, Side side = Side::kBoth);

// At most `max_splits` splits (negative: no limit), from the left or the right. Pieces point into `text`.
std::vector<std::string_view> split_space(std::string_view text, int64_t max_splits = -1, bool from_right = false);
std::vector<std::string_view> split_at(std::string_view text, std::string_view separator, int64_t max_splits = -1,
                                       bool from_right = false);
std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends = false);

// Byte offset of the first (or last) `needle`, or npos. Linear time.
size_t find_text(std::string_view text, std::string_view needle);
size_t find_last_text(std::string_view text, std::string_view needle);
size_t count_text(std::string_view text, std::string_view needle);

std::string upper(std::string_view text);
std::string lower(std::string_view text);
std::string casefold(std::string_view text);
std::string title(std::string_view text);
std::string capitalize(std::string_view text);
std::string swap_case(std::string_view text);

enum class CharTest : uint8_t { kAlpha, kAlnum, kDecimal, kDigit, kNumeric, kSpace, kPrintable };
// Whether every character passes; an empty text passes only kPrintable.
bool all_chars(std::string_view text, CharTest test);
bool is_lower(std::string_view text);
bool is_upper(std::string_view text);
bool is_title(std::string_view text);
bool is_identifier(std::string_view text);

// Python's int(text, base) and float(text): surrounding space and single underscores between digits are allowed.
// Nothing if malformed; `overflow` is set if the number does not fit 64 bits.
std::optional<int64_t> parse_int(std::string_view text, int base, bool* overflow);
std::optional<double> parse_float(std::string_view text);

// & < > " ' become HTML entities, as markupsafe writes them.
std::string escape_html(std::string_view text);

}  // namespace millrace::jinja
