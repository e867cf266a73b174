#include "manifest.hpp"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "error.hpp"
#include "levels.hpp"

namespace sam3i::core {

namespace {

using Json = nlohmann::json;

constexpr int64_t kSchemaVersion = 1;
constexpr size_t kMostNote = 300, kNameBytes = 255;

[[noreturn]] void refuse(const std::string& place, const std::string& what) {
    throw std::invalid_argument(place.empty() ? what : place + ": " + what);
}

std::string found(const Json& value) {
    const std::string text = value.dump(-1, ' ', false, Json::error_handler_t::replace);
    return ", got " + (text.size() <= 60 ? text : text.substr(0, 57) + "...");
}

// An object with its place, of which every field has to be asked for.
class Part {
public:
    Part(const Json& json, std::string place) : json_(json), place_(std::move(place)) {
        if (!json.is_object()) refuse(place_, "must be an object" + found(json));
    }

    bool has(const char* key) {
        asked_.insert(key);
        return json_.contains(key);
    }

    const Json& operator[](const char* key) {
        if (!has(key)) refuse(at(key), "Field required");
        return json_.at(key);
    }

    std::string text(const char* key, const char* otherwise = nullptr) {
        if (otherwise != nullptr && !has(key)) return otherwise;
        const Json& value = (*this)[key];
        if (!value.is_string()) refuse(at(key), "must be a string" + found(value));
        return value.get<std::string>();
    }

    int64_t integer(const char* key, int64_t least, int64_t most) {
        const Json& value = (*this)[key];
        const bool fits = value.is_number_unsigned() ? value.get<uint64_t>() <= static_cast<uint64_t>(most)
                                                     : value.is_number_integer() && value.get<int64_t>() <= most;
        if (!value.is_number_integer() || !fits || value.get<int64_t>() < least) {
            refuse(at(key), "must be a whole number from " + std::to_string(least) + " to " + std::to_string(most) +
                                found(value));
        }
        return value.get<int64_t>();
    }

    double number(const Json& value, const std::string& place, double least, double most) const {
        if (!value.is_number() || !(value.get<double>() >= least && value.get<double>() <= most)) {
            refuse(place, "must be a number from " + Json(least).dump() + " to " + Json(most).dump() + found(value));
        }
        return value.get<double>();
    }

    double number(const char* key, double least, double most, double otherwise) {
        return has(key) ? number(json_.at(key), at(key), least, most) : otherwise;
    }

    std::array<float, 3> three(const char* key, double least, double most) {
        std::array<float, 3> values{0.5f, 0.5f, 0.5f};
        if (!has(key)) return values;
        const Json& given = json_.at(key);
        if (!given.is_array() || given.size() != 3) refuse(at(key), "must be three numbers" + found(given));
        for (size_t i = 0; i < 3; ++i) {
            values[i] = static_cast<float>(number(given[i], at(key) + "[" + std::to_string(i) + "]", least, most));
        }
        return values;
    }

    Part part(const char* key) { return Part((*this)[key], at(key)); }

    // Refuses fields that were not asked for: they come with a new schema version.
    void finish() const {
        for (const auto& [key, _] : json_.items()) {
            if (asked_.count(key) == 0) refuse(at(key.c_str()), "no such field");
        }
    }

