#include "instruction.hpp"

#include <algorithm>
#include <cstring>
#include <iterator>

#include "error.hpp"
#include "unicode.hpp"

namespace sam3i::core {

namespace {

using Text = std::u32string;
using View = std::u32string_view;

constexpr size_t kMaxCharacters = 10'000, kMaxWords = 2'000;
constexpr size_t kLongestName = 32;  // of an entity

struct Entity {
    const char* name;  // without the ampersand
    const char* text;  // UTF-8
};
#include "html_entities.inc"

template <size_t N>
const char* find_entity(const Entity (&table)[N], const std::string& name) {
    const auto* end = std::end(table);
    const auto* found = std::lower_bound(
        std::begin(table), end, name,
        [](const Entity& entity, const std::string& key) { return std::strcmp(entity.name, key.c_str()) < 0; });
    return found != end && name == found->name ? found->text : nullptr;
}

// What Windows-1252 means by the bytes 0x80 to 0x9F; five of them it leaves.
constexpr char32_t kWindows[] = {
    0x20AC, 0x81,   0x201A, 0x192,  0x201E, 0x2026, 0x2020, 0x2021, 0x2C6,  0x2030, 0x160,
    0x2039, 0x152,  0x8D,   0x17D,  0x8F,   0x90,   0x2018, 0x2019, 0x201C, 0x201D, 0x2022,
    0x2013, 0x2014, 0x2DC,  0x2122, 0x161,  0x203A, 0x153,  0x9D,   0x17E,  0x178,
};

bool is_alphanumeric(char32_t point) {
    return point < 128 && (is_letter(point) || is_number(point));
}

int digit(char32_t point, int base) {
    if (point - U'0' < 10) return static_cast<int>(point - U'0');
    if (base == 16 && (point | 32) - U'a' < 6) return static_cast<int>((point | 32) - U'a') + 10;
    return -1;
}

// html.unescape of a number: nothing where HTML has no such character.
void append_numbered(Text& out, uint32_t number) {
    if (number == 0 || (number >= 0xD800 && number <= 0xDFFF) || number > 0x10FFFF) {
        out.push_back(0xFFFD);
    } else if (number == 0x0D) {
        out.push_back(number);
    } else if (number >= 0x80 && number <= 0x9F) {
        out.push_back(kWindows[number - 0x80]);
    } else if (!(number <= 8 || number == 0x0B || (number >= 0x0E && number <= 0x1F) || number == 0x7F ||
                 (number >= 0xFDD0 && number <= 0xFDEF) || (number & 0xFFFE) == 0xFFFE)) {
        out.push_back(number);
    }
}

// "&#" at `at`: the number and where it ends, its semicolon read too; false where no digit follows.
bool read_number(View text, size_t at, uint32_t& number, size_t& end) {
    size_t i = at + 2;
    int base = 10;
    if (i < text.size() && (text[i] | 32) == U'x') base = 16, ++i;
    const size_t first = i;
    number = 0;
    for (; i < text.size() && digit(text[i], base) >= 0; ++i) {
        number = std::min<uint32_t>(
            number * static_cast<uint32_t>(base) + static_cast<uint32_t>(digit(text[i], base)), 0x110000);
    }
    if (i == first) return false;
    end = i < text.size() && text[i] == U';' ? i + 1 : i;
    return true;
}

// Python's html.unescape.
Text unescape(View text) {
    Text out;
    for (size_t i = 0; i < text.size();) {
        if (text[i] != U'&') {
            out.push_back(text[i++]);
            continue;
        }
        uint32_t number = 0;
        size_t end = i + 1;
        if (end < text.size() && text[end] == U'#') {
            if (read_number(text, i, number, end)) {
                append_numbered(out, number);
            } else {
                out.push_back(text[i]), end = i + 1;
            }
            i = end;
            continue;
        }
        const View stops = U"\t\n\f <&#;";
        while (end < text.size() && end - i <= kLongestName && stops.find(text[end]) == View::npos) ++end;
        if (end > i + 1 && end < text.size() && text[end] == U';') ++end;
        std::string name = encode_utf8(text.substr(i + 1, end - i - 1));
        const char* found = find_entity(kEntities, name);
        // The longest beginning that is a name, as in "&notit"; from two letters on.
        size_t used = end - i - 1;
        while (found == nullptr && used > 2) {
            name = encode_utf8(text.substr(i + 1, --used));
            found = find_entity(kEntities, name);
        }
        if (found == nullptr) {
            out.push_back(text[i++]);
        } else {
            out += decode_utf8(found);
            i += 1 + used;
        }
    }
    return out;
}

// ftfy's own unescaping: what ends in a semicolon alone, and names in capitals too.
Text unescape_strictly(View text) {
    Text out;
    for (size_t i = 0; i < text.size();) {
        size_t end = i + 1;
        if (text[i] == U'&' && end < text.size() && text[end] == U'#') ++end;
        const size_t first = end;
        while (end < text.size() && end - first < 24 && is_alphanumeric(text[end])) ++end;
        if (text[i] != U'&' || end == first || end >= text.size() || text[end] != U';') {
            out.push_back(text[i++]);
            continue;
        }
        ++end;
        const View whole = text.substr(i, end - i);
        if (whole[1] == U'#') {
            const Text found = unescape(whole);
            out += found.find(U';') == Text::npos ? found : Text(whole);
        } else {
            const std::string name = encode_utf8(whole.substr(1));
            const char* found = find_entity(kEntities, name);
            if (found == nullptr) found = find_entity(kShouted, name);
            out += found == nullptr ? Text(whole) : decode_utf8(found);
        }
        i = end;
    }
    return out;
}

// Ligatures of Latin letters.
const char32_t* ligature(char32_t point) {
    switch (point) {
        case 0x132:
            return U"IJ";
        case 0x133:
            return U"ij";
        case 0x149:
            return U"\u02BCn";
        case 0x1F1:
            return U"DZ";
        case 0x1F2:
            return U"Dz";
        case 0x1F3:
            return U"dz";
        case 0x1C4:
            return U"D\u017D";
        case 0x1C5:
            return U"D\u017E";
        case 0x1C6:
            return U"d\u017E";
        case 0x1C7:
            return U"LJ";
        case 0x1C8:
            return U"Lj";
        case 0x1C9:
            return U"lj";
        case 0x1CA:
            return U"NJ";
        case 0x1CB:
            return U"Nj";
        case 0x1CC:
            return U"nj";
        case 0xFB00:
            return U"ff";
        case 0xFB01:
            return U"fi";
        case 0xFB02:
            return U"fl";
        case 0xFB03:
            return U"ffi";
        case 0xFB04:
            return U"ffl";
        case 0xFB05:
            return U"\u017Ft";
        case 0xFB06:
            return U"st";
        default:
            return nullptr;
    }
}

bool is_control(char32_t point) {
    return point < 9 || point == 0x0B || (point >= 0x0E && point < 0x20) || point == 0x7F ||
           (point >= 0x206A && point < 0x2070) || point == 0xFEFF || (point >= 0xFFF9 && point < 0xFFFD);
}

// The steps of ftfy that look at a character or two, in its order.
Text fix_characters(View text) {
    Text wide;
    for (char32_t point : text) {
        if (point >= 0x80 && point <= 0x9F) point = kWindows[point - 0x80];
        if (const char32_t* letters = ligature(point)) {
            wide += letters;
        } else if (point == 0x3000) {
            wide.push_back(U' ');
        } else if (point >= 0xFF01 && point < 0xFFF0) {
            wide += compatible(point);
        } else {
            wide.push_back(point);
        }
    }
    Text lines;
    for (size_t i = 0; i < wide.size(); ++i) {
        char32_t point = wide[i];
        if (point == 0x2BC || (point >= 0x2018 && point <= 0x201B)) point = U'\'';
        if (point >= 0x201C && point <= 0x201F) point = U'"';
        if (point == U'\r' && i + 1 < wide.size() && wide[i + 1] == U'\n') continue;
        if (point == U'\r' || point == 0x2028 || point == 0x2029 || point == 0x85) point = U'\n';
        lines.push_back(point);
    }
    Text out;
    for (size_t i = 0; i < lines.size();) {
        if (lines[i] == 0x1B && i + 1 < lines.size() && lines[i + 1] == U'[') {  // a terminal's colour
            size_t end = i + 2;
            while (end < lines.size() && (is_decimal(lines[end]) || lines[end] == U';')) ++end;
            if (end < lines.size() && lines[end] < 128 && is_letter(lines[end])) {
                i = end + 1;
                continue;
            }
        }
        if (!is_control(lines[i])) out.push_back(lines[i]);
        ++i;
    }
    return normalized(out);
}

// ftfy.fix_text without the repair of wrong encodings.
Text fix_text(const Text& text) {
    Text out;
    bool escaped = true;  // until the first "<", after which entities may be meant
    for (size_t at = 0; at < text.size();) {
        size_t end = text.find(U'\n', at);
        end = end == Text::npos ? text.size() : end + 1;
        Text line = text.substr(at, end - at);
        bool here = escaped = escaped && line.find(U'<') == Text::npos;
        for (Text before; before != line;) {
            before = line;
            line = fix_characters(here ? unescape_strictly(line) : line);
        }
        out += line;
        at = end;
    }
    return out;
}

bool is_printable_ascii(View text) {
    return std::all_of(text.begin(), text.end(), [](char32_t point) { return point >= 32 && point < 127; });
}

// Words with one blank between them: " ".join(text.split()).
Text joined(View text) {
    Text out;
    bool gap = false;
    for (const char32_t point : text) {
        if (is_space(point)) {
            gap = true;
            continue;
        }
        if (gap && !out.empty()) out.push_back(U' ');
        gap = false;
        out.push_back(point);
    }
    return out;
}

Text clean_once(const Text& text) {
    const Text fixed = is_printable_ascii(text) ? text : fix_text(text);
    const Text unescaped = fixed.find(U'<') == Text::npos ? unescape(fixed) : fixed;
    return lower(joined(unescape(unescape(unescaped))));
}

bool one_of(char32_t point, View set) {
    return set.find(point) != View::npos;
}

constexpr View kQuotes = U"\"\u201c\u201d\u201e\u201f\u00ab\u00bb", kDashes = U"\u2012\u2013\u2014\u2015\u2212";
constexpr View kHyphens = U"\u2010\u2011\u00ad", kApostrophes = U"\u2018\u2019\u201b\u2032`";
constexpr View kEnds = U".?!", kEdgeAndEnds = U",;:\u2026*_~-'\u2022 .?!";

// Quotation marks anywhere, single ones that are no apostrophe, and dashes that stand for a pause become blanks.
Text without_quotes(View text) {
    Text out;
    const auto word = [&](size_t at) { return at < text.size() && is_word(text[at]); };
    const auto solid = [&](size_t at) { return at < text.size() && !is_space(text[at]); };
    for (size_t i = 0; i < text.size();) {
        size_t end = i;
        if (one_of(text[i], kQuotes) || one_of(text[i], kDashes)) {
            end = i + 1;
        } else if (text[i] == U'\'' && (i == 0 || !word(i - 1) || !word(i + 1))) {
            end = i + 1;
        } else if (text[i] == U'-' && (i == 0 || !solid(i - 1))) {
            while (end < text.size() && text[end] == U'-') ++end;
            if (solid(end)) end = i;
        }
        out.push_back(end > i ? U' ' : text[i]);
        i = std::max(end, i + 1);
    }
    return out;
}

Text plain_once(const Text& text) {
    Text words = text;
    for (char32_t& point : words) {
        if (one_of(point, kHyphens)) point = U'-';
        if (one_of(point, kApostrophes)) point = U'\'';
    }
    words = joined(without_quotes(words));
    const size_t first = words.find_first_not_of(kEdgeAndEnds), last = words.find_last_not_of(kEdgeAndEnds);
    if (first == Text::npos) return text;
    Text bare = words.substr(first, last + 1 - first);
    const size_t stop = words.find_first_of(kEnds, last + 1);
    const Text end = stop == Text::npos ? Text() : Text(1, words[stop]);

    // One pair of brackets around everything, a stop behind it at most.
    const View brackets = U"()[]{}";
    const Text whole = bare + end;
    const bool stopped = one_of(whole.back(), kEnds);
    const size_t close = whole.size() - (stopped ? 2 : 1);
    if (whole.size() > 2 && close >= 1 && one_of(whole[0], U"([{") && one_of(whole[close], U")]}")) {
        const Text inside = whole.substr(1, close - 1);
        if (inside.find_first_of(brackets) == Text::npos && !joined(inside).empty()) {
            return inside + whole.substr(close + 1);
        }
    }
    Text out;  // no blank in front of punctuation
    for (const char32_t point : bare) {
        if (one_of(point, U",;:.?!")) {
            while (!out.empty() && is_space(out.back())) out.pop_back();
        }
        out.push_back(point);
    }
    return out + end;
}

Text settled(Text (*step)(const Text&), Text text) {
    for (Text once = step(text); once != text; once = step(text)) text = once;
    return text;
}

std::string thousands(size_t number) {
    std::string digits = std::to_string(number);
    for (size_t at = digits.size(); at > 3; at -= 3) digits.insert(at - 3, ",");
    return digits;
}

[[noreturn]] void refuse_length(size_t count, const char* what, size_t most) {
    throw Error(SAM3I_BAD_INSTRUCTION, "the instruction has " + thousands(count) + ' ' + what + ", at most " +
                                           thousands(most) + " are allowed: describe the target in one sentence");
}

}  // namespace

Text clean(Text text) {
    return settled(clean_once, std::move(text));
}

Text plain(Text text) {
    return settled(plain_once, std::move(text));
}

Text check_instruction(std::string_view text) {
    Text points = decode_utf8(text);
    if (points.size() > kMaxCharacters) refuse_length(points.size(), "characters", kMaxCharacters);
    Text cleaned = clean(std::move(points));
    if (cleaned.empty()) {
        throw Error(SAM3I_BAD_INSTRUCTION,
                    "the instruction is empty: describe what to segment, as in 'the red star'");
    }
    const auto words = static_cast<size_t>(std::count(cleaned.begin(), cleaned.end(), U' ')) + 1;
    if (words > kMaxWords) refuse_length(words, "words", kMaxWords);
    return cleaned;
}

}  // namespace sam3i::core
