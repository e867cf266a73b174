// The C interface: handles, checks of pointers and sizes, and exceptions turned into a status and a line.

#include "sam3i.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <string>

#include "error.hpp"
#include "segmenter.hpp"

struct sam3i_segmenter {
    std::shared_ptr<sam3i::core::Segmenter> it;
};
struct sam3i_scene {
    std::unique_ptr<sam3i::core::Scene> it;
};
struct sam3i_result {
    std::unique_ptr<sam3i::core::Result> it;
};

namespace {

using sam3i::core::Error;

thread_local std::string last_error;

int32_t failed(int32_t status, const char* line) noexcept {
    try {
        last_error = line;
        std::replace(last_error.begin(), last_error.end(), '\n', ' ');
    } catch (const std::bad_alloc&) {
        last_error.clear();
    }
    return status;
}

template <class Body>
int32_t guarded(Body body) noexcept {
    try {
        body();
        return SAM3I_OK;
    } catch (const Error& error) {
        return failed(error.status, error.what());
    } catch (const std::bad_alloc&) {
        return failed(SAM3I_OUT_OF_MEMORY,
                      "there is not enough memory: close what is not needed, or pass a smaller image");
    } catch (const std::exception& error) {
        return failed(SAM3I_INTERNAL, error.what());
    } catch (...) {
        return failed(SAM3I_INTERNAL, "an exception of unknown kind");
    }
}

void require(const void* pointer, const char* name) {
    if (pointer == nullptr) throw Error(SAM3I_INVALID_ARGUMENT, std::string(name) + " is NULL");
}

// A struct as this version knows it, from a caller that may have been compiled with fewer fields.
template <class Struct>
Struct read(const Struct* given, const char* name, Struct defaults, size_t least) {
    require(given, name);
    if (given->size < least || given->size > sizeof(Struct)) {
        throw Error(SAM3I_INVALID_ARGUMENT, std::string(name) + "->size is " + std::to_string(given->size) +
                                                ", this library knows " + std::to_string(least) + " to " +
                                                std::to_string(sizeof(Struct)) + ": set it to sizeof(*" + name + ")");
    }
    std::memcpy(static_cast<void*>(&defaults), given, given->size);
    return defaults;
}

template <class Struct>
void write(Struct* target, const char* name, Struct values, size_t least) {
    const uint32_t size = read(target, name, Struct{}, least).size;
    values.size = size;
    std::memcpy(static_cast<void*>(target), &values, size);
}

const sam3i::core::Instance& instance_of(const sam3i_result* result, int32_t index) {
    require(result, "result");
    const auto count = static_cast<int32_t>(result->it->instances.size());
    if (index < 0 || index >= count) {
        throw Error(SAM3I_INVALID_ARGUMENT,
                    "index is " + std::to_string(index) + ", the result has " + std::to_string(count) + " instances");
    }
    return result->it->instances[static_cast<size_t>(index)];
}

}  // namespace

