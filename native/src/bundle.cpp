#include "bundle.hpp"

#include <openssl/evp.h>

#include <fstream>
#include <iterator>
#include <memory>
#include <vector>

#include "error.hpp"
#include "manifest.hpp"

namespace sam3i::core {

namespace fs = std::filesystem;

namespace {

constexpr const char* kAgain = "copy or export the bundle again";

std::string sha256_of(const fs::path& path) {
    std::ifstream source(path, std::ios::binary);
    const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> digest(EVP_MD_CTX_new(), EVP_MD_CTX_free);
    if (!source) throw Error(SAM3I_BAD_BUNDLE, "cannot read " + shown(path));
    if (digest == nullptr || EVP_DigestInit_ex(digest.get(), EVP_sha256(), nullptr) != 1) throw std::bad_alloc();
    std::vector<char> buffer(1 << 20);
    do {
        source.read(buffer.data(), static_cast<std::streamsize>(buffer.size()));
        EVP_DigestUpdate(digest.get(), buffer.data(), static_cast<size_t>(source.gcount()));
    } while (source);
    if (source.bad()) throw Error(SAM3I_BAD_BUNDLE, "cannot read " + shown(path));
    unsigned char value[EVP_MAX_MD_SIZE];
    unsigned int size = 0;
    EVP_DigestFinal_ex(digest.get(), value, &size);
    std::string text;
    for (unsigned int i = 0; i < size; ++i) {
        text += "0123456789abcdef"[value[i] >> 4];
        text += "0123456789abcdef"[value[i] & 15];
    }
    return text;
}

// Whether a path lies below a folder, links followed.
bool is_within(const fs::path& path, const fs::path& folder) {
    const fs::path relative = fs::relative(path, folder);
    return !relative.empty() && *relative.begin() != "..";
}

void check_file(const fs::path& root, const std::string& name, const FileRecord& record) {
    const fs::path path = root / fs::u8path(name);
    const std::string place = "bundle " + shown(root) + ": " + name;
    std::error_code error;
    if (!fs::is_regular_file(path, error)) throw Error(SAM3I_BAD_BUNDLE, place + " is missing: " + kAgain);
    if (!is_within(path, root)) {
        throw Error(SAM3I_BAD_BUNDLE, place + " is a link that leaves the bundle: replace it by a copy of the file");
    }
    const uint64_t size = fs::file_size(path);
    if (size != record.bytes) {
        throw Error(SAM3I_BAD_BUNDLE, place + " has " + std::to_string(size) + " bytes, want " +
                                          std::to_string(record.bytes) + ": " + kAgain);
    }
    const std::string digest = sha256_of(path);
    if (digest != record.sha256) {
        throw Error(SAM3I_BAD_BUNDLE, place + " was changed, its sha256 is " + digest.substr(0, 12) + "... and not " +
                                          record.sha256.substr(0, 12) + "...: " + kAgain);
    }
}

// Files that a runtime reads beside a graph's own, relative to the root.
std::vector<fs::path> beside(const fs::path& root, const fs::path& graph) {
    std::vector<fs::path> names;
    if (graph.extension() == ".onnx") {
        for (const auto& name : external_data(read_file(root / graph))) {
            names.push_back(graph.parent_path() / fs::u8path(name));
        }
    } else if (graph.extension() == ".xml") {
        names.push_back(fs::path(graph).replace_extension(".bin"));
    }
    return names;
}

}  // namespace

std::string shown(const fs::path& path) {
    return path.u8string();
}

std::string read_file(const fs::path& path) {
    std::ifstream source(path, std::ios::binary);
    std::string content{std::istreambuf_iterator<char>(source), {}};
    if (!source.is_open() || source.bad()) throw Error(SAM3I_BAD_BUNDLE, "cannot read " + shown(path));
    return content;
}

Bundle::Bundle(fs::path root) : root_(std::move(root)) {
    const fs::path source = root_ / "bundle.json";
    std::error_code error;
    if (!fs::is_regular_file(source, error)) {
        const char* found = fs::is_directory(root_, error) ? "a folder without bundle.json"
                            : fs::exists(root_, error)     ? "a file"
                                                           : "nothing";
        throw Error(SAM3I_BAD_BUNDLE, shown(root_) + " is no bundle but " + found +
                                          ": give a bundle's folder, or make one with 'sam3i-edge export'");
    }
    manifest_ = read_manifest(read_file(source), shown(source));
}

fs::path Bundle::file(const std::string& name) const {
    const auto record = manifest_.files.find(name);
    if (record == manifest_.files.end()) {
        throw Error(SAM3I_BAD_BUNDLE, "bundle " + shown(root_) + " has no file '" + name + "': " + kAgain);
    }
    const std::lock_guard<std::mutex> lock(mutex_);
    if (checked_.count(name) == 0) {
        try {
            check_file(root_, name, record->second);
        } catch (const fs::filesystem_error& error) {
            throw Error(SAM3I_BAD_BUNDLE, "bundle " + shown(root_) + ": " + error.what());
        }
        checked_.insert(name);
    }
    return root_ / fs::u8path(name);
}

fs::path Bundle::graph(const Variant& variant, const std::string& name) const {
    const std::string& graph = variant.graphs.at(name);
    const fs::path path = file(graph);
    try {
        for (const fs::path& data : beside(root_, fs::u8path(graph))) file(data.generic_u8string());
    } catch (const std::invalid_argument& error) {
        throw Error(SAM3I_BAD_BUNDLE, "cannot read the graph " + shown(path) + ": " + error.what() + ": " + kAgain);
    }
    return path;
}

}  // namespace sam3i::core
