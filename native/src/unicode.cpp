#include "unicode.hpp"

#include <utf8proc.h>

#include <cstdlib>
#include <new>

#include "error.hpp"

namespace sam3i::core {

namespace {

const char* category(char32_t point) {
    return utf8proc_category_string(static_cast<utf8proc_int32_t>(point));
}

// Letters with case, for the Greek sigma that has a form of its own at the end of a word.
bool is_cased(char32_t point) {
    const std::string_view kind = category(point);
    return kind == "Lu" || kind == "Ll" || kind == "Lt";
}

bool is_case_ignorable(char32_t point) {
    const std::string_view kind = category(point);
    if (kind == "Mn" || kind == "Me" || kind == "Cf" || kind == "Lm" || kind == "Sk") return true;
    return point == '\'' || point == '.' || point == ':' || point == 0xB7 || point == 0x387 || point == 0x55F ||
           point == 0x5F4 || point == 0x2018 || point == 0x2019 || point == 0x2024 || point == 0x2027 ||
           point == 0xFE13 || point == 0xFE52 || point == 0xFE55 || point == 0xFF07 || point == 0xFF0E ||
           point == 0xFF1A;
}

bool is_final_sigma(std::u32string_view text, size_t at) {
    size_t before = at, after = at + 1;
    while (before > 0 && is_case_ignorable(text[before - 1])) --before;
    if (before == 0 || !is_cased(text[before - 1])) return false;
    while (after < text.size() && is_case_ignorable(text[after])) ++after;
    return after == text.size() || !is_cased(text[after]);
}

std::u32string composed(std::u32string_view text, int options) {
    const std::string bytes = encode_utf8(text);
    utf8proc_uint8_t* found = nullptr;
    const auto size = utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(bytes.data()),
                                   static_cast<utf8proc_ssize_t>(bytes.size()), &found,
                                   static_cast<utf8proc_option_t>(UTF8PROC_COMPOSE | options));
    if (size < 0) throw std::bad_alloc();
    const std::string result(reinterpret_cast<const char*>(found), static_cast<size_t>(size));
    std::free(found);
    return decode_utf8(result);
}

}  // namespace

std::u32string decode_utf8(std::string_view text) {
    std::u32string points;
    points.reserve(text.size());
    const auto* bytes = reinterpret_cast<const utf8proc_uint8_t*>(text.data());
    for (size_t at = 0; at < text.size();) {
        utf8proc_int32_t point = 0;
        const auto used = utf8proc_iterate(bytes + at, static_cast<utf8proc_ssize_t>(text.size() - at), &point);
        if (used < 1) {
            throw Error(SAM3I_BAD_INSTRUCTION, "the instruction is no UTF-8 at byte " + std::to_string(at) +
                                                   ": decode it from what it is, and pass UTF-8");
        }
        points.push_back(static_cast<char32_t>(point));
        at += static_cast<size_t>(used);
    }
    return points;
}

void append_utf8(std::string& text, char32_t point) {
    utf8proc_uint8_t bytes[4];
    const auto count = utf8proc_encode_char(static_cast<utf8proc_int32_t>(point), bytes);
    text.append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(count));
}

std::string encode_utf8(std::u32string_view text) {
    std::string bytes;
    bytes.reserve(text.size());
    for (const char32_t point : text) append_utf8(bytes, point);
    return bytes;
}

bool is_letter(char32_t point) {
    if (point < 128) return (point | 32) - U'a' < 26;
    return category(point)[0] == 'L';
}

bool is_number(char32_t point) {
    if (point < 128) return point - U'0' < 10;
    return category(point)[0] == 'N';
}

bool is_decimal(char32_t point) {
    return std::string_view(category(point)) == "Nd";
}

bool is_word(char32_t point) {
    return point == U'_' || is_letter(point) || is_number(point);
}

bool is_white_space(char32_t point) {
    if (point < 128) return point == U' ' || (point >= 9 && point <= 13);
    return point == 0x85 || point == 0xA0 || point == 0x1680 || (point >= 0x2000 && point <= 0x200A) ||
           point == 0x2028 || point == 0x2029 || point == 0x202F || point == 0x205F || point == 0x3000;
}

bool is_space(char32_t point) {
    return is_white_space(point) || (point >= 0x1C && point <= 0x1F);
}

std::u32string lower(std::u32string_view text) {
    std::u32string result;
    result.reserve(text.size());
    for (size_t i = 0; i < text.size(); ++i) {
        const char32_t point = text[i];
        if (point < 128) {
            result.push_back(point >= U'A' && point <= U'Z' ? point + 32 : point);
        } else if (point == 0x130) {  // the one character whose lower case is two
            result.append({U'i', char32_t{0x307}});
        } else if (point == 0x3A3) {
            result.push_back(is_final_sigma(text, i) ? 0x3C2 : 0x3C3);
        } else {
            result.push_back(static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(point))));
        }
    }
    return result;
}

std::u32string normalized(std::u32string_view text) {
    return composed(text, UTF8PROC_STABLE);
}

std::u32string compatible(char32_t point) {
    return composed({&point, 1}, UTF8PROC_STABLE | UTF8PROC_COMPAT);
}

}  // namespace sam3i::core
