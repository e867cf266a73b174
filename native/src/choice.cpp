#include "choice.hpp"

#include <algorithm>
#include <fstream>
#include <thread>

#ifdef __linux__
#include <sched.h>
#endif

#include "error.hpp"

namespace sam3i::core {

namespace fs = std::filesystem;

namespace {

constexpr const char* kAuto = "auto";
constexpr const char* kDevices[] = {"jetson", "cuda", "cpu", "intel-gpu", "intel-npu"};

std::string named(const char* given) {
    return given == nullptr || *given == '\0' ? kAuto : given;
}

bool is_here(const std::string& device) {
    std::error_code error;
    if (device == "jetson") return fs::exists("/etc/nv_tegra_release", error);
    if (device == "cuda") return fs::exists("/dev/nvidiactl", error);
    return device == "cpu";
}

// Precisions in the order of "auto", and the variant that serves one on a backend.
std::vector<std::string> precisions(const std::string& device) {
    if (device == "cpu") return {"fp32"};
    if (device == "intel-npu") return {"fp16", "int8"};
    return {"fp16", "fp32"};
}

const Variant* find(const Manifest& manifest, const std::string& runtime, const std::string& precision) {
    const auto found = std::find_if(manifest.variants.begin(), manifest.variants.end(), [&](const Variant& variant) {
        return variant.runtime == runtime && variant.precision == precision;
    });
    return found == manifest.variants.end() ? nullptr : &*found;
}

const Variant* find_for(const Manifest& manifest, const std::string& runtime, const std::string& device,
                        const std::string& precision) {
    if (const Variant* own = find(manifest, runtime, precision)) return own;
    // TensorRT builds half precision from the float graphs.
    if (device == "jetson" && precision == "fp16") return find(manifest, runtime, "fp32");
    // OpenVINO reads the ONNX graphs as they are; of quantized ones it would compute something else.
    if (runtime == "openvino" && precision == "fp32") return find(manifest, "onnxruntime", "fp32");
    return nullptr;
}

std::string joined(const std::vector<std::string>& words, const char* between) {
    std::string text;
    for (const auto& word : words) text += text.empty() ? word : between + word;
    return text;
}

}  // namespace

Choice choose(const Manifest& manifest, const sam3i_open_options& options) {
    const std::string device = named(options.device), runtime = named(options.runtime);
    const std::string precision = named(options.precision);
    std::vector<std::string> names, existing;
    for (const Backend& backend : backends()) names.emplace_back(backend.name);
    if (names.empty()) {
        throw Error(SAM3I_UNAVAILABLE,
                    "this libsam3i was built without a runtime: build it with -DSAM3I_ONNXRUNTIME=ON or "
                    "-DSAM3I_OPENVINO=ON");
    }
    if (runtime != kAuto && std::find(names.begin(), names.end(), runtime) == names.end()) {
        throw Error(SAM3I_UNAVAILABLE, "runtime '" + runtime + "' is not in this libsam3i, which has " +
                                           joined(names, ", ") + ": build it with that runtime, or ask for auto");
    }
    if (device != kAuto && std::find(std::begin(kDevices), std::end(kDevices), device) == std::end(kDevices)) {
        throw Error(SAM3I_UNAVAILABLE, "unknown device '" + device +
                                           "'; want auto, jetson, cuda, cpu, intel-gpu or "
                                           "intel-npu");
    }
    if (device == "cpu" && precision == "fp16") {
        throw Error(SAM3I_UNAVAILABLE,
                    "device cpu does not run fp16, which processors compute in float32, slower "
                    "than fp32: ask for fp32 or auto");
    }
    std::string why;
    std::vector<std::string> wanted;
    for (const char* place : kDevices) {
        if (device == kAuto ? !is_here(place) : device != place) continue;
        wanted = precision == kAuto ? precisions(place) : std::vector<std::string>{precision};
        for (const Backend& backend : backends()) {
            if (runtime != kAuto && runtime != backend.name) continue;
            const std::string missing = backend.missing(place);
            if (!missing.empty()) {
                why += (why.empty() ? "" : "; ") + missing;
                continue;
            }
            for (const auto& one : wanted) {
                const Variant* variant = find_for(manifest, backend.name, place, one);
                if (variant != nullptr) return {&backend, variant, place, one};
            }
        }
    }
    for (const Variant& variant : manifest.variants) {
        existing.push_back(variant.name + " (" + variant.runtime + ", " + variant.precision + ")");
    }
    if (!why.empty() && device != kAuto) throw Error(SAM3I_UNAVAILABLE, why);
    throw Error(SAM3I_BAD_BUNDLE, "bundle '" + manifest.name + "' has no variant for " +
                                      (runtime == kAuto ? joined(names, " or ") : runtime) + " at " +
                                      joined(wanted, " or ") + "; it has " + joined(existing, ", ") +
                                      ". Make one with 'sam3i-edge export'");
}

namespace {

// Cores of processor time that a control group leaves, 0 where it sets no limit; versions 2 and 1.
double share(const fs::path& folder) {
    double quota = 0, period = 0;
    if (std::ifstream limit(folder / "cpu.max"); limit >> quota >> period && quota > 0 && period > 0)
        return quota / period;
    std::ifstream first(folder / "cpu.cfs_quota_us"), second(folder / "cpu.cfs_period_us");
    return first >> quota && second >> period && quota > 0 && period > 0 ? quota / period : 0.0;
}

}  // namespace

int usable_cores() {
    int cores = static_cast<int>(std::thread::hardware_concurrency());
#ifdef __linux__
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) cores = CPU_COUNT(&set);
    double least = cores;
    std::ifstream groups("/proc/self/cgroup");
    for (std::string line; std::getline(groups, line);) {
        const size_t first = line.find(':'), second = line.find(':', first + 1);
        if (second == std::string::npos) continue;
        const std::string controllers = line.substr(first + 1, second - first - 1);
        const std::string list = ',' + controllers + ',';
        if (!controllers.empty() && list.find(",cpu,") == std::string::npos) continue;
        const fs::path mount = fs::path("/sys/fs/cgroup") / controllers;
        // A container often sees its own group as the root, whatever the path says.
        for (fs::path folder = mount / fs::path(line.substr(second + 1)).relative_path();;
             folder = folder.parent_path()) {
            const double limit = share(folder);
            if (limit > 0) least = std::min(least, limit);
            if (folder == mount || folder == folder.root_path()) break;
        }
    }
    cores = static_cast<int>(least);
#endif
    return std::max(1, cores);
}

}  // namespace sam3i::core
