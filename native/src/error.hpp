#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

#include "sam3i.h"

namespace sam3i::core {

// What a function of the C interface answers with: the status, and the line for sam3i_last_error().
struct Error : std::runtime_error {
    Error(int32_t status, const std::string& line) : std::runtime_error(line), status(status) {}
    int32_t status;
};

}  // namespace sam3i::core
