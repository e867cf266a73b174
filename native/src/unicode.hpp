// Text as code points, and the classes of characters that Python and the `tokenizers` library know.
#pragma once

#include <string>
#include <string_view>

namespace sam3i::core {

// The code points of UTF-8. Throws Error(SAM3I_BAD_INSTRUCTION) where it is none, also for halves of a surrogate
// pair.
std::u32string decode_utf8(std::string_view text);
std::string encode_utf8(std::u32string_view text);
void append_utf8(std::string& text, char32_t point);

bool is_letter(char32_t point);       // \p{L}
bool is_number(char32_t point);       // \p{N}
bool is_decimal(char32_t point);      // Python's \d
bool is_word(char32_t point);         // Python's \w
bool is_space(char32_t point);        // Python's \s: White_Space and the four separators U+001C to U+001F
bool is_white_space(char32_t point);  // \s of `tokenizers`: White_Space

std::u32string lower(std::u32string_view text);       // str.lower()
std::u32string normalized(std::u32string_view text);  // NFC
std::u32string compatible(char32_t point);            // NFKC

}  // namespace sam3i::core
