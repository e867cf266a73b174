#include "sam3i.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstddef>
#include <new>
#include <vector>

// Built with -ffp-contract=off (CMakeLists.txt): a fused multiply-add rounds once where the definition rounds
// twice, and the masks of two machines would differ in a pixel now and then.

namespace {

constexpr float kLargest = 1e30f;
constexpr int64_t kMost = UINT32_MAX;  // what a run length can hold

// Where one output row or column reads the grid: cell `first`, cell `second`, and the weight of the second.
struct Tap {
    int32_t first;
    int32_t second;
    float weight;
};

std::vector<Tap> taps(int32_t cells, int32_t pixels) {
    std::vector<Tap> result(static_cast<size_t>(pixels));
    const int64_t denominator = 2 * static_cast<int64_t>(pixels);
    for (int64_t i = 0; i < pixels; ++i) {
        const int64_t numerator = std::max<int64_t>((2 * i + 1) * cells - pixels, 0);
        Tap& tap = result[static_cast<size_t>(i)];
        tap.first = static_cast<int32_t>(numerator / denominator);
        tap.second = std::min(tap.first + 1, cells - 1);
        const double remainder = static_cast<double>(numerator % denominator);
        tap.weight = static_cast<float>(remainder / static_cast<double>(denominator));
    }
    return result;
}

// Run lengths as they come: `extend` with the value and length of the next stretch of pixels.
class Runs {
public:
    Runs(uint32_t* counts, int64_t capacity) : counts_(counts), capacity_(capacity) {}

    void extend(bool value, int64_t length) {
        if (value != value_) {
            flush();
            value_ = value;
        }
        length_ += length;
    }

    int64_t finish() {
        flush();
        return count_;
    }

private:
    void flush() {
        if (count_ < capacity_) counts_[count_] = static_cast<uint32_t>(length_);
        ++count_;
        length_ = 0;
    }

    uint32_t* counts_;
    int64_t capacity_;
    int64_t count_ = 0;
    int64_t length_ = 0;
    bool value_ = false;
};

// Area and bounding box of the stretches of mask pixels that it is shown, column after column.
struct Extent {
    int64_t area = 0;
    int32_t left = INT32_MAX, right = -1, top = INT32_MAX, bottom = -1;

    void include(int32_t x, int32_t y, int32_t length) {
        area += length;
        left = std::min(left, x);
        right = x;
        top = std::min(top, y);
        bottom = std::max(bottom, y + length - 1);
    }

