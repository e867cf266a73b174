#include "tokenizer.hpp"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <queue>
#include <unordered_map>

#include "error.hpp"
#include "unicode.hpp"

namespace sam3i::core {

namespace {

using Json = nlohmann::json;
using Text = std::u32string;
using View = std::u32string_view;

constexpr const char* kClipWords = R"('s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+)";
constexpr View kEndings[] = {U"'s", U"'t", U"'re", U"'ve", U"'m", U"'ll", U"'d"};

enum class Kind { letter, number, space, other };

Kind kind_of(char32_t point) {
    if (is_letter(point)) return Kind::letter;
    if (is_number(point)) return Kind::number;
    return is_white_space(point) ? Kind::space : Kind::other;
}

size_t run_end(View text, size_t at) {
    const Kind kind = kind_of(text[at]);
    while (at < text.size() && kind_of(text[at]) == kind) ++at;
    return at;
}

// The end of the ending, such as 's, that begins at `at`; `at` where none does.
size_t ending_end(View text, size_t at) {
    for (const View ending : kEndings) {
        if (text.compare(at, ending.size(), ending) == 0) return at + ending.size();
    }
    return at;
}

// GPT-2's words, which cover the text: 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
size_t gpt2_word_end(View text, size_t at) {
    if (const size_t end = ending_end(text, at); end > at) return end;
    const size_t start = at + (text[at] == U' ' ? 1 : 0);
    if (start < text.size() && kind_of(text[start]) != Kind::space) return run_end(text, start);
    const size_t end = run_end(text, at);
    return end < text.size() && end - at > 1 ? end - 1 : end;
}

// CLIP's words, without the blanks between them.
std::vector<Text> clip_words(View text) {
    std::vector<Text> words;
    for (size_t i = 0; i < text.size();) {
        const Kind kind = kind_of(text[i]);
        size_t end = ending_end(text, i);
        if (end == i) end = kind == Kind::number ? i + 1 : run_end(text, i);
        if (kind != Kind::space) words.emplace_back(text.substr(i, end - i));
        i = end;
    }
    return words;
}

// GPT-2's letter for each byte.
std::array<std::string, 256> byte_letters() {
    std::array<std::string, 256> letters;
    char32_t other = 256;
    for (char32_t byte = 0; byte < 256; ++byte) {
        const bool shown = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
        append_utf8(letters[byte], shown ? byte : other++);
    }
    return letters;
}

struct Merge {
    int64_t rank, id;
};

uint64_t pair_key(int64_t left, int64_t right) {
    return static_cast<uint64_t>(left) << 32 | static_cast<uint64_t>(right);
}

struct Step {
    enum Kind { gpt2, bytes, clip } kind;
    bool add_blank;
};

struct Added {
    Text text;
    int64_t id;
};

}  // namespace

struct Tokenizer::Parts {
    std::unordered_map<std::string, int64_t> vocabulary;
    std::unordered_map<int64_t, std::string> names;
    std::unordered_map<uint64_t, Merge> merges;
    std::vector<Step> steps;
    std::vector<Added> added;  // longest first
    std::array<std::string, 256> letters = byte_letters();
    std::string suffix;
    int64_t unknown = -1, size = 0;
    bool fuse_unknown = false, ignore_merges = false, compose = false, lower_case = false, one_blank = false;

