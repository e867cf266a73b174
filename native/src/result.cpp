// The detector's outputs -> instances, and their masks when they are asked for.

#include <algorithm>
#include <cmath>
#include <new>

#include "error.hpp"
#include "prompt.hpp"

namespace sam3i::core {

namespace {

constexpr float kLargest = 1e30f;

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

// Whether the masks above 0 of two grids overlap by more than `most`, as IoU.
bool overlap(const std::vector<float>& a, const std::vector<float>& b, double most) {
    int64_t shared = 0, all = 0;
    for (size_t i = 0; i < a.size(); ++i) {
        shared += a[i] > 0 && b[i] > 0;
        all += a[i] > 0 || b[i] > 0;
    }
    return all > 0 && static_cast<double>(shared) / static_cast<double>(all) > most;
}

}  // namespace

void select(const Arrays& outputs, float mask_threshold, double suppress, Result& result) {
    const Array &scores = outputs.at("scores"), &logits = outputs.at("mask_logits");
    if (scores.shape.size() != 2 || logits.shape.size() != 4)
        refuse_graphs("the detector's outputs have other shapes");
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
            one.box[side] =
                std::clamp(boxes[4 * i + static_cast<int64_t>(side)] * scale[side % 2], 0.0f, scale[side % 2]);
        }
        const auto hides = [&](const Instance& kept) { return overlap(one.logits, kept.logits, suppress); };
        if (suppress >= 0 && std::any_of(result.instances.begin(), result.instances.end(), hides)) continue;
        result.instances.push_back(std::move(one));
    }
    result.answer.count = static_cast<int32_t>(result.instances.size());
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
                                0.0f, mask.counts.data(), static_cast<int64_t>(mask.counts.size()), &count,
                                &mask.area, mask.bbox.data());
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
