// Pixels as cameras give them -> upright RGB.
#pragma once

#include <cstdint>
#include <vector>

#include "sam3i.h"

namespace sam3i::core {

struct Picture {
    int32_t width, height;
    const uint8_t* rgb;  // [height, width, 3]: the caller's own memory, or `copy`
    std::vector<uint8_t> copy;
};

// Throws Error(SAM3I_BAD_IMAGE or SAM3I_INVALID_ARGUMENT).
Picture upright(const sam3i_image& image);

}  // namespace sam3i::core
