#include "sam3i.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <new>
#include <vector>

// Integers up to the last step, and there one table: results do not depend on the instructions that are used.
// On x86 with glibc the loops exist twice, and the loader takes the one that the processor can run. The thread
// sanitizer instruments what the loader asks, which it does before the sanitizer is there.
#if defined(__x86_64__) && defined(__gnu_linux__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_THREAD__)
#define SAM3I_WIDE __attribute__((target_clones("avx2", "default")))
#else
#define SAM3I_WIDE
#endif

namespace {

constexpr int kBits = 22;  // of a weight, as in Pillow: 8 bits of a value and a carry stay below 31
constexpr int64_t kMost = INT32_MAX;

// One side: the first of the pixels that an output pixel is made of, how many they are, and their weights.
struct Filter {
    std::vector<int32_t> first, count, weights;
    int32_t room = 0;  // weights of an output pixel
};

Filter filter_of(int32_t from, int32_t to) {
    const double scale = static_cast<double>(from) / to, wide = std::max(scale, 1.0);
    Filter found;
    found.room = static_cast<int32_t>(std::ceil(wide)) * 2 + 1;
    found.first.resize(static_cast<size_t>(to));
    found.count.resize(static_cast<size_t>(to));
    found.weights.assign(static_cast<size_t>(to) * static_cast<size_t>(found.room), 0);
    std::vector<double> shares(static_cast<size_t>(found.room));
    for (int32_t i = 0; i < to; ++i) {
        const double center = (i + 0.5) * scale;
        const int32_t first = std::max(static_cast<int32_t>(center - wide + 0.5), 0);
        const int32_t count = std::min(static_cast<int32_t>(center + wide + 0.5), from) - first;
        double sum = 0.0;
        for (int32_t k = 0; k < count; ++k) {
            const double away = std::fabs((k + first - center + 0.5) * (1.0 / wide));
            shares[static_cast<size_t>(k)] = away < 1.0 ? 1.0 - away : 0.0;
            sum += shares[static_cast<size_t>(k)];
        }
        int32_t* weights = &found.weights[static_cast<size_t>(i) * static_cast<size_t>(found.room)];
        for (int32_t k = 0; k < count; ++k) {
            const double share = shares[static_cast<size_t>(k)] / sum;
            weights[k] = static_cast<int32_t>(0.5 + share * (1 << kBits));
        }
        found.first[static_cast<size_t>(i)] = first;
        found.count[static_cast<size_t>(i)] = count;
    }
    return found;
}

inline uint8_t rounded(int32_t sum) {
    return static_cast<uint8_t>(std::clamp(sum >> kBits, 0, 255));
}

// One row of the picture, [width, 3], to the output's width: planes [3, size].
SAM3I_WIDE void narrow(const uint8_t* row, const Filter& filter, int32_t size, uint8_t* planes) {
    for (int32_t x = 0; x < size; ++x) {
        const uint8_t* pixel = row + 3 * static_cast<int64_t>(filter.first[static_cast<size_t>(x)]);
        const int32_t* weights = &filter.weights[static_cast<size_t>(x) * static_cast<size_t>(filter.room)];
        int32_t red = 1 << (kBits - 1), green = red, blue = red;
        for (int32_t k = 0; k < filter.count[static_cast<size_t>(x)]; ++k) {
            red += weights[k] * pixel[3 * k];
            green += weights[k] * pixel[3 * k + 1];
            blue += weights[k] * pixel[3 * k + 2];
        }
        planes[x] = rounded(red);
        planes[size + x] = rounded(green);
        planes[2 * size + x] = rounded(blue);
    }
}

// Adds one narrowed row, times its weight.
SAM3I_WIDE void add(int32_t* sums, const uint8_t* planes, int32_t weight, int32_t length) {
    for (int32_t i = 0; i < length; ++i) sums[i] += weight * planes[i];
}

void pixel_values(const uint8_t* image, int32_t height, int32_t width, int32_t size, const float* mean,
                  const float* deviation, float* values) {
    float table[3][256];
    for (int c = 0; c < 3; ++c) {
        for (int v = 0; v < 256; ++v) {
            table[c][v] = (static_cast<float>(v) / 255.0f - mean[c]) / deviation[c];
        }
    }
    const Filter across = filter_of(width, size), down = filter_of(height, size);
    const int32_t length = 3 * size;
    // Rows that were narrowed already, each at its number modulo the most that one output row reads.
    std::vector<uint8_t> ring(static_cast<size_t>(down.room) * static_cast<size_t>(length));
    std::vector<int32_t> sums(static_cast<size_t>(length));
    const auto slot = [&](int32_t row) {
        return ring.data() + static_cast<int64_t>(row % down.room) * length;
    };
    int32_t next = 0;
    for (int32_t y = 0; y < size; ++y) {
        const int32_t first = down.first[static_cast<size_t>(y)], count = down.count[static_cast<size_t>(y)];
        next = std::max(next, first);
        for (; next < first + count; ++next) {
            narrow(image + static_cast<int64_t>(next) * width * 3, across, size, slot(next));
        }
        std::fill(sums.begin(), sums.end(), 1 << (kBits - 1));
        const int32_t* weights = &down.weights[static_cast<size_t>(y) * static_cast<size_t>(down.room)];
        for (int32_t k = 0; k < count; ++k) add(sums.data(), slot(first + k), weights[k], length);
        for (int c = 0; c < 3; ++c) {
            float* out = values + (static_cast<int64_t>(c) * size + y) * size;
            const int32_t* sum = sums.data() + static_cast<int64_t>(c) * size;
            for (int32_t x = 0; x < size; ++x) out[x] = table[c][rounded(sum[x])];
        }
    }
}

}  // namespace

extern "C" int32_t sam3i_pixel_values(const uint8_t* image, int32_t height, int32_t width, int32_t size,
                                      const float mean[3], const float deviation[3], float* values) {
    if (image == nullptr || mean == nullptr || deviation == nullptr || values == nullptr || height < 1 ||
        width < 1 || size < 1 || static_cast<int64_t>(height) * width > kMost / 4 ||  // `room` is twice a side
        static_cast<int64_t>(size) * size > kMost / 3) {
        return SAM3I_INVALID_ARGUMENT;
    }
    for (int c = 0; c < 3; ++c) {
        if (!std::isfinite(mean[c]) || !std::isfinite(deviation[c]) || deviation[c] <= 0.0f) {
            return SAM3I_INVALID_ARGUMENT;
        }
    }
    try {
        pixel_values(image, height, width, size, mean, deviation, values);
    } catch (const std::bad_alloc&) {
        return SAM3I_OUT_OF_MEMORY;
    }
    return SAM3I_OK;
}
