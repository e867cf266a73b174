// The small interface that a runtime has here: open, run, close. One file and one CMake target a runtime.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace sam3i::core {

enum class Type { float32, int64, boolean };

// A dense array, row-major; whoever holds a copy keeps the memory.
struct Array {
    Type type = Type::float32;
    std::vector<int64_t> shape;
    std::shared_ptr<const void> data;

    int64_t size() const {
        int64_t product = 1;
        for (const int64_t side : shape) product *= side;
        return product;
    }
    const float* floats() const { return static_cast<const float*>(data.get()); }
};

using Arrays = std::map<std::string, Array>;

struct Slot {
    Type type;
    std::vector<int64_t> shape;
};

// An opened graph; destroying it closes it. Not thread-safe.
class Graph {
public:
    virtual ~Graph() = default;
    // By name, with static shapes.
    virtual const std::map<std::string, Slot>& inputs() const = 0;
    virtual const std::map<std::string, Slot>& outputs() const = 0;
    // All outputs. The inputs are those of `inputs()`, already checked. Throws std::exception when the runtime fails.
    virtual Arrays run(const Arrays& inputs) = 0;
};

struct GraphOptions {
    std::string device, precision, engine_cache;
    int threads;
};

struct Backend {
    const char* name;
    std::string (*version)();
    // Why a device cannot be used, or "" where it can.
    std::string (*missing)(const std::string& device);
    // Throws Error(SAM3I_BAD_BUNDLE or SAM3I_UNAVAILABLE).
    std::unique_ptr<Graph> (*open)(const std::filesystem::path& path, const GraphOptions& options);
};

// Those that were built in, in the order of runtime "auto".
const std::vector<Backend>& backends();

}  // namespace sam3i::core
