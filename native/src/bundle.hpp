// The model on disk: bundle.json, checked, and files that are verified before they are opened; docs/bundle.md.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <vector>

namespace sam3i::core {

struct FileRecord {
    uint64_t bytes;
    std::string sha256;
};

// One exported form of the model: a runtime at a precision.
struct Variant {
    std::string name, runtime, precision;
    std::map<std::string, std::string> graphs;  // name to file
    int32_t boxes;                              // box slots of the detector's prompt
};

struct Manifest {
    std::string name, note;
    int64_t vocab_size;  // rows of the model's token table; 0 where it does not say
    int32_t image_size;
    std::array<float, 3> mean, deviation;
    std::string tokenizer_file;
    int32_t context_length;
    int64_t start_id, end_id;
    float score_threshold, mask_threshold;
    std::map<std::string, FileRecord> files;
    std::vector<Variant> variants;
};

// Every function throws Error(SAM3I_BAD_BUNDLE). Thread-safe.
class Bundle {
public:
    // Reads and checks the manifest, and none of the files that it lists.
    explicit Bundle(std::filesystem::path root);

    const Manifest& manifest() const { return manifest_; }
    const std::filesystem::path& root() const { return root_; }

    // The path of a listed file, its place, size and sha256 verified once.
    std::filesystem::path file(const std::string& name) const;
    // The path of a graph, with all that a runtime reads beside it verified.
    std::filesystem::path graph(const Variant& variant, const std::string& name) const;

private:
    std::filesystem::path root_;
    Manifest manifest_;
    mutable std::mutex mutex_;
    mutable std::set<std::string> checked_;
};

// UTF-8 of a path, for messages.
std::string shown(const std::filesystem::path& path);

// The content of a file. Throws Error(SAM3I_BAD_BUNDLE).
std::string read_file(const std::filesystem::path& path);

// The locations of external data in an ONNX file. Throws std::invalid_argument where the bytes are none.
std::set<std::string> external_data(std::string_view content);

}  // namespace sam3i::core
