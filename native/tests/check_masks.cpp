// Masks and pixels whose answers tests/native took from the definitions in Python: equal, bit for bit. Needs no
// runtime.

#include <cstring>

#include "fixtures.hpp"
#include "sam3i.h"

namespace {

using nlohmann::json;

void check_mask(fixtures::Check& check, const json& one) {
    const auto logits = one.at("logits").get<std::vector<float>>();
    const int32_t rows = one.at("rows"), columns = one.at("columns"), height = one.at("height"),
                  width = one.at("width");
    std::vector<uint32_t> counts(static_cast<size_t>(height) * static_cast<size_t>(width) + 1);
    int64_t count = 0, area = 0;
    int32_t bbox[4] = {};
    const int32_t status = sam3i_mask_rle(logits.data(), rows, columns, height, width, one.at("threshold"),
                                          counts.data(), static_cast<int64_t>(counts.size()), &count, &area, bbox);
    counts.resize(static_cast<size_t>(count));
    const std::string where = "mask of " + std::to_string(width) + " x " + std::to_string(height);
    check(status == SAM3I_OK && json(counts) == one.at("counts") && area == one.at("area"), where);
    check(json(std::vector<int32_t>(bbox, bbox + 4)) == one.at("bbox"), where + ": bbox");
}

void check_pixels(fixtures::Check& check, const json& one) {
    const auto image = one.at("image").get<std::vector<uint8_t>>();
    const auto mean = one.at("mean").get<std::vector<float>>(), deviation = one.at("std").get<std::vector<float>>();
    const auto wanted = one.at("values").get<std::vector<float>>();
    const int32_t size = one.at("size");
    std::vector<float> values(wanted.size());
    const int32_t status = sam3i_pixel_values(image.data(), one.at("height"), one.at("width"), size, mean.data(),
                                              deviation.data(), values.data());
    check(status == SAM3I_OK && std::memcmp(values.data(), wanted.data(), 4 * wanted.size()) == 0,
          "pixel values of size " + std::to_string(size));
}

}  // namespace

int main() {
    fixtures::Check check;
    const json cases = fixtures::json(fixtures::folder() / "masks.json");
    for (const json& one : cases.at("masks")) check_mask(check, one);
    for (const json& one : cases.at("pixels")) check_pixels(check, one);
    return check.finish("masks", 100);
}
