// An instruction as a user writes it -> the text that a tokenizer reads; sam3i_edge/pipeline/instruction.py.
#pragma once

#include <string>
#include <string_view>

namespace sam3i::core {

// One line, single blanks, lower case; entities unescaped, quotes straight, full-width letters plain, NFC. What ftfy
// repairs of wrong encodings ("Ã©" for "é") is left as it is.
std::u32string clean(std::u32string text);

// A cleaned text without the punctuation around its words.
std::u32string plain(std::u32string text);

// The cleaned instruction. Throws Error(SAM3I_BAD_INSTRUCTION): blank, over 10,000 characters or 2,000 words, no
// UTF-8.
std::u32string check_instruction(std::string_view text);

}  // namespace sam3i::core
