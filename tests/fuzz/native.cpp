// Random calls of the C library, good and bad, each with buffers of the very size that the header asks for: built
// with -DSAM3I_SANITIZE=ON, where a byte too far ends the program.
//
//     sam3i_fuzz SEED SECONDS     prints how many calls it made; ends with 1 where an answer breaks the header

#include "sam3i.h"

#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <random>
#include <vector>

namespace {

std::mt19937_64 generator;

int32_t below(int32_t most) {
    return static_cast<int32_t>(generator() % static_cast<uint64_t>(most));
}

void require(bool holds, const char* what, int64_t call) {
    if (holds) return;
    std::fprintf(stderr, "call %lld: %s\n", static_cast<long long>(call), what);
    std::exit(1);
}

float any_float() {
    static const float odd[] = {
        0.0f, -0.0f, 1e-45f, -1e-45f, 1.17549435e-38f, 1e30f, -1e30f, 1.0001e30f, 3.4e38f,
        std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(),
        std::numeric_limits<float>::quiet_NaN(),
    };
    if (below(200) == 0) return odd[below(12)];
    if (below(8) == 0) return odd[below(5)];
    return static_cast<float>(below(2001) - 1000) / 250.0f;
}

void mask_rle(int64_t call) {
    const int32_t m_h = 1 + below(below(4) ? 9 : 70), m_w = 1 + below(below(4) ? 9 : 70);
    const int32_t out_h = 1 + below(below(4) ? 12 : 300), out_w = 1 + below(below(4) ? 12 : 300);
    std::vector<float> logits(static_cast<size_t>(m_h) * static_cast<size_t>(m_w));
    const bool tame = below(2) != 0;
    for (float& value : logits) value = tame ? static_cast<float>(below(7) - 3) : any_float();
    const float threshold = below(4) ? 0.0f : any_float();
    const int64_t pixels = static_cast<int64_t>(out_h) * out_w;
    int64_t capacity = below(3) ? pixels + 1 : below(static_cast<int32_t>(pixels) + 2);
    int64_t count = -1, area = -1;
    int32_t bbox[4] = {-1, -1, -1, -1};
    for (int attempt = 0; attempt < 2; ++attempt) {
        std::vector<uint32_t> counts(static_cast<size_t>(capacity));
        const int32_t status = sam3i_mask_rle(logits.data(), m_h, m_w, out_h, out_w, threshold,
                                              capacity ? counts.data() : nullptr, capacity, &count, &area, bbox);
        require(status == SAM3I_OK || status == SAM3I_NOT_FINITE || status == SAM3I_CAPACITY, "status", call);
        if (status == SAM3I_NOT_FINITE) {
            require(!tame || !std::isfinite(threshold) || std::fabs(threshold) > 1e29f, "finite all the same", call);
            return;
        }
        require(1 <= count && count <= pixels + 1, "count", call);
        require(0 <= area && area <= pixels, "area", call);
        require(bbox[0] >= 0 && bbox[1] >= 0 && bbox[2] >= 0 && bbox[3] >= 0, "box below 0", call);
        require(bbox[0] + bbox[2] <= out_w && bbox[1] + bbox[3] <= out_h, "box outside", call);
        require((status == SAM3I_CAPACITY) == (count > capacity), "capacity", call);
        if (status == SAM3I_CAPACITY) {
            require(attempt == 0, "too short for the count that it named", call);
            capacity = count;
            continue;
        }
        int64_t all = 0, inside = 0;
        for (int64_t i = 0; i < count; ++i) {
            require(i == 0 || counts[static_cast<size_t>(i)] > 0, "an empty run", call);
            all += counts[static_cast<size_t>(i)];
            if (i % 2) inside += counts[static_cast<size_t>(i)];
        }
        require(all == pixels && inside == area, "runs", call);
        return;
    }
}

void pixel_values(int64_t call) {
    const int32_t height = 1 + below(below(4) ? 12 : 200), width = 1 + below(below(4) ? 12 : 200);
    const int32_t size = 1 + below(below(4) ? 12 : 120);
    std::vector<uint8_t> image(static_cast<size_t>(height) * static_cast<size_t>(width) * 3);
    for (uint8_t& value : image) value = static_cast<uint8_t>(below(4) ? below(256) : 255 * below(2));
    std::vector<float> values(static_cast<size_t>(size) * static_cast<size_t>(size) * 3, NAN);
    float mean[3], deviation[3];
    bool good = true, small = true;
    for (int c = 0; c < 3; ++c) {
        mean[c] = below(20) ? 0.5f : any_float();
        deviation[c] = below(20) ? 0.25f : any_float();
        good = good && std::isfinite(mean[c]) && std::isfinite(deviation[c]) && deviation[c] > 0.0f;
        small = small && std::fabs(mean[c]) < 1e3f && deviation[c] > 1e-6f;
    }
    const int32_t status = sam3i_pixel_values(image.data(), height, width, size, mean, deviation, values.data());
    require(status == (good ? SAM3I_OK : SAM3I_INVALID_ARGUMENT), "status", call);
    if (!good || !small) return;
    for (const float value : values) require(std::isfinite(value), "a value is not finite", call);
}

// Sizes, capacities and pointers that the header forbids; the buffers hold one element, so nothing may be read.
void refused(int64_t call) {
    static const int32_t sides[] = {0, -1, INT32_MIN, INT32_MAX, 65536, 1 << 30};
    std::vector<float> one(1);
    std::vector<uint8_t> pixel(3);
    std::vector<uint32_t> runs(1);
    int64_t count = 0, area = 0;
    int32_t bbox[4];
    int32_t side[4] = {1, 1, 1, 1};
    const int32_t odd = sides[below(3)];
    side[below(4)] = odd;
    int32_t status = sam3i_mask_rle(one.data(), side[0], side[1], side[2], side[3], 0.0f, runs.data(), 1, &count,
                                    &area, bbox);
    require(status == SAM3I_INVALID_ARGUMENT, "a side was taken", call);
    const int32_t large = sides[3 + below(3)];
    status = sam3i_mask_rle(one.data(), large, large, 1, 1, 0.0f, runs.data(), 1, &count, &area, bbox);
    require(status == SAM3I_INVALID_ARGUMENT, "too many cells were taken", call);
    status = sam3i_mask_rle(one.data(), 1, 1, large, large, 0.0f, runs.data(), 1, &count, &area, bbox);
    require(status == SAM3I_INVALID_ARGUMENT, "too many pixels were taken", call);
    const int null = below(5);
    status = sam3i_mask_rle(null == 0 ? nullptr : one.data(), 1, 1, 1, 1, 0.0f, null == 1 ? nullptr : runs.data(),
                            null == 4 ? -1 : 1, null == 2 ? nullptr : &count, null == 3 ? nullptr : &area, bbox);
    require(status == SAM3I_INVALID_ARGUMENT, "a null pointer or a capacity below 0 was taken", call);
    const float half[3] = {0.5f, 0.5f, 0.5f};
    std::vector<float> values(3);
    // One row of 65,536 pixels is a picture, and would be read.
    for (const int32_t wrong : {odd, large == 65536 ? INT32_MAX : large}) {
        status = sam3i_pixel_values(pixel.data(), wrong, 1, 1, half, half, values.data());
        require(status == SAM3I_INVALID_ARGUMENT, "a height was taken", call);
        status = sam3i_pixel_values(pixel.data(), 1, wrong, 1, half, half, values.data());
        require(status == SAM3I_INVALID_ARGUMENT, "a width was taken", call);
        status = sam3i_pixel_values(pixel.data(), 1, 1, wrong, half, half, values.data());
        require(status == SAM3I_INVALID_ARGUMENT, "a size was taken", call);
    }
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 3) return 2;
    generator.seed(std::strtoull(argv[1], nullptr, 10));
    const std::chrono::duration<double> most(std::atof(argv[2]));
    const auto start = std::chrono::steady_clock::now();
    int64_t call = 0;
    for (; std::chrono::steady_clock::now() - start < most; ++call) {
        switch (below(5)) {
            case 0: refused(call); break;
            case 1: case 2: pixel_values(call); break;
            default: mask_rle(call);
        }
    }
    std::printf("%lld\n", static_cast<long long>(call));
    return 0;
}
