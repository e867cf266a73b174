#include "levels.hpp"

#include <algorithm>
#include <regex>
#include <sstream>
#include <string>
#include <unordered_set>
#include <vector>

#include "sam3i.h"
#include "unicode.hpp"

namespace sam3i::core {

namespace {

using Sentence = std::vector<std::string>;

struct Words : std::unordered_set<std::string> {
    explicit Words(const char* list) {
        std::istringstream stream(list);
        for (std::string word; stream >> word;) insert(word);
    }
    bool has(const std::string& word) const { return count(word) != 0; }
};

#include "level_words.inc"

constexpr size_t kMostWords = 64;  // the head stands at the beginning

// Letters and digits that are not ASCII become "_": nothing here knows a word that has one, and std::regex reads
// bytes.
Sentence split(std::u32string_view instruction) {
    Sentence words;
    const auto word = [&](size_t at) { return at < instruction.size() && is_word(instruction[at]); };
    for (size_t i = 0; i < instruction.size() && words.size() < kMostWords;) {
        std::string found;
        while (word(i) || (!found.empty() && i < instruction.size() && word(i + 1) &&
                           (instruction[i] == U'-' || instruction[i] == U'\'' || instruction[i] == 0x2019))) {
            const char32_t point = instruction[i] == 0x2019 ? U'\'' : instruction[i];
            found.push_back(point < 128 ? static_cast<char>(point) : '_');
            ++i;
        }
        if (found.empty()) {
            ++i;
        } else {
            words.push_back(std::move(found));
        }
    }
    return words;
}

std::string joined(const Sentence& words) {
    std::string text;
    for (const auto& word : words) text += text.empty() ? word : ' ' + word;
    return text;
}

// The length of what a pattern matches at the beginning, or -1.
int64_t match(const std::regex& pattern, const std::string& text) {
    std::smatch found;
    if (!std::regex_search(text, found, pattern, std::regex_constants::match_continuous)) return -1;
    return found.length(0);
}

bool ends_with(const std::string& word, std::string_view end) {
    return word.size() >= end.size() && word.compare(word.size() - end.size(), end.size(), end) == 0;
}

bool is_superlative(const std::string& word) {
    return (ends_with(word, "est") || ends_with(word, "most")) && word.size() > 4 && !kNotSuperlative.has(word) &&
           word != "almost";
}

// Whether the word is no longer part of the phrase that names the target.
bool ends_head(const Sentence& words, size_t index) {
    const std::string& word = words[index];
    const std::string after = index + 1 < words.size() ? words[index + 1] : "";
    if (after == "than" || (index > 0 && kPlaceholders.has(words[index - 1]) && ends_with(word, "ed"))) return true;
    if (word == "left" || word == "right") return after == "of";
    if (word == "that" || word == "next") return index > 0 && (word == "that" || after == "to");
    if (word == "the") return index > 0 && (words[index - 1] == "one" || !kQuantifiers.has(words[index - 1]));
    if (word == "nearest" || word == "closest") return after.empty() || after == "to" || after == "the";
    return kPrepositions.has(word) || kClauses.has(word) || kRelationVerbs.has(word);
}

bool names_nothing(const Sentence& words) {
    size_t end = 0;
    while (end < words.size() && !ends_head(words, end)) ++end;
    const Sentence rest(words.begin() + static_cast<int64_t>(end), words.end());
    Sentence content;
    for (size_t i = 0; i < end; ++i) {
        const std::string& word = words[i];
        const bool counts = kQuantifiers.has(word) && word != "one";
        if (!kArticles.has(word) && !kOrdinals.has(word) && !kPositions.has(word) && !counts &&
            !is_superlative(word)) {
            content.push_back(word);
        }
    }
    const bool of = rest.size() > 1 && rest[0] == "of";
    if (content.empty() || content == Sentence{"one"}) {
        return !of || names_nothing(Sentence(rest.begin() + 1, rest.end()));
    }
    const std::string& last = content.back();
    const bool seen =
        std::any_of(content.begin(), content.end(), [](const auto& word) { return kVisible.has(word); });
    if (kWeakPlaceholders.has(last)) {
        const std::unordered_set<std::string> distinct(content.begin(), content.end());
        const auto named =
            std::count_if(distinct.begin(), distinct.end(), [](const auto& word) { return !kVisible.has(word); });
        const bool portion = last.compare(0, 4, "piec") == 0 || last.compare(0, 4, "pair") == 0;
        if (named > 1 || (portion && of && !kArticles.has(rest[1]))) return false;
    }
    if (std::any_of(content.begin(), content.end(), [](const auto& word) { return ends_with(word, "-shaped"); })) {
        return false;
    }
    static const std::regex seen_clause(kSeenClause), purpose(kPurpose);
    const std::string tail = joined(rest);
    if (last != "one" && last != "ones" && seen && match(seen_clause, tail) >= 0) return false;
    if (kPlaceholders.has(last)) return true;
    if (kPlaceholders.has(content[0]) && !kWeakPlaceholders.has(content[0]) && content[0] != "one") return true;
    return kClassWords.has(last) && std::regex_search(tail, purpose);
}

bool narrows(const Sentence& words) {
    if (words.size() > kMaxConceptWords || kArticles.has(words[0])) return true;
    for (size_t i = 0; i < words.size(); ++i) {
        const std::string& word = words[i];
        if (kNarrowing.has(word) || is_superlative(word) || (i > 0 && word == "the")) return true;
        if (i > 0 && i + 1 < words.size() && kRelationVerbs.has(word)) return true;
    }
    return false;
}

}  // namespace

int32_t route(std::u32string_view instruction) {
    static const std::regex request(kRequest);
    Sentence words = split(lower(instruction));
    const std::string text = joined(words);
    const int64_t used = match(request, text);
    if (used > 0) {
        std::istringstream stream(text.substr(0, static_cast<size_t>(used)));
        for (std::string word; stream >> word;) words.erase(words.begin());
    }
    if (!words.empty() && (words[0] == "a" || words[0] == "an")) words.erase(words.begin());
    if (words.empty()) return SAM3I_CONCEPT;
    const bool what = std::find(words.begin(), words.end(), "what") != words.end();
    if (kQuestions.has(words[0]) || what || words[0] == "where") return SAM3I_COMPLEX;
    if (words[0] == "which") {
        return names_nothing(Sentence(words.begin() + 1, words.end())) ? SAM3I_COMPLEX : SAM3I_SIMPLE;
    }
    if (names_nothing(words)) return SAM3I_COMPLEX;
    return used > 0 || narrows(words) ? SAM3I_SIMPLE : SAM3I_CONCEPT;
}

}  // namespace sam3i::core