    std::string at(const char* key) const { return place_.empty() ? key : place_ + '.' + key; }

private:
    const Json& json_;
    std::string place_;
    std::set<std::string> asked_;
};

void check_path(const std::string& path) {
    const std::string parts = '/' + path + '/';
    const bool plain = !path.empty() && path[0] != '/' && path.find_first_of("\\:") == std::string::npos &&
                       path.find('\0') == std::string::npos && parts.find("/../") == std::string::npos &&
                       parts.find("/./") == std::string::npos && parts.find("//") == std::string::npos;
    if (!plain) {
        refuse("", "the path " + Json(path).dump() +
                       " leaves the bundle or is not plain; want a path such as 'a/b.onnx'");
    }
    for (size_t at = 0; at < path.size();) {
        const size_t end = std::min(path.find('/', at), path.size());
        if (end - at > kNameBytes) {
            refuse("", "the path '" + path.substr(0, 40) + "'... has a part of more than 255 bytes");
        }
        at = end + 1;
    }
    if (path == "bundle.json") refuse("", "bundle.json cannot list itself");
}

FileRecord read_record(Part part) {
    FileRecord record{static_cast<uint64_t>(part.integer("bytes", 0, INT64_MAX)), part.text("sha256")};
    const bool hexadecimal = record.sha256.find_first_not_of("0123456789abcdef") == std::string::npos;
    if (record.sha256.size() != 64 || !hexadecimal) {
        refuse(part.at("sha256"), "must be 64 hexadecimal digits" + found(record.sha256));
    }
    part.finish();
    return record;
}

Variant read_variant(Part part, const std::string& name) {
    Variant variant{name, part.text("runtime"), part.text("precision"), {}, 0};
    const Json& graphs = part["graphs"];
    if (!graphs.is_object()) refuse(part.at("graphs"), "must be an object" + found(graphs));
    for (const auto& [graph, path] : graphs.items()) {
        if (!path.is_string()) refuse(part.at("graphs") + '.' + graph, "must be a string" + found(path));
        variant.graphs[graph] = path.get<std::string>();
    }
    if (part.has("boxes")) variant.boxes = static_cast<int32_t>(part.integer("boxes", 0, 1024));
    for (const char* key : {"quant_spec", "agreement", "versions"}) part.has(key);  // not of use here
    part.finish();
    for (const char* graph : {"image_encoder", "text_encoder.concept", "detector"}) {
        if (variant.graphs.count(graph) == 0) refuse("", "variant '" + name + "' lacks the graph " + graph);
    }
    const bool boxes = variant.graphs.count("box_encoder") != 0;
    if ((variant.boxes > 0) != boxes) {
        refuse("", "variant '" + name + "' takes " + std::to_string(variant.boxes) + " boxes and " +
                       (boxes ? "has" : "lacks") + " box_encoder");
    }
    return variant;
}

void check_listed(const Manifest& manifest, const std::string& place, const std::string& path) {
    const auto after = manifest.files.lower_bound(path + '/');  // a Core ML package is a folder
    const bool folder = after != manifest.files.end() && after->first.compare(0, path.size() + 1, path + '/') == 0;
    if (manifest.files.count(path) == 0 && !folder) {
        refuse("", place + " names '" + path + "', which `files` does not list");
    }
}

std::string read_note(const Json& provenance) {
    if (!provenance.contains("note")) return "";
    const Json& note = provenance.at("note");
    const std::string text = note.is_string() ? note.get<std::string>() : "";
    const bool printable =
        std::none_of(text.begin(), text.end(), [](unsigned char byte) { return byte < 32 || byte == 127; });
    if (text.find_first_not_of(' ') == std::string::npos || !printable || text.size() > 4 * kMostNote) {
        refuse("", "provenance.note must be one line of 1 to 300 characters");
    }
    return text;
}

Manifest read(const Json& json) {
    Part top(json, "");
    Manifest manifest{};
    top.integer("schema_version", 1, kSchemaVersion);
    manifest.name = top.text("name");
    if (manifest.name.empty()) refuse("name", "must not be empty");
    const Json& model = top["model"];
    if (!model.is_object()) refuse("model", "must be an object" + found(model));
    if (model.contains("vocab_size") && model.at("vocab_size").is_number_integer()) {
        manifest.vocab_size = model.at("vocab_size").get<int64_t>();
    }
    Part pixels = top.part("preprocessing");
    manifest.image_size = static_cast<int32_t>(pixels.integer("image_size", 1, 4096));
    manifest.mean = pixels.three("mean", -1e3, 1e3);
    manifest.deviation = pixels.three("std", 1e-6, 1e3);
    pixels.finish();
    Part words = top.part("tokenizer");
    manifest.tokenizer_file = words.text("file", "tokenizer.json");
    manifest.context_length =
        words.has("context_length") ? static_cast<int32_t>(words.integer("context_length", 3, 4096)) : 32;
    manifest.start_id = words.integer("start_id", 0, (1 << 24) - 1);
    manifest.end_id = words.integer("end_id", 0, (1 << 24) - 1);
    if (words.has("pad_id")) words.integer("pad_id", 0, 0);
    words.finish();
    manifest.score_threshold = 0.5f;
    if (top.has("thresholds")) {
        Part limits = top.part("thresholds");
        manifest.score_threshold = static_cast<float>(limits.number("score", 0, 1, 0.5));
        manifest.mask_threshold = static_cast<float>(limits.number("mask_logit", -1e3, 1e3, 0));
        limits.finish();
    }
    Part terms = top.part("license");
    terms.text("name");
    const std::string license = terms.text("file", "LICENSE");
    terms.finish();
    if (top.has("provenance")) manifest.note = read_note(top["provenance"]);
    if (!top["files"].is_object()) refuse("files", "must be an object");
    for (const auto& [path, record] : top["files"].items()) {
        check_path(path);
        manifest.files.emplace(path, read_record(Part(record, "files." + path)));
    }
    const Json& variants = top["variants"];
    if (!variants.is_object() || variants.empty()) refuse("variants", "must have at least one");
    for (const auto& [name, variant] : variants.items()) {
        manifest.variants.push_back(read_variant(Part(variant, "variants." + name), name));
        for (const auto& [graph, path] : manifest.variants.back().graphs) {
            check_listed(manifest, "variants." + name + ".graphs." + graph, path);
        }
    }
    top.finish();
    check_listed(manifest, "tokenizer.file", manifest.tokenizer_file);
    check_listed(manifest, "license.file", license);
    return manifest;
}

}  // namespace

Manifest read_manifest(std::string_view text, const std::string& place) {
    const std::string damaged = place + " is damaged or no manifest: ";
    try {
        const Json json = Json::parse(text);
        if (json.is_object() && json.contains("schema_version") && json.at("schema_version").is_number_integer() &&
            json.at("schema_version").get<int64_t>() > kSchemaVersion) {
            throw Error(SAM3I_BAD_BUNDLE, place + " has schema version " + json.at("schema_version").dump() +
                                              ", this library reads up to 1: build a newer libsam3i");
        }
        return read(json);
    } catch (const Json::exception& error) {
        throw Error(SAM3I_BAD_BUNDLE, damaged + error.what() + "; copy or export the bundle again");
    } catch (const std::invalid_argument& error) {
        throw Error(SAM3I_BAD_BUNDLE, damaged + error.what() + "; copy or export the bundle again");
    }
}

}  // namespace sam3i::core
