// The level of an instruction by its grammar; the rule and its words are those of sam3i_edge/levels.py.
#pragma once

#include <cstdint>
#include <string_view>

namespace sam3i::core {

inline constexpr const char* kLevelNames[] = {"concept", "simple", "complex"};

// SAM3I_CONCEPT, SAM3I_SIMPLE or SAM3I_COMPLEX for a cleaned instruction.
int32_t route(std::u32string_view instruction);

}  // namespace sam3i::core
