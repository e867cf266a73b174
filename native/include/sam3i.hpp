// sam3i in C++17: Segmenter, Scene and Result over the C interface, move-only, header only, no other dependency.
//
//     sam3i::Segmenter segmenter("nano");
//     sam3i::Scene scene = segmenter.encode(sam3i::image(pixels, 640, 480, SAM3I_BGR));
//     for (const sam3i::Instance& found : scene.segment("the red star left of the ring").instances()) use(found.box);
//
// A failure throws sam3i::Error. Who builds without exceptions, or wants none, calls open, try_encode and
// try_segment, which give an Expected: a value, or the status and the line. With -fno-exceptions only these exist.
#ifndef SAM3I_HPP
#define SAM3I_HPP

#include <array>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "sam3i.h"

#if defined(__cpp_exceptions) || defined(_CPPUNWIND)
#define SAM3I_EXCEPTIONS 1
#include <stdexcept>
#endif

namespace sam3i {

// Why a call failed: a SAM3I_ status and sam3i_last_error()'s line.
struct Failure {
    int32_t status;
    std::string line;
};

#ifdef SAM3I_EXCEPTIONS
class Error : public std::runtime_error {
public:
    explicit Error(const Failure& failure) : std::runtime_error(failure.line), status_(failure.status) {}
    int32_t status() const noexcept { return status_; }

private:
    int32_t status_;
};
#endif

// A value or a Failure. To take the value of a failed one is a defect of the caller: it throws, or ends the program.
template <class T>
class Expected {
public:
    Expected(T value) : value_(std::move(value)) {}
    Expected(Failure failure) : value_(std::move(failure)) {}

    explicit operator bool() const noexcept { return std::holds_alternative<T>(value_); }
    const Failure& failure() const { return *std::get_if<Failure>(&value_); }
    T take() && {
        if (T* value = std::get_if<T>(&value_)) return std::move(*value);
#ifdef SAM3I_EXCEPTIONS
        throw Error(failure());
#else
        std::abort();
#endif
    }

private:
    std::variant<T, Failure> value_;
};

namespace detail {

struct Close {
    void operator()(sam3i_segmenter* handle) const noexcept { sam3i_close(handle); }
    void operator()(sam3i_scene* handle) const noexcept { sam3i_scene_close(handle); }
    void operator()(sam3i_result* handle) const noexcept { sam3i_result_close(handle); }
};

template <class T>
using Handle = std::unique_ptr<T, Close>;

// What cannot fail for a handle and an index that are right.
inline void require(int32_t status) {
    if (status == SAM3I_OK) return;
#ifdef SAM3I_EXCEPTIONS
    throw Error({status, sam3i_last_error()});
#else
    std::abort();
#endif
}

template <class T>
T sized() {
    T value{};
    value.size = sizeof(T);
    return value;
}

}  // namespace detail

inline sam3i_image image(const uint8_t* data, int32_t width, int32_t height, int32_t format = SAM3I_RGB,
                         int64_t stride = 0, int32_t rotation = 0) {
    sam3i_image made = SAM3I_IMAGE(data, width, height, format);
    made.stride = stride;
    made.rotation = rotation;
    return made;
}

// A ring of [x, y] points, pixels.
using Ring = std::vector<std::array<float, 2>>;

struct Polygon {
    Ring exterior;
    std::vector<Ring> holes;
};

// One instance of a result, which has to live as long.
class Instance {
public:
    float score;
    std::array<float, 4> box;  // x0, y0, x1, y1, pixels

    // Area, box and run lengths, which live in the result.
    sam3i_mask mask() const {
        auto mask = detail::sized<sam3i_mask>();
        detail::require(sam3i_result_mask(result_, index_, &mask));
        return mask;
    }

    // [height, width], `inside` in the mask and 0 elsewhere.
    std::vector<uint8_t> bitmap(uint8_t inside = 255) const {
        auto answer = detail::sized<sam3i_answer>();
        detail::require(sam3i_result_answer(result_, &answer));
        std::vector<uint8_t> pixels(static_cast<size_t>(answer.width) * static_cast<size_t>(answer.height));
        detail::require(
            sam3i_result_bitmap(result_, index_, inside, pixels.data(), 0, static_cast<int64_t>(pixels.size())));
        return pixels;
    }

