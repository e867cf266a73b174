// Says what this library makes of texts: `text_lines clean|plain|level|tokens [tokenizer.json]` reads one JSON string
// a line, and writes one JSON value a line. tests/native compares them with Python's.

#include <iostream>
#include <nlohmann/json.hpp>
#include <string>

#include "bundle.hpp"
#include "error.hpp"
#include "instruction.hpp"
#include "levels.hpp"
#include "tokenizer.hpp"
#include "unicode.hpp"

int main(int argc, char** argv) try {
    using nlohmann::json;
    namespace core = sam3i::core;
    const std::string kind = argc > 1 ? argv[1] : "";
    const auto tokenizer = argc > 2 ? std::make_unique<core::Tokenizer>(core::read_file(argv[2]), argv[2]) : nullptr;
    std::ios::sync_with_stdio(false);
    for (std::string line; std::getline(std::cin, line);) {
        const std::u32string text = core::decode_utf8(json::parse(line).get<std::string>());
        json answer;
        if (kind == "clean") {
            answer = core::encode_utf8(core::clean(text));
        } else if (kind == "plain") {
            answer = core::encode_utf8(core::plain(text));
        } else if (kind == "level") {
            answer = core::kLevelNames[core::route(text)];
        } else if (kind == "tokens" && tokenizer != nullptr) {
            answer = tokenizer->encode(text);
        } else {
            std::cerr << "usage: text_lines clean|plain|level|tokens [tokenizer.json]\n";
            return 2;
        }
        std::cout << answer << '\n';
    }
    return 0;
} catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
}
