// Sixteen threads share one segmenter and its scenes, while others open and close: the answers are those of one
// thread.

#include <atomic>
#include <thread>

#include "fixtures.hpp"
#include "sam3i.hpp"

namespace {

std::string told(const sam3i::Result& result) {
    std::string text = std::to_string(result.answer().level);
    for (const auto& instance : result.instances()) {
        const sam3i_mask mask = instance.mask();
        text += ' ' + std::to_string(instance.score) + ':' + std::to_string(mask.area) + ':' +
                std::to_string(mask.count) + ':' + std::to_string(instance.polygons().size());
    }
    return text;
}

}  // namespace

int main() try {
    constexpr int kThreads = 16, kTurns = 12;
    const std::string bundle = (fixtures::folder() / "tiny").string();
    const char* instructions[] = {"star", "the red star left of the ring", "the one with three corners",
                                  "every square"};
    std::vector<uint8_t> pixels(96 * 64 * 3);
    for (size_t i = 0; i < pixels.size(); ++i) pixels[i] = static_cast<uint8_t>(i * 31 % 251);
    sam3i_open_options options = SAM3I_OPEN_OPTIONS;
    options.threads = 1;
    options.threshold = 0.0f;
    options.instruction_cache = 2;
    const sam3i::Segmenter segmenter(bundle, options);
    const sam3i::Scene shared = segmenter.encode(sam3i::image(pixels.data(), 96, 64));
    std::vector<std::string> wanted;
    for (const char* instruction : instructions) wanted.push_back(told(shared.segment(instruction)));
    const sam3i::Result one = shared.segment("star");

    std::atomic<long> wrong{0}, answered{0};
    std::vector<std::thread> threads;
    for (int number = 0; number < kThreads; ++number) {
        threads.emplace_back([&, number] {
            for (int turn = 0; turn < kTurns; ++turn) {
                const size_t which = static_cast<size_t>(number + turn) % 4;
                const sam3i::Scene own = segmenter.encode(sam3i::image(pixels.data(), 96, 64));
                const auto& scene = turn % 2 ? own : shared;
                auto asked = scene.try_segment(instructions[which]);
                if (!asked || told(std::move(asked).take()) != wanted[which]) ++wrong;
                if (told(one) != wanted[0]) ++wrong;
                // Each thread has a line of its own.
                const std::string missing = "no folder " + std::to_string(number);
                const auto failed = sam3i::Segmenter::open(missing);
                if (failed || failed.failure().line.find(missing) == std::string::npos) ++wrong;
                if (number % 4 == 0 && turn == 3)
                    sam3i::Segmenter(bundle, options).encode(sam3i::image(pixels.data(), 96, 64));
                ++answered;
            }
        });
    }
    for (auto& thread : threads) thread.join();

    // Closed while it is asked: an answer, or the line that says so.
    sam3i_segmenter* closing = nullptr;
    sam3i_scene* scene = nullptr;
    const sam3i_image image = SAM3I_IMAGE(pixels.data(), 96, 64, SAM3I_RGB);
    if (sam3i_open(bundle.c_str(), &options, &closing) || sam3i_encode(closing, &image, &scene)) return 1;
    std::vector<std::thread> askers;
    for (int number = 0; number < 4; ++number) {
        askers.emplace_back([&] {
            for (int turn = 0; turn < 40; ++turn) {
                sam3i_result* result = nullptr;
                const sam3i_question question = SAM3I_QUESTION("star");
                const int32_t status = sam3i_segment(scene, &question, &result);
                if (status != SAM3I_OK && status != SAM3I_UNAVAILABLE) ++wrong;
                sam3i_result_close(result);
            }
        });
    }
    sam3i_close(closing);
    for (auto& asker : askers) asker.join();
    sam3i_scene_close(scene);

    fixtures::Check check;
    check(wrong == 0, std::to_string(wrong) + " wrong answers");
    check(answered == kThreads * kTurns, "some threads did not end");
    return check.finish("threads", 2);
} catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
}
