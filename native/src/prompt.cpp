#include "prompt.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "error.hpp"

namespace sam3i::core {

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

void refuse_graphs(const std::string& what) {
    throw Error(SAM3I_BAD_BUNDLE, "the bundle's graphs do not fit together: " + what);
}

void require_shape(const Arrays& arrays, const char* name, const std::vector<int64_t>& wanted) {
    const Array& array = arrays.at(name);
    if (array.type != Type::float32 || array.shape != wanted) {
        refuse_graphs(std::string("'") + name + "' is " + described(array.type, array.shape) + ", want " +
                      described(Type::float32, wanted));
    }
}

void require_share(const char* name, double value) {
    if (!(value >= 0 && value <= 1)) {
        throw Error(SAM3I_INVALID_ARGUMENT, std::string(name) + " must be 0 to 1, got " + number(value));
    }
}

namespace {

std::string box_name(int32_t index, const double* box) {
    return "boxes[" + std::to_string(index) + "] (" + number(box[0]) + ", " + number(box[1]) + ", " + number(box[2]) +
           ", " + number(box[3]) + ')';
}

}  // namespace

void check_boxes(const sam3i_question& question, const Scene& scene, const Variant& variant,
                 const std::string& model) {
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

}  // namespace sam3i::core