    std::vector<Polygon> polygons() const {
        auto rings = detail::sized<sam3i_polygons>();
        detail::require(sam3i_result_polygons(result_, index_, &rings));
        std::vector<Polygon> found;
        for (int32_t i = 0; i < rings.ring_count; ++i) {
            Ring ring;
            for (int32_t at = rings.starts[i]; at < rings.starts[i + 1]; ++at) {
                ring.push_back({rings.points[2 * at], rings.points[2 * at + 1]});
            }
            if (rings.hole[i]) {
                found.back().holes.push_back(std::move(ring));
            } else {
                found.push_back({std::move(ring), {}});
            }
        }
        return found;
    }

private:
    friend class Result;
    Instance(const sam3i_result* result, int32_t index) : score(0), box{}, result_(result), index_(index) {
        auto instance = detail::sized<sam3i_instance>();
        detail::require(sam3i_result_instance(result, index, &instance));
        score = instance.score;
        for (size_t side = 0; side < 4; ++side) box[side] = instance.box[side];
    }

    const sam3i_result* result_;
    int32_t index_;
};

// The answer to a question: instances, best first.
class Result {
public:
    explicit Result(sam3i_result* handle) : handle_(handle) {}

    sam3i_answer answer() const {
        auto answer = detail::sized<sam3i_answer>();
        detail::require(sam3i_result_answer(handle_.get(), &answer));
        return answer;
    }
    std::vector<Instance> instances() const& {
        std::vector<Instance> all;
        const int32_t count = answer().count;
        for (int32_t index = 0; index < count; ++index) all.push_back(Instance(handle_.get(), index));
        return all;
    }
    std::vector<Instance> instances() && = delete;  // they would outlive their result: name it first
    sam3i_result* get() const noexcept { return handle_.get(); }

private:
    detail::Handle<sam3i_result> handle_;
};

// A picture, encoded once.
class Scene {
public:
    explicit Scene(sam3i_scene* handle) : handle_(handle) {}

    Expected<Result> try_segment(const sam3i_question& question) const {
        sam3i_result* result = nullptr;
        const int32_t status = sam3i_segment(handle_.get(), &question, &result);
        if (status != SAM3I_OK) return Failure{status, sam3i_last_error()};
        return Result(result);
    }
    Expected<Result> try_segment(const std::string& instruction, int32_t level = SAM3I_AUTO) const {
        sam3i_question question = SAM3I_QUESTION(instruction.c_str());
        question.level = level;
        return try_segment(question);
    }
#ifdef SAM3I_EXCEPTIONS
    Result segment(const sam3i_question& question) const { return try_segment(question).take(); }
    Result segment(const std::string& instruction, int32_t level = SAM3I_AUTO) const {
        return try_segment(instruction, level).take();
    }
#endif
    sam3i_scene* get() const noexcept { return handle_.get(); }

private:
    detail::Handle<sam3i_scene> handle_;
};

inline sam3i_open_options options() {
    return SAM3I_OPEN_OPTIONS;
}

// An opened bundle. Thread-safe.
class Segmenter {
public:
    explicit Segmenter(sam3i_segmenter* handle) : handle_(handle) {}
#ifdef SAM3I_EXCEPTIONS
    explicit Segmenter(const std::string& bundle, const sam3i_open_options& wanted = options())
        : Segmenter(open(bundle, wanted).take()) {}
    Scene encode(const sam3i_image& picture) const { return try_encode(picture).take(); }
#endif

    static Expected<Segmenter> open(const std::string& bundle, const sam3i_open_options& wanted = options()) {
        sam3i_segmenter* handle = nullptr;
        const int32_t status = sam3i_open(bundle.c_str(), &wanted, &handle);
        if (status != SAM3I_OK) return Failure{status, sam3i_last_error()};
        return Segmenter(handle);
    }
    Expected<Scene> try_encode(const sam3i_image& picture) const {
        sam3i_scene* scene = nullptr;
        const int32_t status = sam3i_encode(handle_.get(), &picture, &scene);
        if (status != SAM3I_OK) return Failure{status, sam3i_last_error()};
        return Scene(scene);
    }
    // Its strings live as long as this segmenter.
    sam3i_info info() const {
        auto info = detail::sized<sam3i_info>();
        detail::require(sam3i_get_info(handle_.get(), &info));
        return info;
    }
    sam3i_segmenter* get() const noexcept { return handle_.get(); }

private:
    detail::Handle<sam3i_segmenter> handle_;
};

}  // namespace sam3i

#endif
