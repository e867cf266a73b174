// Times what a program pays: opening a bundle, encoding a picture, one more instruction. benchmarks/cpp.py runs it
// beside Python and reads its JSON.
//
//     measure BUNDLE RUNTIME PRECISION THREADS TURNS PICTURE.ppm

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fstream>

#include "sam3i.hpp"

namespace {

using Clock = std::chrono::steady_clock;

double since(Clock::time_point start) {
    return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

// The least time of some turns, and the processor's time of a turn in the mean, ms.
struct Times {
    double least = 1e30, processor = 0;
};

template <class Body>
Times timed(int turns, Body body) {
    Times times;
    const std::clock_t begin = std::clock();
    for (int turn = 0; turn < turns; ++turn) {
        const auto start = Clock::now();
        body(turn);
        times.least = std::min(times.least, since(start));
    }
    times.processor = 1e3 * static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC / std::max(1, turns);
    return times;
}

long peak_kib() {
    std::ifstream status("/proc/self/status");
    for (std::string word; status >> word;) {
        long value = 0;
        if (word == "VmHWM:" && status >> value) return value;
    }
    return 0;
}

}  // namespace

int main(int argc, char** argv) try {
    if (argc != 7) {
        std::fprintf(stderr, "usage: measure BUNDLE RUNTIME PRECISION THREADS TURNS PICTURE.ppm\n");
        return 2;
    }
    const int turns = std::atoi(argv[5]);
    std::ifstream file(argv[6], std::ios::binary);
    std::string kind;
    int width = 0, height = 0, most = 0;
    file >> kind >> width >> height >> most;
    file.get();
    std::vector<char> pixels(static_cast<size_t>(std::max(0, width)) * static_cast<size_t>(std::max(0, height)) * 3);
    if (kind != "P6" || !file.read(pixels.data(), static_cast<std::streamsize>(pixels.size()))) {
        std::fprintf(stderr, "%s: want a PPM of kind P6 with 255 levels\n", argv[6]);
        return 1;
    }
    const sam3i_image image = sam3i::image(reinterpret_cast<const uint8_t*>(pixels.data()), width, height);
    sam3i_open_options options = SAM3I_OPEN_OPTIONS;
    options.runtime = argv[2], options.precision = argv[3], options.threads = std::atoi(argv[4]);
    const auto start = Clock::now();
    const sam3i::Segmenter segmenter(argv[1], options);
    const double open = since(start);
    const auto ask = [](const sam3i::Scene& scene, int turn) {  // each a text of its own, which no cache knows
        return scene.segment("the red star left of ring " + std::to_string(turn), SAM3I_SIMPLE).answer().count;
    };
    const sam3i::Scene scene = segmenter.encode(image);
    ask(scene, -1);
    const double first = since(start);
    const Times encode = timed(turns, [&](int) { segmenter.encode(image); });
    const Times question = timed(turns, [&](int turn) { ask(scene, turn); });
    std::printf(
        "{\"open_ms\": %.1f, \"first_ms\": %.1f, \"encode_ms\": %.2f, \"encode_cpu_ms\": %.2f, \"ask_ms\": %.2f, "
        "\"ask_cpu_ms\": %.2f, \"peak_kib\": %ld}\n",
        open, first, encode.least, encode.processor, question.least, question.processor, peak_kib());
    return 0;
} catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
}
