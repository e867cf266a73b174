// What the graphs are given and give back, checked: boxes, the detector's prompt, and the instances in its outputs.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "segmenter.hpp"

namespace sam3i::core {

template <class T>
Array array_of(Type type, std::vector<int64_t> shape, std::vector<T> values) {
    const auto held = std::make_shared<std::vector<T>>(std::move(values));
    return {type, std::move(shape), std::shared_ptr<const void>(held, held->data())};
}

std::string number(double value);  // as "%g"
std::string described(Type type, const std::vector<int64_t>& shape);

// Throw Error(SAM3I_BAD_BUNDLE).
[[noreturn]] void refuse_graphs(const std::string& what);
void require_shape(const Arrays& arrays, const char* name, const std::vector<int64_t>& wanted);

// Throws Error(SAM3I_INVALID_ARGUMENT) unless the value is 0 to 1.
void require_share(const char* name, double value);

// Throws Error(SAM3I_INVALID_ARGUMENT): boxes that the model does not take, that are empty or that leave the picture.
void check_boxes(const sam3i_question& question, const Scene& scene, const Variant& variant,
                 const std::string& model);

// What `box_encoder` takes: centre, width and height as shares of the picture; -1 in the slots that are not used.
Arrays box_inputs(const sam3i_question& question, const Scene& scene, int64_t slots);

// The detector's prompt: the text's slots, a slot for each box, and the CLS token. Unused slots are masked zeros.
void add_prompt(Arrays& inputs, const Text& text, const Array& geometry, const Array* geometry_mask, int64_t boxes);

// The queries above the answer's threshold, best first. Throws Error(SAM3I_UNAVAILABLE) where a value is not finite.
void select(const Arrays& outputs, float mask_threshold, double suppress, Result& result);

}  // namespace sam3i::core