    void write(int32_t* bbox) const {
        bbox[0] = area == 0 ? 0 : left;
        bbox[1] = area == 0 ? 0 : top;
        bbox[2] = area == 0 ? 0 : right - left + 1;
        bbox[3] = area == 0 ? 0 : bottom - top + 1;
    }
};

// d of the definition, transposed: a column of the image reads two columns of the grid, here contiguous.
bool shifted_columns(const float* logits, int32_t m_h, int32_t m_w, float threshold,
                     std::vector<float>& columns) {
    for (int64_t j = 0; j < m_h; ++j) {
        for (int64_t i = 0; i < m_w; ++i) {
            const float d = logits[j * m_w + i] - threshold;
            if (!(std::fabs(d) <= kLargest)) return false;  // also true for NaN
            columns[static_cast<size_t>(i * m_h + j)] = d;
        }
    }
    return true;
}

// First output row of every group of rows that read the same pair of cells; one past the end closes the list.
std::vector<int32_t> group_starts(const std::vector<Tap>& rows) {
    std::vector<int32_t> starts;
    for (size_t y = 0; y < rows.size(); ++y) {
        if (y == 0 || rows[y].first != rows[y - 1].first) starts.push_back(static_cast<int32_t>(y));
    }
    starts.push_back(static_cast<int32_t>(rows.size()));
    return starts;
}

int32_t mask_rle(const float* logits, int32_t m_h, int32_t m_w, int32_t out_h, int32_t out_w, float threshold,
                 uint32_t* counts, int64_t capacity, int64_t* count, int64_t* area, int32_t* bbox) {
    std::vector<float> columns(static_cast<size_t>(m_h) * static_cast<size_t>(m_w));
    if (!shifted_columns(logits, m_h, m_w, threshold, columns)) return SAM3I_NOT_FINITE;

    std::vector<char> holds_positive(static_cast<size_t>(m_w));
    for (int64_t i = 0; i < m_w; ++i) {
        const float* column = columns.data() + i * m_h;
        holds_positive[static_cast<size_t>(i)] = *std::max_element(column, column + m_h) > 0.0f;
    }

    const std::vector<Tap> xs = taps(m_w, out_w);
    const std::vector<Tap> ys = taps(m_h, out_h);
    const std::vector<int32_t> starts = group_starts(ys);
    std::vector<float> c(static_cast<size_t>(m_h));
    Runs runs(counts, capacity);
    Extent extent;

    for (int32_t x = 0; x < out_w; ++x) {
        const Tap& tap = xs[static_cast<size_t>(x)];
        const bool first = holds_positive[static_cast<size_t>(tap.first)];
        if (!first && !holds_positive[static_cast<size_t>(tap.second)]) {
            runs.extend(false, out_h);
            continue;
        }
        const float* a = columns.data() + static_cast<int64_t>(tap.first) * m_h;
        const float* b = columns.data() + static_cast<int64_t>(tap.second) * m_h;
        const float u = tap.weight, one_minus_u = 1.0f - u;
        for (int32_t j = 0; j < m_h; ++j) c[static_cast<size_t>(j)] = a[j] * one_minus_u + b[j] * u;

        for (size_t g = 0; g + 1 < starts.size(); ++g) {
            const int32_t begin = starts[g], end = starts[g + 1];
            const float upper = c[static_cast<size_t>(ys[static_cast<size_t>(begin)].first)];
            const float lower = c[static_cast<size_t>(ys[static_cast<size_t>(begin)].second)];
            if (upper <= 0.0f && lower <= 0.0f) {
                runs.extend(false, end - begin);
                continue;
            }
            // Between two positive values every value is positive; FLT_MIN, because below it a product may
            // round to 0.
            if (upper >= FLT_MIN && lower >= FLT_MIN) {
                runs.extend(true, end - begin);
                extent.include(x, begin, end - begin);
                continue;
            }
            for (int32_t y = begin; y < end; ++y) {
                const float w = ys[static_cast<size_t>(y)].weight;
                const bool value = upper * (1.0f - w) + lower * w > 0.0f;
                runs.extend(value, 1);
                if (value) extent.include(x, y, 1);
            }
        }
    }

    *count = runs.finish();
    *area = extent.area;
    extent.write(bbox);
    return *count <= capacity ? SAM3I_OK : SAM3I_CAPACITY;
}

}  // namespace

extern "C" int32_t sam3i_abi_version(void) { return SAM3I_ABI_VERSION; }

extern "C" int32_t sam3i_mask_rle(const float* logits, int32_t m_h, int32_t m_w, int32_t out_h, int32_t out_w,
                                  float threshold, uint32_t* counts, int64_t capacity, int64_t* count,
                                  int64_t* area, int32_t bbox[4]) {
    if (logits == nullptr || count == nullptr || area == nullptr || bbox == nullptr || capacity < 0 ||
        (counts == nullptr && capacity > 0) || m_h < 1 || m_w < 1 || out_h < 1 || out_w < 1 ||
        static_cast<int64_t>(m_h) * m_w > kMost || static_cast<int64_t>(out_h) * out_w > kMost) {
        return SAM3I_INVALID_ARGUMENT;
    }
    try {
        return mask_rle(logits, m_h, m_w, out_h, out_w, threshold, counts, capacity, count, area, bbox);
    } catch (const std::bad_alloc&) {
        return SAM3I_OUT_OF_MEMORY;
    }
}
