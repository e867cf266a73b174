// The text of bundle.json, schema version 1, checked as sam3i_edge/bundle/manifest.py does.
#pragma once

#include <string>
#include <string_view>

#include "bundle.hpp"

namespace sam3i::core {

// Throws Error(SAM3I_BAD_BUNDLE): it is damaged, of a newer schema, has an unknown field, or names a path that leaves
// the bundle. `place` is the file's name.
Manifest read_manifest(std::string_view text, const std::string& place);

}  // namespace sam3i::core
