// Segments a picture and draws what was found.
//
//     segment BUNDLE PICTURE INSTRUCTION [OVERLAY.png]       SAM3I_RUNTIME names a runtime

#define STB_IMAGE_IMPLEMENTATION
#define STB_IMAGE_WRITE_IMPLEMENTATION
#include <stb/stb_image.h>
#include <stb/stb_image_write.h>

#include <cstdio>
#include <cstdlib>

#include "sam3i.hpp"

namespace {

constexpr uint8_t kColours[][3] = {{230, 60, 60}, {60, 140, 230}, {60, 180, 90}, {240, 170, 40}, {160, 80, 200}};

void tint(uint8_t* rgb, const std::vector<uint8_t>& mask, const uint8_t* colour) {
    for (size_t i = 0; i < mask.size(); ++i) {
        for (size_t c = 0; mask[i] && c < 3; ++c) {
            rgb[3 * i + c] = static_cast<uint8_t>((rgb[3 * i + c] + colour[c]) / 2);
        }
    }
}

}  // namespace

int main(int argc, char** argv) try {
    if (argc < 4) {
        std::fprintf(stderr, "usage: segment BUNDLE PICTURE INSTRUCTION [OVERLAY.png]\n");
        return 2;
    }
    int width = 0, height = 0, channels = 0;
    const std::unique_ptr<uint8_t, decltype(&stbi_image_free)> rgb(stbi_load(argv[2], &width, &height, &channels, 3),
                                                                   stbi_image_free);
    if (rgb == nullptr) {
        std::fprintf(stderr, "cannot read %s: %s\n", argv[2], stbi_failure_reason());
        return 1;
    }
    sam3i_open_options options = SAM3I_OPEN_OPTIONS;
    options.runtime = std::getenv("SAM3I_RUNTIME");
    const sam3i::Segmenter segmenter(argv[1], options);
    const sam3i_info info = segmenter.info();
    std::printf("%s: %s on %s, %s %s, %d threads\n", info.model, info.variant, info.device, info.runtime,
                info.runtime_version, info.threads);
    const sam3i::Scene scene = segmenter.encode(sam3i::image(rgb.get(), width, height));
    const sam3i::Result result = scene.segment(argv[3]);
    const sam3i_answer answer = result.answer();
    std::printf("%d found, presence %.3f, %.1f ms for the picture, %.1f ms for the question\n", answer.count,
                answer.presence, answer.preprocess_ms + answer.encode_image_ms, answer.total_ms);
    size_t number = 0;
    for (const sam3i::Instance& found : result.instances()) {
        std::printf("%.3f  box %.1f %.1f %.1f %.1f  %lld px\n", found.score, found.box[0], found.box[1], found.box[2],
                    found.box[3], static_cast<long long>(found.mask().area));
        tint(rgb.get(), found.bitmap(), kColours[number++ % 5]);
    }
    if (argc > 4 && !stbi_write_png(argv[4], width, height, 3, rgb.get(), 3 * width)) {
        std::fprintf(stderr, "cannot write %s\n", argv[4]);
        return 1;
    }
    return 0;
} catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
}
