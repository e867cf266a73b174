#include "segmenter.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <future>

#include "choice.hpp"
#include "error.hpp"
#include "instruction.hpp"
#include "levels.hpp"
#include "picture.hpp"
#include "unicode.hpp"

namespace sam3i::core {

namespace {

using Clock = std::chrono::steady_clock;

constexpr const char* kMaps[] = {"fpn_4x", "fpn_2x", "fpn_1x"};
constexpr const char* kOwnStart = "<start>";  // tells this project's tokenizers from those of released models
constexpr const char* kVisual = "visual";     // the text of a prompt that has boxes alone
constexpr float kLargest = 1e30f;
constexpr size_t kInstructions = 256;

double since(Clock::time_point start) {
    return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

std::string number(double value) {
    char text[32];
    std::snprintf(text, sizeof text, "%g", value);
    return text;
}

std::string described(Type type, const std::vector<int64_t>& shape) {
    std::string text = type == Type::float32 ? "float32 [" : type == Type::int64 ? "int64 [" : "bool [";
    for (size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
    return text + ']';
}

template <class T>
Array array_of(Type type, std::vector<int64_t> shape, std::vector<T> values) {
    const auto held = std::make_shared<std::vector<T>>(std::move(values));
    return {type, std::move(shape), std::shared_ptr<const void>(held, held->data())};
}

[[noreturn]] void refuse_graphs(const std::string& what) {
    throw Error(SAM3I_BAD_BUNDLE, "the bundle's graphs do not fit together: " + what);
}

void require_shape(const Arrays& arrays, const char* name, const std::vector<int64_t>& wanted) {
    const Array& array = arrays.at(name);
    if (array.type != Type::float32 || array.shape != wanted) {
        refuse_graphs(std::string("'") + name + "' is " + described(array.type, array.shape) + ", want " +
                      described(Type::float32, wanted));
    }
}

void require_finite(const char* name, const float* values, int64_t count, float less = 0.0f) {
    for (int64_t i = 0; i < count; ++i) {
        if (!(std::fabs(values[i] - less) <= kLargest)) {
            throw Error(SAM3I_UNAVAILABLE, std::string("the detector returned ") + name +
                                               " that are NaN, infinite or beyond 1e+30: this precision does not "
                                               "compute rightly on this device, or the weights are damaged; try "
                                               "precision fp32 or device cpu");
        }
    }
}

void require_share(const char* name, double value) {
    if (!(value >= 0 && value <= 1)) {
        throw Error(SAM3I_INVALID_ARGUMENT, std::string(name) + " must be 0 to 1, got " + number(value));
    }
}

std::string box_name(int32_t index, const double* box) {
    return "boxes[" + std::to_string(index) + "] (" + number(box[0]) + ", " + number(box[1]) + ", " + number(box[2]) +
           ", " + number(box[3]) + ')';
}

void check_boxes(const sam3i_question& question, const Scene& scene, const Variant& variant, const std::string& model) {
    const int32_t count = question.box_count;
    const auto refuse = [](const std::string& line) { throw Error(SAM3I_INVALID_ARGUMENT, line); };
    if (count < 0) refuse("box_count is " + std::to_string(count) + ": want 0 or more");
    if (count == 0 && question.box_labels != nullptr) {
        refuse("box_labels say what boxes mean, and there are none: pass boxes too");
    }
    if (count == 0) return;
    if (question.boxes == nullptr) refuse("box_count is " + std::to_string(count) + " and boxes is NULL: pass both");
    if (variant.boxes == 0) {
        refuse("model '" + model + "' takes no boxes (variant " + variant.name +
               " has no box_encoder): ask by an instruction alone, or open a bundle exported with boxes");
    }
    if (count > variant.boxes) {
        refuse("got " + std::to_string(count) + " boxes, model '" + model + "' takes at most " +
               std::to_string(variant.boxes) + ": pass fewer, or open a bundle exported with more");
    }
    for (int32_t i = 0; i < count; ++i) {
        const double* box = question.boxes + 4 * static_cast<int64_t>(i);
        if (!std::all_of(box, box + 4, [](double side) { return std::isfinite(side); })) {
            refuse(box_name(i, box) + " is not finite: want x0, y0, x1, y1 in pixels of the image");
        }
        if (box[0] >= box[2] || box[1] >= box[3]) refuse(box_name(i, box) + " is empty: want x0 < x1 and y0 < y1");
        if (box[0] < 0 || box[1] < 0 || box[2] > scene.width || box[3] > scene.height) {
            refuse(box_name(i, box) + " leaves the image of " + std::to_string(scene.width) + " x " +
                   std::to_string(scene.height) + " pixels: clip x and y to it");
        }
        const int32_t label = question.box_labels == nullptr ? 1 : question.box_labels[i];
        if (label != 0 && label != 1) {
            refuse("box_labels[" + std::to_string(i) + "] is " + std::to_string(label) +
                   ": want 1 (positive) or 0 (negative)");
        }
    }
}

// What `box_encoder` takes: centre, width and height as shares of the picture; -1 in the slots that are not used.
Arrays box_inputs(const sam3i_question& question, const Scene& scene, int64_t slots) {
    std::vector<float> boxes(static_cast<size_t>(4 * slots));
    std::vector<int64_t> labels(static_cast<size_t>(slots), -1);
    for (int32_t i = 0; i < question.box_count; ++i) {
        const double* box = question.boxes + 4 * static_cast<int64_t>(i);
        for (int side = 0; side < 2; ++side) {
            const double length = side == 0 ? scene.width : scene.height;
            const double low = box[side] / length, high = box[side + 2] / length;
            boxes[static_cast<size_t>(4 * i + side)] = static_cast<float>((low + high) / 2);
            boxes[static_cast<size_t>(4 * i + side + 2)] = static_cast<float>(high - low);
        }
        labels[static_cast<size_t>(i)] = question.box_labels == nullptr ? 1 : question.box_labels[i];
    }
    return {{"boxes", array_of(Type::float32, {1, slots, 4}, std::move(boxes))},
            {"labels", array_of(Type::int64, {1, slots}, std::move(labels))},
            {"fpn_1x", scene.features.at("fpn_1x")}};
}

// The detector's prompt: the text's slots, a slot for each box, and the CLS token. Unused slots are masked zeros.
void add_prompt(Arrays& inputs, const Text& text, const Array& geometry, const Array* geometry_mask, int64_t boxes) {
    const int64_t tokens = text.features.shape[1], width = text.features.shape[2], given = geometry.shape[1];
    const int64_t slots = tokens + boxes + 1;
    std::vector<float> prompt(static_cast<size_t>(slots * width));
    std::vector<uint8_t> mask(static_cast<size_t>(slots));
    std::copy_n(text.features.floats(), tokens * width, prompt.begin());
    std::copy(text.mask.begin(), text.mask.end(), mask.begin());
    std::copy_n(geometry.floats(), given * width, prompt.end() - given * width);
    if (geometry_mask == nullptr) {
        mask.back() = 1;
    } else {
        std::copy_n(static_cast<const uint8_t*>(geometry_mask->data.get()), given, mask.end() - given);
    }
    inputs["prompt"] = array_of(Type::float32, {1, slots, width}, std::move(prompt));
    inputs["prompt_mask"] = array_of(Type::boolean, {1, slots}, std::move(mask));
}

// Whether the masks above 0 of two grids overlap by more than `most`, as IoU.
bool overlap(const std::vector<float>& a, const std::vector<float>& b, double most) {
    int64_t shared = 0, all = 0;
    for (size_t i = 0; i < a.size(); ++i) {
        shared += a[i] > 0 && b[i] > 0;
        all += a[i] > 0 || b[i] > 0;
    }
    return all > 0 && static_cast<double>(shared) / static_cast<double>(all) > most;
}

// The queries above the threshold, best first.
void select(const Arrays& outputs, float mask_threshold, double suppress, Result& result) {
    const Array &scores = outputs.at("scores"), &logits = outputs.at("mask_logits");
    if (scores.shape.size() != 2 || logits.shape.size() != 4) refuse_graphs("the detector's outputs have other shapes");
    const int64_t queries = scores.shape[1], rows = logits.shape[2], columns = logits.shape[3];
    require_shape(outputs, "scores", {1, queries});
    require_shape(outputs, "boxes", {1, queries, 4});
    require_shape(outputs, "mask_logits", {1, queries, rows, columns});
    require_shape(outputs, "presence", {1, 1});
    const float *score = scores.floats(), *boxes = outputs.at("boxes").floats();
    const float presence = *outputs.at("presence").floats();
    require_finite("scores", score, queries);
    require_finite("presence", &presence, 1);
    std::vector<int64_t> order;
    for (int64_t i = 0; i < queries; ++i) {
        if (score[i] > result.answer.threshold) order.push_back(i);
    }
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return score[a] > score[b]; });
    result.answer.truncated = queries > 0 && static_cast<int64_t>(order.size()) == queries;
    result.answer.presence = 0.5 * (1 + std::tanh(0.5 * static_cast<double>(presence)));
    result.side_down = static_cast<int32_t>(rows);
    result.side_across = static_cast<int32_t>(columns);
    const float scale[] = {static_cast<float>(result.answer.width), static_cast<float>(result.answer.height)};
    for (const int64_t i : order) {
        require_finite("boxes", boxes + 4 * i, 4);
        const float* grid = logits.floats() + i * rows * columns;
        require_finite("mask_logits", grid, rows * columns, mask_threshold);
        Instance one{score[i], {}, std::vector<float>(grid, grid + rows * columns)};
        for (float& logit : one.logits) logit -= mask_threshold;
        for (size_t side = 0; side < 4; ++side) {
            one.box[side] = std::clamp(boxes[4 * i + static_cast<int64_t>(side)] * scale[side % 2], 0.0f, scale[side % 2]);
        }
        const auto hides = [&](const Instance& kept) { return overlap(one.logits, kept.logits, suppress); };
        if (suppress >= 0 && std::any_of(result.instances.begin(), result.instances.end(), hides)) continue;
        result.instances.push_back(std::move(one));
    }
    result.answer.count = static_cast<int32_t>(result.instances.size());
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
    // Reading and compiling one graph keeps one core busy at most of the time.
    auto detector = std::async(std::launch::async, [this] { with("detector", [](Graph&) {}); });
    with("image_encoder", [](Graph&) {});
    detector.get();
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
    auto scene = std::make_unique<Scene>(Scene{shared_from_this(), picture.width, picture.height, {}, since(start), 0});
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
        text->features = outputs.at("text_features");
        if (text->features.shape.size() != 3) refuse_graphs("'text_features' has another shape");
        require_shape(outputs, "text_features", {1, room, text->features.shape[2]});
        spent = since(start);
        const std::lock_guard<std::mutex> lock(texts_mutex_);
        if (!closed_) texts_.put(key, text);
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
        throw Error(SAM3I_BAD_INSTRUCTION, "there is neither an instruction nor a box: describe what to segment, as in "
                                           "'the red star', or pass boxes");
    }
    const std::u32string cleaned = check_instruction(question.instruction == nullptr ? kVisual : question.instruction);
    if (question.level < SAM3I_CONCEPT || question.level > SAM3I_AUTO) {
        throw Error(SAM3I_INVALID_ARGUMENT, "level is " + std::to_string(question.level) +
                                                ": want SAM3I_CONCEPT, SAM3I_SIMPLE, SAM3I_COMPLEX or SAM3I_AUTO");
    }
    const bool automatic = question.level == SAM3I_AUTO;
    int32_t level = automatic ? route(cleaned) : question.level;
    if (((levels() >> level) & 1) == 0) {
        if (!automatic) {
            throw Error(SAM3I_INVALID_ARGUMENT, "model '" + model + "' has no adapters for level '" +
                                                    kLevelNames[level] + "': ask at another, or convert a SAM3-I "
                                                    "checkpoint with its adapters");
        }
        level = SAM3I_CONCEPT;
    }
    check_boxes(question, scene, variant, model);
    if (question.instruction == nullptr && level != SAM3I_CONCEPT) {
        throw Error(SAM3I_INVALID_ARGUMENT, std::string("boxes without an instruction are asked at level concept, got "
                                                        "level '") + kLevelNames[level] + "': leave the level out, or "
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

const Mask& Result::mask(size_t index) const {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto known = masks_.find(index);
    if (known != masks_.end()) return known->second;
    Mask mask;
    // Eight stretches a column: more than masks have.
    mask.counts.resize(static_cast<size_t>(
        std::min<int64_t>(16 * int64_t{answer.width} + 16, int64_t{answer.height} * answer.width + 1)));
    int64_t count = 0;
    int32_t status = SAM3I_CAPACITY;
    while (status == SAM3I_CAPACITY) {
        if (count > 0) mask.counts.resize(static_cast<size_t>(count));
        status = sam3i_mask_rle(instances[index].logits.data(), side_down, side_across, answer.height, answer.width,
                                0.0f, mask.counts.data(), static_cast<int64_t>(mask.counts.size()), &count, &mask.area,
                                mask.bbox.data());
    }
    if (status == SAM3I_OUT_OF_MEMORY) throw std::bad_alloc();
    if (status != SAM3I_OK) throw Error(SAM3I_INTERNAL, "sam3i_mask_rle refused checked logits");
    mask.counts.resize(static_cast<size_t>(count));
    mask.counts.shrink_to_fit();
    return masks_.emplace(index, std::move(mask)).first->second;
}

const Rings& Result::rings(size_t index) const {
    const Mask& outlined = mask(index);
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto known = rings_.find(index);
    if (known != rings_.end()) return known->second;
    return rings_.emplace(index, trace(outlined.counts, answer.width, answer.height)).first->second;
}

}  // namespace sam3i::core
