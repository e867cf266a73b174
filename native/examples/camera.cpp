// Segments what a camera sees, newest frame first: frames that come while one is segmented are dropped and counted.
//
//     camera BUNDLE INSTRUCTION [/dev/video0 [FRAMES]]

#include <fcntl.h>
#include <linux/videodev2.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <thread>

#include "sam3i.hpp"

namespace {

struct Frame {
    std::vector<uint8_t> bytes;
    long number = 0;  // 0: none yet
};

[[noreturn]] void refuse(const std::string& what) {
    throw std::runtime_error(what + ": " + std::strerror(errno));
}

// A V4L2 device that gives NV12, its buffers mapped.
class Camera {
public:
    explicit Camera(const char* path) : file_(open(path, O_RDWR)) {
        if (file_ < 0) refuse(std::string("cannot open ") + path);
        v4l2_format format{};
        format.type = V4L2_BUF_TYPE_VIDEO_CAPTURE;
        format.fmt.pix.width = 640, format.fmt.pix.height = 480;
        format.fmt.pix.pixelformat = V4L2_PIX_FMT_NV12;
        format.fmt.pix.field = V4L2_FIELD_NONE;
        call(VIDIOC_S_FMT, &format, "VIDIOC_S_FMT");
        if (format.fmt.pix.pixelformat != V4L2_PIX_FMT_NV12) {
            throw std::runtime_error(std::string(path) + " does not give NV12: choose another device, or convert");
        }
        width = static_cast<int32_t>(format.fmt.pix.width), height = static_cast<int32_t>(format.fmt.pix.height);
        stride = format.fmt.pix.bytesperline;
        v4l2_requestbuffers request{};
        request.count = 4, request.type = format.type, request.memory = V4L2_MEMORY_MMAP;
        call(VIDIOC_REQBUFS, &request, "VIDIOC_REQBUFS");
        for (uint32_t index = 0; index < request.count; ++index) {
            v4l2_buffer buffer = buffer_of(index);
            call(VIDIOC_QUERYBUF, &buffer, "VIDIOC_QUERYBUF");
            void* start = mmap(nullptr, buffer.length, PROT_READ | PROT_WRITE, MAP_SHARED, file_, buffer.m.offset);
            if (start == MAP_FAILED) refuse("cannot map a buffer");
            maps_.push_back({start, buffer.length});
            call(VIDIOC_QBUF, &buffer, "VIDIOC_QBUF");
        }
        int type = V4L2_BUF_TYPE_VIDEO_CAPTURE;
        call(VIDIOC_STREAMON, &type, "VIDIOC_STREAMON");
    }
    ~Camera() {
        for (const auto& map : maps_) munmap(map.start, map.bytes);
        if (file_ >= 0) close(file_);
    }
    Camera(const Camera&) = delete;

    // Waits for a frame and copies it.
    void read(std::vector<uint8_t>& bytes) {
        v4l2_buffer buffer = buffer_of(0);
        call(VIDIOC_DQBUF, &buffer, "VIDIOC_DQBUF");
        const auto* start = static_cast<const uint8_t*>(maps_[buffer.index].start);
        bytes.assign(start, start + buffer.bytesused);
        call(VIDIOC_QBUF, &buffer, "VIDIOC_QBUF");
    }

    int32_t width = 0, height = 0;
    int64_t stride = 0;

private:
    struct Map {
        void* start;
        size_t bytes;
    };
    static v4l2_buffer buffer_of(uint32_t index) {
        v4l2_buffer buffer{};
        buffer.type = V4L2_BUF_TYPE_VIDEO_CAPTURE, buffer.memory = V4L2_MEMORY_MMAP, buffer.index = index;
        return buffer;
    }
    void call(unsigned long request, void* argument, const char* name) const {
        int status = 0;
        do status = ioctl(file_, request, argument);
        while (status < 0 && errno == EINTR);
        if (status < 0) refuse(name);
    }

    int file_;
    std::vector<Map> maps_;
};

}  // namespace

int main(int argc, char** argv) try {
    if (argc < 3) {
        std::fprintf(stderr, "usage: camera BUNDLE INSTRUCTION [/dev/video0 [FRAMES]]\n");
        return 2;
    }
    const long wanted = argc > 4 ? std::atol(argv[4]) : 100;
    const sam3i::Segmenter segmenter(argv[1]);
    Camera camera(argc > 3 ? argv[3] : "/dev/video0");
    std::mutex mutex;
    std::condition_variable came;
    Frame newest;
    bool done = false;
    std::string failure;
    std::thread reader([&] {
        try {
            std::vector<uint8_t> bytes;
            for (long number = 1;; ++number) {
                camera.read(bytes);
                const std::lock_guard<std::mutex> lock(mutex);
                if (done) return;
                newest.bytes.swap(bytes);
                newest.number = number;
                came.notify_one();
            }
        } catch (const std::exception& error) {
            const std::lock_guard<std::mutex> lock(mutex);
            failure = error.what();
            came.notify_one();
        }
    });
    Frame frame;
    long last = 0;
    for (long turn = 0; turn < wanted; ++turn) {
        {
            std::unique_lock<std::mutex> lock(mutex);
            came.wait(lock, [&] { return newest.number > last || !failure.empty(); });
            if (!failure.empty()) break;
            std::swap(frame, newest);
        }
        const size_t whole = static_cast<size_t>(camera.stride * camera.height * 3 / 2);
        if (frame.bytes.size() < whole) continue;  // a frame that came short
        const sam3i::Scene scene = segmenter.encode(
            sam3i::image(frame.bytes.data(), camera.width, camera.height, SAM3I_NV12, camera.stride));
        const sam3i::Result result = scene.segment(argv[2]);
        const sam3i_answer answer = result.answer();
        std::printf("frame %ld, %ld dropped: %d found, %.1f ms\n", frame.number, frame.number - last - 1,
                    answer.count, answer.preprocess_ms + answer.encode_image_ms + answer.total_ms);
        last = frame.number;
    }
    {
        const std::lock_guard<std::mutex> lock(mutex);
        done = true;
    }
    reader.join();
    if (!failure.empty()) throw std::runtime_error(failure);
    return 0;
} catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
}
