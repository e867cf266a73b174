#include "segmenter.hpp"

#include <algorithm>
#include <chrono>

#ifdef __GLIBC__
#include <malloc.h>
#endif

#include "choice.hpp"
#include "error.hpp"
#include "instruction.hpp"
#include "levels.hpp"
#include "picture.hpp"
#include "prompt.hpp"
#include "unicode.hpp"

namespace sam3i::core {

namespace {

using Clock = std::chrono::steady_clock;

constexpr const char* kMaps[] = {"fpn_4x", "fpn_2x", "fpn_1x"};
constexpr const char* kOwnStart = "<start>";  // tells this project's tokenizers from those of released models
constexpr const char* kVisual = "visual";     // the text of a prompt that has boxes alone
constexpr size_t kInstructions = 256;

double since(Clock::time_point start) {
    return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

Tokenizer open_tokenizer(const Bundle& bundle) {
    const Manifest& manifest = bundle.manifest();
    const std::string place = "bundle " + shown(bundle.root()) + ": tokenizer: ";
    Tokenizer tokenizer(read_file(bundle.file(manifest.tokenizer_file)), place + manifest.tokenizer_file);
    for (const int64_t id : {manifest.start_id, manifest.end_id, int64_t{0}}) {
        if (tokenizer.token(id).empty()) {
            throw Error(SAM3I_BAD_BUNDLE, place + "id " + std::to_string(id) + " is outside the vocabulary of " +
                                              std::to_string(tokenizer.size()) + " entries");
        }
    }
    if (manifest.vocab_size > 0 && tokenizer.size() > manifest.vocab_size) {
        throw Error(SAM3I_BAD_BUNDLE, place + "its ids go to " + std::to_string(tokenizer.size() - 1) +
                                          ", the model has " + std::to_string(manifest.vocab_size) +
                                          " tokens: copy tokenizer.json from where the model came from");
    }
    return tokenizer;
}

}  // namespace

std::shared_ptr<const Text> TextCache::get(const std::string& key) {
    const auto found = places_.find(key);
    if (found == places_.end()) return nullptr;
    entries_.splice(entries_.begin(), entries_, found->second);
    return found->second->second;
}

void TextCache::put(const std::string& key, std::shared_ptr<const Text> text) {
    if (size_ == 0 || places_.count(key) != 0) return;
    entries_.emplace_front(key, std::move(text));
    places_[key] = entries_.begin();
    if (entries_.size() > size_) {
        places_.erase(entries_.back().first);
        entries_.pop_back();
    }
}

void TextCache::clear() {
    places_.clear();
    entries_.clear();
}

template <class Use>
auto Segmenter::with(const std::string& name, Use use) {
    Opened& opened = graphs_.at(name);
    const std::lock_guard<std::mutex> lock(opened.mutex);
    check_open();
    if (opened.graph == nullptr) {
        const auto path = bundle_.graph(*choice_.variant, name);
        opened.graph = choice_.backend->open(path, {choice_.device, choice_.precision, engine_cache_, threads_});
    }
    return use(*opened.graph);
}

Segmenter::Segmenter(const std::string& bundle, const sam3i_open_options& options)
    : bundle_(std::filesystem::u8path(bundle)),
      choice_(choose(bundle_.manifest(), options)),
      tokenizer_(open_tokenizer(bundle_)),
      own_words_(tokenizer_.token(bundle_.manifest().start_id) == kOwnStart),
      threshold_(options.threshold < 0 ? bundle_.manifest().score_threshold : options.threshold),
      threads_(options.threads == 0 ? usable_cores() : options.threads),
      engine_cache_(options.engine_cache == nullptr ? "" : options.engine_cache),
      version_(choice_.backend->version()),
      texts_(options.instruction_cache < 0 ? kInstructions : static_cast<size_t>(options.instruction_cache)) {
    require_share("threshold", threshold_);
    for (const auto& [name, _] : choice_.variant->graphs) graphs_[name];
    // One after the other, the one that takes more memory while it opens first.
    with("detector", [](Graph&) {});
    with("image_encoder", [](Graph&) {});
}

int32_t Segmenter::levels() const {
    int32_t bits = 0;
    for (int32_t level = 0; level < 3; ++level) {
        if (graphs_.count(std::string("text_encoder.") + kLevelNames[level]) != 0) bits |= 1 << level;
    }
    return bits;
}

void Segmenter::check_open() const {
    if (closed_) throw Error(SAM3I_UNAVAILABLE, "this segmenter was closed: open the bundle again");
}

void Segmenter::close() {
    closed_ = true;
    for (auto& [_, opened] : graphs_) {
        const std::lock_guard<std::mutex> lock(opened.mutex);
        opened.graph.reset();
    }
    const std::lock_guard<std::mutex> lock(texts_mutex_);
    texts_.clear();
}

Arrays Segmenter::run(Graph& graph, const std::string& name, const Arrays& inputs,
                      const std::vector<const char*>& wanted) const {
    for (const auto& [input, slot] : graph.inputs()) {
        const auto given = inputs.find(input);
        if (given == inputs.end()) refuse_graphs(name + " wants the input '" + input + "'");
        if (given->second.type != slot.type || given->second.shape != slot.shape) {
            refuse_graphs(name + ": input '" + input + "' is " + described(given->second.type, given->second.shape) +
                          ", want " + described(slot.type, slot.shape));
        }
    }
    for (const auto& [input, _] : inputs) {
        if (graph.inputs().count(input) == 0) refuse_graphs(name + " takes no input '" + input + "'");
    }
    for (const char* output : wanted) {
        if (graph.outputs().count(output) == 0) refuse_graphs(name + " has no output '" + output + "'");
    }
    try {
        return graph.run(inputs);
    } catch (const std::bad_alloc&) {
        throw;
    } catch (const std::exception& error) {
        throw Error(SAM3I_UNAVAILABLE, name + " failed in " + choice_.backend->name + ": " + error.what());
    }
}

std::unique_ptr<Scene> Segmenter::encode(const sam3i_image& image) {
    check_open();
    auto start = Clock::now();
    const Picture picture = upright(image);
    const Manifest& spec = manifest();
    const int64_t side = spec.image_size;
    std::vector<float> pixels(static_cast<size_t>(3 * side * side));
    const int32_t status = sam3i_pixel_values(picture.rgb, picture.height, picture.width, spec.image_size,
                                              spec.mean.data(), spec.deviation.data(), pixels.data());
    if (status == SAM3I_OUT_OF_MEMORY) throw std::bad_alloc();
    if (status != SAM3I_OK) throw Error(SAM3I_INTERNAL, "sam3i_pixel_values refused a checked image");
    auto scene =
        std::make_unique<Scene>(Scene{shared_from_this(), picture.width, picture.height, {}, since(start), 0});
    const Arrays inputs{{"pixel_values", array_of(Type::float32, {1, 3, side, side}, std::move(pixels))}};
    with("image_encoder", [&](Graph& graph) {
        start = Clock::now();
        scene->features = run(graph, "image_encoder", inputs, {"fpn_4x", "fpn_2x", "fpn_1x", "cls_token"});
        scene->encode_image_ms = since(start);
    });
    const Array& token = scene->features.at("cls_token");
    if (token.shape.size() != 3) refuse_graphs("'cls_token' is " + described(token.type, token.shape));
    require_shape(scene->features, "cls_token", {1, 1, token.shape[2]});
    return scene;
}

std::shared_ptr<const Text> Segmenter::encode_text(const std::u32string& cleaned, int32_t level, double& spent) {
    const std::string key = std::to_string(level) + encode_utf8(cleaned);
    const auto cached = [&] {
        const std::lock_guard<std::mutex> lock(texts_mutex_);
        return texts_.get(key);
    };
    if (auto text = cached()) return text;
    const std::string name = std::string("text_encoder.") + kLevelNames[level];
    return with(name, [&](Graph& graph) {
        // Another thread may have encoded the same text while this one waited.
        std::shared_ptr<const Text> known = cached();
        if (known != nullptr) return known;
        const auto start = Clock::now();
        const int64_t room = manifest().context_length;
        std::vector<int64_t> ids = tokenizer_.encode(own_words_ ? plain(cleaned) : cleaned);
        const auto tokens = static_cast<int64_t>(ids.size());
        ids.resize(static_cast<size_t>(std::min(tokens, room - 2)));
        ids.insert(ids.begin(), manifest().start_id);
        ids.push_back(manifest().end_id);
        ids.resize(static_cast<size_t>(room), 0);
        auto text = std::make_shared<Text>();
        for (const int64_t id : ids) text->mask.push_back(id != 0);
        text->tokens_cut = static_cast<int32_t>(std::max<int64_t>(0, tokens - (room - 2)));
        const Arrays inputs{{"input_ids", array_of(Type::int64, {1, room}, std::move(ids))}};
        const Arrays outputs = run(graph, name, inputs, {"text_features"});
        // A copy: the runtime's own small array lies above what its run used, and would keep all of it from going back.
        const Array& features = outputs.at("text_features");
        require_shape(outputs, "text_features", features.shape);
        text->features = array_of(Type::float32, features.shape,
                                  std::vector<float>(features.floats(), features.floats() + features.size()));
        if (text->features.shape.size() != 3) refuse_graphs("'text_features' has another shape");
        require_shape(outputs, "text_features", {1, room, text->features.shape[2]});
        spent = since(start);
        const std::lock_guard<std::mutex> lock(texts_mutex_);
        if (!closed_) texts_.put(key, text);
#ifdef __GLIBC__
        malloc_trim(0);  // or the freed memory of runs stays around each text that is kept: 4 MB a text for the nano
#endif
        known = text;
        return known;
    });
}

std::unique_ptr<Result> Segmenter::segment(const Scene& scene, const sam3i_question& question) {
    const auto begin = Clock::now();
    check_open();
    const Variant& variant = *choice_.variant;
    const std::string& model = manifest().name;
    if (question.instruction == nullptr && question.box_count == 0) {
        throw Error(SAM3I_BAD_INSTRUCTION,
                    "there is neither an instruction nor a box: describe what to segment, as in "
                    "'the red star', or pass boxes");
    }
    const std::u32string cleaned =
        check_instruction(question.instruction == nullptr ? kVisual : question.instruction);
    if (question.level < SAM3I_CONCEPT || question.level > SAM3I_AUTO) {
        throw Error(SAM3I_INVALID_ARGUMENT, "level is " + std::to_string(question.level) +
                                                ": want SAM3I_CONCEPT, SAM3I_SIMPLE, SAM3I_COMPLEX or SAM3I_AUTO");
    }
    const bool automatic = question.level == SAM3I_AUTO;
    int32_t level = automatic ? route(cleaned) : question.level;
    if (((levels() >> level) & 1) == 0) {
        if (!automatic) {
            throw Error(SAM3I_INVALID_ARGUMENT, "model '" + model + "' has no adapters for level '" +
                                                    kLevelNames[level] +
                                                    "': ask at another, or convert a SAM3-I "
                                                    "checkpoint with its adapters");
        }
        level = SAM3I_CONCEPT;
    }
    check_boxes(question, scene, variant, model);
    if (question.instruction == nullptr && level != SAM3I_CONCEPT) {
        throw Error(SAM3I_INVALID_ARGUMENT,
                    std::string("boxes without an instruction are asked at level concept, got "
                                "level '") +
                        kLevelNames[level] +
                        "': leave the level out, or "
                        "add an instruction");
    }
    auto result = std::make_unique<Result>();
    sam3i_answer& answer = result->answer;
    answer = {};
    answer.width = scene.width, answer.height = scene.height;
    answer.level = level, answer.level_auto = automatic;
    answer.threshold = question.threshold < 0 ? threshold_ : question.threshold;
    answer.preprocess_ms = scene.preprocess_ms, answer.encode_image_ms = scene.encode_image_ms;
    require_share("threshold", answer.threshold);
    if (!(question.suppress < 0)) require_share("suppress", question.suppress);

    const auto text = encode_text(cleaned, level, answer.encode_text_ms);
    answer.tokens_cut = text->tokens_cut;
    const int64_t slots = variant.boxes, width = text->features.shape[2];
    Arrays inputs;
    for (const char* name : kMaps) inputs[name] = scene.features.at(name);
    inputs["level"] = array_of<int64_t>(Type::int64, {1}, {level});
    if (question.box_count == 0) {
        require_shape(scene.features, "cls_token", {1, 1, width});
        add_prompt(inputs, *text, scene.features.at("cls_token"), nullptr, slots);
    } else {  // their CLS token attended to the boxes, and takes the place of the picture's
        const Arrays given = box_inputs(question, scene, slots);
        const Arrays boxes = with("box_encoder", [&](Graph& graph) {
            const auto start = Clock::now();
            Arrays outputs = run(graph, "box_encoder", given, {"geometry_tokens", "geometry_mask"});
            answer.encode_boxes_ms = since(start);
            return outputs;
        });
        const Array& mask = boxes.at("geometry_mask");
        require_shape(boxes, "geometry_tokens", {1, slots + 1, width});
        if (mask.type != Type::boolean || mask.shape != std::vector<int64_t>{1, slots + 1}) {
            refuse_graphs("'geometry_mask' is " + described(mask.type, mask.shape));
        }
        add_prompt(inputs, *text, boxes.at("geometry_tokens"), &mask, slots);
    }
    const Arrays outputs = with("detector", [&](Graph& graph) {
        const auto start = Clock::now();
        Arrays found = run(graph, "detector", inputs, {"scores", "boxes", "mask_logits", "presence"});
        answer.detect_ms = since(start);
        return found;
    });
    const auto start = Clock::now();
    select(outputs, manifest().mask_threshold, question.suppress, *result);
    answer.postprocess_ms = since(start);
    answer.total_ms = since(begin);
    return result;
}

}  // namespace sam3i::core
