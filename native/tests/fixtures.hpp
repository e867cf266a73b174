// Where the tests find what tests/native wrote for them, and how they say what went wrong.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace fixtures {

constexpr int kSkipped = 77;  // CTest's SKIP_RETURN_CODE

inline std::filesystem::path folder() {
    const char* given = std::getenv("SAM3I_FIXTURES");
    if (given == nullptr) {
        std::fprintf(stderr, "SAM3I_FIXTURES names no folder: pytest tests/native writes one and runs this\n");
        std::exit(kSkipped);
    }
    return given;
}

inline std::string content(const std::filesystem::path& path) {
    std::ifstream source(path, std::ios::binary);
    std::string text{std::istreambuf_iterator<char>(source), {}};
    if (!source.is_open()) {
        std::fprintf(stderr, "cannot read %s\n", path.string().c_str());
        std::exit(1);
    }
    return text;
}

inline nlohmann::json json(const std::filesystem::path& path) {
    return nlohmann::json::parse(content(path));
}

// Counts what was compared; `failures` is the exit code's reason.
struct Check {
    long compared = 0, failures = 0;

    bool operator()(bool holds, const std::string& what) {
        ++compared;
        if (!holds && ++failures <= 20) std::fprintf(stderr, "%s\n", what.c_str());
        return holds;
    }
    int finish(const char* name, long least) const {
        std::printf("%s: %ld comparisons, %ld failed\n", name, compared, failures);
        if (compared < least) std::fprintf(stderr, "%s: fewer than %ld comparisons\n", name, least);
        return failures == 0 && compared >= least ? 0 : 1;
    }
};

}  // namespace fixtures
