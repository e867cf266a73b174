#include "picture.hpp"

#include <algorithm>
#include <string>

#include "error.hpp"

namespace sam3i::core {

namespace {

constexpr int64_t kMaxPixels = 64'000'000;

int64_t bytes_of(int32_t format) {
    switch (format) {
        case SAM3I_RGB:
        case SAM3I_BGR:
            return 3;
        case SAM3I_RGBA:
        case SAM3I_BGRA:
            return 4;
        case SAM3I_GRAY8:
        case SAM3I_NV12:
            return 1;
        default:
            return 0;
    }
}

[[noreturn]] void refuse(int32_t status, const std::string& line) {
    throw Error(status, line);
}

void check(const sam3i_image& image, int64_t row, int64_t stride, int64_t chroma_stride) {
    const std::string size = std::to_string(image.width) + " x " + std::to_string(image.height);
    if (row == 0) {
        refuse(SAM3I_INVALID_ARGUMENT, "the image's format is " + std::to_string(image.format) +
                                           ": want SAM3I_RGB, BGR, RGBA, BGRA, GRAY8 or NV12");
    }
    if (image.rotation % 90 != 0 || image.rotation < 0 || image.rotation > 270) {
        refuse(SAM3I_INVALID_ARGUMENT,
               "the image's rotation is " + std::to_string(image.rotation) + " degrees: want 0, 90, 180 or 270");
    }
    if (image.width < 1 || image.height < 1)
        refuse(SAM3I_BAD_IMAGE, "the image has " + size + " pixels, nothing to segment");
    if (static_cast<int64_t>(image.width) * image.height > kMaxPixels) {
        refuse(SAM3I_BAD_IMAGE, "the image of " + size +
                                    " pixels has over 64 megapixels: make it smaller or cut it "
                                    "into tiles");
    }
    if (stride < row * image.width) {
        refuse(SAM3I_BAD_IMAGE, "the image's stride is " + std::to_string(stride) + " bytes, a row of " +
                                    std::to_string(image.width) + " pixels has " + std::to_string(row * image.width));
    }
    if (image.format == SAM3I_NV12 &&
        (image.width % 2 != 0 || image.height % 2 != 0 || chroma_stride < image.width)) {
        refuse(SAM3I_BAD_IMAGE,
               "an NV12 image has even sides and a chroma stride of at least its width, this one is " + size +
                   " with " + std::to_string(chroma_stride));
    }
}

uint8_t over_white(uint8_t colour, uint8_t alpha) {
    return static_cast<uint8_t>((colour * alpha + 255 * (255 - alpha) + 127) / 255);
}

// OpenCV's COLOR_YUV2RGB_NV12: BT.601 in integers of 20 bits.
void from_yuv(int32_t y, int32_t u, int32_t v, uint8_t* rgb) {
    constexpr int32_t kShift = 20, kHalf = 1 << (kShift - 1);
    const int32_t luma = std::max(0, y - 16) * 1220542;
    u -= 128, v -= 128;
    const int32_t parts[3] = {1673527 * v, -852492 * v - 409993 * u, 2116026 * u};
    for (int c = 0; c < 3; ++c) {
        rgb[c] = static_cast<uint8_t>(std::clamp((luma + kHalf + parts[c]) >> kShift, 0, 255));
    }
}

}  // namespace

Picture upright(const sam3i_image& image) {
    const int64_t pixel = bytes_of(image.format);
    const int64_t stride = image.stride == 0 ? pixel * image.width : image.stride;
    const int64_t chroma_stride = image.chroma_stride == 0 ? stride : image.chroma_stride;
    check(image, pixel, stride, chroma_stride);
    const bool turned = image.rotation == 90 || image.rotation == 270;
    Picture picture{turned ? image.height : image.width, turned ? image.width : image.height, image.data, {}};
    if (image.format == SAM3I_RGB && image.rotation == 0 && stride == pixel * image.width) return picture;

    const uint8_t* chroma = image.chroma != nullptr ? image.chroma : image.data + stride * image.height;
    picture.copy.resize(static_cast<size_t>(3) * static_cast<size_t>(image.width) *
                        static_cast<size_t>(image.height));
    picture.rgb = picture.copy.data();
    const int64_t width = picture.width, last = static_cast<int64_t>(image.width) * image.height - 1;
    for (int64_t y = 0; y < image.height; ++y) {
        const uint8_t* row = image.data + y * stride;
        // Where the row's first pixel goes, and how far on the next one lies.
        int64_t at = y * width, step = 1;
        if (image.rotation == 90) at = image.height - 1 - y, step = width;
        if (image.rotation == 180) at = last - y * width, step = -1;
        if (image.rotation == 270) at = last - (image.height - 1 - y), step = -width;
        for (int64_t x = 0; x < image.width; ++x, at += step) {
            uint8_t* rgb = picture.copy.data() + 3 * at;
            const uint8_t* from = row + pixel * x;
            switch (image.format) {
                case SAM3I_RGB:
                    std::copy_n(from, 3, rgb);
                    break;
                case SAM3I_BGR:
                    std::reverse_copy(from, from + 3, rgb);
                    break;
                case SAM3I_GRAY8:
                    std::fill_n(rgb, 3, *from);
                    break;
                case SAM3I_NV12: {
                    const uint8_t* pair = chroma + (y / 2) * chroma_stride + (x & ~int64_t{1});
                    from_yuv(*from, pair[0], pair[1], rgb);
                    break;
                }
                default:
                    for (int c = 0; c < 3; ++c) {
                        rgb[c] = over_white(from[image.format == SAM3I_BGRA ? 2 - c : c], from[3]);
                    }
            }
        }
    }
    return picture;
}

}  // namespace sam3i::core
