// An opened bundle, its scenes and results: the objects behind the handles of sam3i.h.
#pragma once

#include <array>
#include <atomic>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "backend.hpp"
#include "bundle.hpp"
#include "sam3i.h"
#include "tokenizer.hpp"

namespace sam3i::core {

struct Choice {
    const Backend* backend;
    const Variant* variant;
    std::string device, precision;
};

// An encoded instruction.
struct Text {
    Array features;             // [1, T, C]
    std::vector<uint8_t> mask;  // [T] 1 for real tokens
    int32_t tokens_cut;
};

// A bounded cache, least recently used first out. Not thread-safe.
class TextCache {
public:
    explicit TextCache(size_t size) : size_(size) {}
    std::shared_ptr<const Text> get(const std::string& key);
    void put(const std::string& key, std::shared_ptr<const Text> text);
    void clear();

private:
    using Entry = std::pair<std::string, std::shared_ptr<const Text>>;
    size_t size_;
    std::list<Entry> entries_;  // newest first
    std::map<std::string, std::list<Entry>::iterator> places_;
};

struct Scene;
struct Result;

// Thread-safe: one lock a graph.
class Segmenter : public std::enable_shared_from_this<Segmenter> {
public:
    Segmenter(const std::string& bundle, const sam3i_open_options& options);

    std::unique_ptr<Scene> encode(const sam3i_image& image);
    std::unique_ptr<Result> segment(const Scene& scene, const sam3i_question& question);
    void close();

    const Manifest& manifest() const { return bundle_.manifest(); }
    const Choice& choice() const { return choice_; }
    float threshold() const { return threshold_; }
    int threads() const { return threads_; }
    const std::string& runtime_version() const { return version_; }
    int32_t levels() const;

private:
    struct Opened {
        std::mutex mutex;
        std::unique_ptr<Graph> graph;
    };

    // Calls `use(graph)` with the graph's lock held; opens it first where it is not.
    template <class Use>
    auto with(const std::string& name, Use use);
    Arrays run(Graph& graph, const std::string& name, const Arrays& inputs,
               const std::vector<const char*>& wanted) const;
    std::shared_ptr<const Text> encode_text(const std::u32string& cleaned, int32_t level, double& spent);
    void check_open() const;

    Bundle bundle_;
    Choice choice_;
    Tokenizer tokenizer_;
    bool own_words_;
    float threshold_;
    int threads_;
    std::string engine_cache_, version_;
    std::atomic<bool> closed_{false};
    std::map<std::string, Opened> graphs_;
    std::mutex texts_mutex_;
    TextCache texts_;
};

struct Scene {
    std::shared_ptr<Segmenter> segmenter;
    int32_t width, height;
    Arrays features;
    double preprocess_ms, encode_image_ms;
};

// Rings of a mask's outlines, see sam3i_polygons.
struct Rings {
    std::vector<int32_t> starts{0};
    std::vector<uint8_t> hole;
    std::vector<float> points;
};

struct Mask {
    std::vector<uint32_t> counts;
    int64_t area = 0;
    std::array<int32_t, 4> bbox{};
};

struct Instance {
    float score;
    std::array<float, 4> box;
    std::vector<float> logits;  // above 0 is inside
};

struct Result {
    sam3i_answer answer;
    int32_t side_down, side_across;  // of the logits
    std::vector<Instance> instances;

    const Mask& mask(size_t index) const;
    const Rings& rings(size_t index) const;

private:
    mutable std::mutex mutex_;
    mutable std::map<size_t, Mask> masks_;
    mutable std::map<size_t, Rings> rings_;
};

// The outlines of the mask with these run lengths; sam3i_edge/masks/outline.py.
Rings trace(const std::vector<uint32_t>& counts, int32_t width, int32_t height);

}  // namespace sam3i::core