extern "C" {

const char* sam3i_last_error(void) {
    return last_error.c_str();
}

const char* const* sam3i_runtimes(void) {
    static const std::vector<const char*> names = [] {
        std::vector<const char*> built;
        for (const auto& backend : sam3i::core::backends()) built.push_back(backend.name);
        built.push_back(nullptr);
        return built;
    }();
    return names.data();
}

int32_t sam3i_open(const char* bundle, const sam3i_open_options* options, sam3i_segmenter** segmenter) {
    if (segmenter != nullptr) *segmenter = nullptr;
    return guarded([&] {
        require(bundle, "bundle");
        require(segmenter, "segmenter");
        const sam3i_open_options defaults = SAM3I_OPEN_OPTIONS;
        const auto wanted = options == nullptr ? defaults : read(options, "options", defaults, sizeof defaults);
        if (wanted.threads < 0 || wanted.threads > 1024) {
            throw Error(SAM3I_INVALID_ARGUMENT,
                        "threads must be 1 to 1,024, or 0 for one a core, got " + std::to_string(wanted.threads));
        }
        auto opened = std::make_unique<sam3i_segmenter>();
        opened->it = std::make_shared<sam3i::core::Segmenter>(bundle, wanted);
        *segmenter = opened.release();
    });
}

void sam3i_close(sam3i_segmenter* segmenter) {
    if (segmenter == nullptr) return;
    segmenter->it->close();
    delete segmenter;
}

int32_t sam3i_get_info(const sam3i_segmenter* segmenter, sam3i_info* info) {
    return guarded([&] {
        require(segmenter, "segmenter");
        const auto& it = *segmenter->it;
        const auto& choice = it.choice();
        write(info, "info",
              sam3i_info{0, it.manifest().image_size, choice.variant->boxes, it.levels(), it.threads(),
                         it.threshold(), it.manifest().name.c_str(), choice.variant->name.c_str(),
                         choice.device.c_str(), choice.backend->name, it.runtime_version().c_str(),
                         choice.precision.c_str(), it.manifest().note.c_str()},
              sizeof(sam3i_info));
    });
}

int32_t sam3i_encode(sam3i_segmenter* segmenter, const sam3i_image* image, sam3i_scene** scene) {
    if (scene != nullptr) *scene = nullptr;
    return guarded([&] {
        require(segmenter, "segmenter");
        require(scene, "scene");
        const auto pixels = read(image, "image", sam3i_image{}, sizeof(sam3i_image));
        require(pixels.data, "image->data");
        auto encoded = std::make_unique<sam3i_scene>();
        encoded->it = segmenter->it->encode(pixels);
        *scene = encoded.release();
    });
}

void sam3i_scene_close(sam3i_scene* scene) {
    delete scene;
}

int32_t sam3i_segment(sam3i_scene* scene, const sam3i_question* question, sam3i_result** result) {
    if (result != nullptr) *result = nullptr;
    return guarded([&] {
        require(scene, "scene");
        require(result, "result");
        const auto asked = read(question, "question", sam3i_question{}, sizeof(sam3i_question));
        auto answered = std::make_unique<sam3i_result>();
        answered->it = scene->it->segmenter->segment(*scene->it, asked);
        *result = answered.release();
    });
}

void sam3i_result_close(sam3i_result* result) {
    delete result;
}

int32_t sam3i_result_answer(const sam3i_result* result, sam3i_answer* answer) {
    return guarded([&] {
        require(result, "result");
        write(answer, "answer", result->it->answer, sizeof(sam3i_answer));
    });
}

int32_t sam3i_result_instance(const sam3i_result* result, int32_t index, sam3i_instance* instance) {
    return guarded([&] {
        const auto& one = instance_of(result, index);
        sam3i_instance values{0, one.score, {}};
        std::copy(one.box.begin(), one.box.end(), values.box);
        write(instance, "instance", values, sizeof(sam3i_instance));
    });
}

int32_t sam3i_result_mask(const sam3i_result* result, int32_t index, sam3i_mask* mask) {
    return guarded([&] {
        instance_of(result, index);
        const auto& made = result->it->mask(static_cast<size_t>(index));
        sam3i_mask values{0, {}, made.area, made.counts.data(), static_cast<int64_t>(made.counts.size())};
        std::copy(made.bbox.begin(), made.bbox.end(), values.bbox);
        write(mask, "mask", values, sizeof(sam3i_mask));
    });
}

int32_t sam3i_result_bitmap(const sam3i_result* result, int32_t index, uint8_t inside, uint8_t* bitmap,
                            int64_t stride, int64_t bytes) {
    return guarded([&] {
        instance_of(result, index);
        require(bitmap, "bitmap");
        const int64_t width = result->it->answer.width, height = result->it->answer.height;
        const int64_t row = stride == 0 ? width : stride;
        if (row < width) {
            throw Error(SAM3I_INVALID_ARGUMENT,
                        "stride is " + std::to_string(stride) + " bytes, a row has " + std::to_string(width));
        }
        if (bytes < width || (bytes - width) / row < height - 1) {
            throw Error(SAM3I_CAPACITY, "bitmap has " + std::to_string(bytes) + " bytes, want at least " +
                                            std::to_string(height - 1) + " * " + std::to_string(row) + " + " +
                                            std::to_string(width));
        }
        for (int64_t y = 0; y < height; ++y) std::memset(bitmap + y * row, 0, static_cast<size_t>(width));
        const auto& counts = result->it->mask(static_cast<size_t>(index)).counts;
        int64_t at = 0;
        for (size_t i = 0; i < counts.size(); at += counts[i++]) {
            if (i % 2 == 0) continue;
            for (int64_t pixel = at; pixel < at + counts[i]; ++pixel) {
                bitmap[pixel % height * row + pixel / height] = inside;
            }
        }
    });
}

int32_t sam3i_result_polygons(const sam3i_result* result, int32_t index, sam3i_polygons* polygons) {
    return guarded([&] {
        instance_of(result, index);
        const auto& rings = result->it->rings(static_cast<size_t>(index));
        write(polygons, "polygons",
              sam3i_polygons{0, static_cast<int32_t>(rings.hole.size()), rings.starts.data(), rings.hole.data(),
                             rings.points.data()},
              sizeof(sam3i_polygons));
    });
}

}  // extern "C"