    void read(const Json& json);
    void read_model(const Json& model);
    void read_step(const Json& step);
    void read_normalizer(const Json& step);
    Text normalize(Text text) const;
    void encode_part(View text, std::vector<int64_t>& ids) const;
    void encode_word(const std::vector<std::string>& characters, std::vector<int64_t>& ids) const;
};

namespace {

[[noreturn]] void refuse(const std::string& what) {
    throw std::invalid_argument(what);
}

bool is_set(const Json& json, const char* key) {
    const auto found = json.find(key);
    return found != json.end() && !found->is_null() && *found != Json(false) && *found != Json("");
}

}  // namespace

void Tokenizer::Parts::read_model(const Json& model) {
    if (model.at("type") != "BPE") refuse("its model is " + model.at("type").dump() + ", want BPE");
    for (const char* key : {"dropout", "continuing_subword_prefix", "byte_fallback"}) {
        if (is_set(model, key)) refuse(std::string("its model sets ") + key + ", want none");
    }
    for (const auto& [token, id] : model.at("vocab").items()) {
        const auto number = id.get<int64_t>();
        if (number < 0 || number > INT32_MAX) refuse("token " + Json(token).dump() + " has the id " + id.dump());
        vocabulary.emplace(token, number);
        names.emplace(number, token);
        size = std::max(size, number + 1);
    }
    int64_t rank = 0;
    for (const auto& merge : model.at("merges")) {  // "a b" in older files, ["a", "b"] in newer
        std::string left, right;
        if (merge.is_array()) {
            if (merge.size() != 2) refuse("merge " + merge.dump() + " is no pair");
            left = merge[0].get<std::string>(), right = merge[1].get<std::string>();
        } else {
            const auto text = merge.get<std::string>();
            const size_t blank = text.find(' ');
            if (blank == std::string::npos) refuse("merge " + merge.dump() + " is no pair");
            left = text.substr(0, blank), right = text.substr(blank + 1);
        }
        const auto from = vocabulary.find(left), with = vocabulary.find(right), to = vocabulary.find(left + right);
        if (from == vocabulary.end() || with == vocabulary.end() || to == vocabulary.end()) {
            refuse("merge " + merge.dump() + " is of tokens that its vocabulary lacks");
        }
        merges[pair_key(from->second, with->second)] = {rank++, to->second};
    }
    if (is_set(model, "end_of_word_suffix")) suffix = model.at("end_of_word_suffix").get<std::string>();
    fuse_unknown = is_set(model, "fuse_unk");
    ignore_merges = is_set(model, "ignore_merges");
    if (is_set(model, "unk_token")) {
        const auto found = vocabulary.find(model.at("unk_token").get<std::string>());
        if (found == vocabulary.end()) refuse("its unk_token is not in its vocabulary");
        unknown = found->second;
    }
}

void Tokenizer::Parts::read_step(const Json& step) {
    const auto type = step.at("type").get<std::string>();
    if (type == "Sequence") {
        for (const auto& part : step.at("pretokenizers")) read_step(part);
    } else if (type == "ByteLevel") {
        const bool words = step.value("use_regex", true);
        steps.push_back({words ? Step::gpt2 : Step::bytes, step.at("add_prefix_space").get<bool>()});
    } else if (type == "Split" && step.at("pattern").value("Regex", "") == kClipWords &&
               step.at("behavior") == "Removed" && step.at("invert") == true) {
        steps.push_back({Step::clip, false});
    } else {
        refuse("its pre-tokenizer " + step.dump().substr(0, 90) +
               " is not one that this library knows: want "
               "ByteLevel, or CLIP's Split");
    }
}

void Tokenizer::Parts::read_normalizer(const Json& step) {
    const auto type = step.at("type").get<std::string>();
    if (type == "Sequence") {
        for (const auto& part : step.at("normalizers")) read_normalizer(part);
    } else if (type == "NFC") {
        compose = true;
    } else if (type == "Lowercase") {
        lower_case = true;
    } else if (type == "Replace" && step.at("pattern").value("Regex", "") == R"(\s+)" && step.at("content") == " ") {
        one_blank = true;
    } else {
        refuse("its normalizer " + step.dump().substr(0, 90) + " is not one that this library knows");
    }
}

void Tokenizer::Parts::read(const Json& json) {
    read_model(json.at("model"));
    if (is_set(json, "normalizer")) read_normalizer(json.at("normalizer"));
    read_step(json.at("pre_tokenizer"));
    if (steps.back().kind == Step::clip) refuse("its pre-tokenizer ends without ByteLevel");
    for (const auto& token : json.value("added_tokens", Json::array())) {
        const auto id = token.at("id").get<int64_t>();
        const auto text = token.at("content").get<std::string>();
        if (id < 0 || id > INT32_MAX)
            refuse("added token " + Json(text).dump() + " has the id " + std::to_string(id));
        names[id] = text;
        size = std::max(size, id + 1);
        if (token.at("special").get<bool>()) continue;
        for (const char* key : {"single_word", "lstrip", "rstrip", "normalized"}) {
            if (is_set(token, key)) refuse("added token " + Json(text).dump() + " sets " + key + ", want none");
        }
        added.push_back({decode_utf8(text), id});
    }
    std::stable_sort(added.begin(), added.end(),
                     [](const Added& a, const Added& b) { return a.text.size() > b.text.size(); });
}

Text Tokenizer::Parts::normalize(Text text) const {
    if (compose) text = normalized(text);
    if (one_blank) {
        Text blanks;
        for (const char32_t point : text) {
            if (!is_white_space(point)) {
                blanks.push_back(point);
            } else if (blanks.empty() || blanks.back() != U' ') {
                blanks.push_back(U' ');
            }
        }
        text = blanks;
    }
    if (!lower_case) return text;
    Text small;  // letter by letter, where Python looks at a whole word for the Greek sigma
    for (const char32_t point : text) small += lower({&point, 1});
    return small;
}

void Tokenizer::Parts::encode_word(const std::vector<std::string>& characters, std::vector<int64_t>& ids) const {
    if (ignore_merges) {
        std::string whole;
        for (const auto& character : characters) whole += character;
        if (const auto found = vocabulary.find(whole); found != vocabulary.end()) {
            ids.push_back(found->second);
            return;
        }
    }
    struct Symbol {
        int64_t id;
        int64_t before, after;  // neighbours, -1 at the ends; id is -1 once it was merged
    };
    std::vector<Symbol> symbols;
    bool last_unknown = false;
    for (size_t i = 0; i < characters.size(); ++i) {
        const auto found = vocabulary.find(i + 1 == characters.size() ? characters[i] + suffix : characters[i]);
        const int64_t id = found == vocabulary.end() ? unknown : found->second;
        const bool is_unknown = found == vocabulary.end();
        const bool fused = is_unknown && fuse_unknown && last_unknown;
        last_unknown = is_unknown;
        if (id < 0 || fused) continue;  // without an unknown token what is not known is left out
        const auto at = static_cast<int64_t>(symbols.size());
        symbols.push_back({id, at - 1, at + 1});
    }
    if (symbols.empty()) return;
    symbols.back().after = -1;

    struct Candidate {
        int64_t rank, left, id;
        bool operator<(const Candidate& other) const {  // the queue's top is the lowest rank, then the leftmost
            return rank != other.rank ? rank > other.rank : left > other.left;
        }
    };
    std::priority_queue<Candidate> queue;
    const auto offer = [&](int64_t left) {
        if (left < 0 || symbols[static_cast<size_t>(left)].after < 0) return;
        const Symbol& symbol = symbols[static_cast<size_t>(left)];
        const auto found = merges.find(pair_key(symbol.id, symbols[static_cast<size_t>(symbol.after)].id));
        if (found != merges.end()) queue.push({found->second.rank, left, found->second.id});
    };
    for (size_t i = 0; i < symbols.size(); ++i) offer(static_cast<int64_t>(i));
    while (!queue.empty()) {
        const Candidate best = queue.top();
        queue.pop();
        Symbol& left = symbols[static_cast<size_t>(best.left)];
        if (left.id < 0 || left.after < 0) continue;
        Symbol& right = symbols[static_cast<size_t>(left.after)];
        const auto found = merges.find(pair_key(left.id, right.id));
        if (found == merges.end() || found->second.id != best.id) continue;  // merged otherwise since
        left.id = best.id;
        right.id = -1;
        left.after = right.after;
        if (left.after >= 0) symbols[static_cast<size_t>(left.after)].before = best.left;
        offer(left.before);
        offer(best.left);
    }
    for (int64_t at = 0; at >= 0; at = symbols[static_cast<size_t>(at)].after) {
        ids.push_back(symbols[static_cast<size_t>(at)].id);
    }
}

void Tokenizer::Parts::encode_part(View text, std::vector<int64_t>& ids) const {
    if (text.empty()) return;
    std::vector<Text> words{Text(text)};
    for (const Step& step : steps) {
        std::vector<Text> next;
        for (Text& word : words) {
            if (step.add_blank && word[0] != U' ') word.insert(word.begin(), U' ');
            if (step.kind == Step::clip) {
                for (Text& part : clip_words(word)) next.push_back(std::move(part));
            } else if (step.kind == Step::gpt2) {
                for (size_t i = 0; i < word.size();) {
                    const size_t end = gpt2_word_end(word, i);
                    next.push_back(word.substr(i, end - i));
                    i = end;
                }
            } else {
                next.push_back(std::move(word));
            }
        }
        words = std::move(next);
    }
    for (const Text& word : words) {
        std::vector<std::string> characters;
        for (const unsigned char byte : encode_utf8(word)) characters.push_back(letters[byte]);
        encode_word(characters, ids);
    }
}

Tokenizer::Tokenizer(std::string_view json, const std::string& place) : parts_(std::make_unique<Parts>()) {
    try {
        parts_->read(Json::parse(json));
    } catch (const Json::exception& error) {
        throw Error(SAM3I_BAD_BUNDLE, place + " is no tokenizer.json: " + error.what());
    } catch (const std::invalid_argument& error) {
        throw Error(SAM3I_BAD_BUNDLE, place + ": " + error.what());
    }
}

Tokenizer::~Tokenizer() = default;
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;

std::vector<int64_t> Tokenizer::encode(std::u32string_view text) const {
    std::vector<int64_t> ids;
    size_t begin = 0;
    const auto flush = [&](size_t end) {
        parts_->encode_part(parts_->normalize(Text(text.substr(begin, end - begin))), ids);
    };
    for (size_t i = 0; i < text.size() && !parts_->added.empty();) {
        const auto found = std::find_if(parts_->added.begin(), parts_->added.end(), [&](const Added& token) {
            return !token.text.empty() && text.compare(i, token.text.size(), token.text) == 0;
        });
        if (found == parts_->added.end()) {
            ++i;
            continue;
        }
        flush(i);
        ids.push_back(found->id);
        begin = i += found->text.size();
    }
    flush(text.size());
    return ids;
}

const std::string& Tokenizer::token(int64_t id) const {
    static const std::string none;
    const auto found = parts_->names.find(id);
    return found == parts_->names.end() ? none : found->second;
}

int64_t Tokenizer::size() const {
    return parts_->size;
}

}  // namespace sam3i::core
