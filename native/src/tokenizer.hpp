// The BPE of a tokenizer.json: byte-level as GPT-2's and our own, and CLIP's; sam3i_edge/pipeline/tokenizer.py.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace sam3i::core {

// What cannot be used of a file: anything that this does not do as the `tokenizers` library does is refused.
class Tokenizer {
public:
    // `place` is named by errors, Error(SAM3I_BAD_BUNDLE): no tokenizer.json, or one of another kind.
    Tokenizer(std::string_view json, const std::string& place);
    ~Tokenizer();
    Tokenizer(Tokenizer&&) noexcept;

    // Ids of a text; special tokens that it spells are ordinary text.
    std::vector<int64_t> encode(std::u32string_view text) const;
    // The text of an id, or "" where there is none.
    const std::string& token(int64_t id) const;
    // Rows that a token table must have: the largest id and one.
    int64_t size() const;

private:
    struct Parts;
    std::unique_ptr<Parts> parts_;
};

}  // namespace sam3i::core
