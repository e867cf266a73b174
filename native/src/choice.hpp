// What runs: device, runtime, precision, variant; sam3i_edge/devices/profiles.py.
#pragma once

#include "segmenter.hpp"

namespace sam3i::core {

// Throws Error(SAM3I_UNAVAILABLE or SAM3I_BAD_BUNDLE): unknown, not built in, not here, or no such variant.
Choice choose(const Manifest& manifest, const sam3i_open_options& options);

// Cores that this process may keep busy: those it may run on, within its container's share.
int usable_cores();

}  // namespace sam3i::core
