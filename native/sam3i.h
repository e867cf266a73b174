/* sam3i_edge: the native part. A plain C ABI in one shared library, opened by sam3i_edge/masks/native.py or by any
 * other language.
 *
 * A picture becomes a model's input by sam3i_pixel_values.
 *
 * A detector gives one small grid of logits an object; a user wants the object's mask at the size of the
 * image, most often as COCO run lengths. This library goes from one to the other without the dense mask:
 *
 *     float logits[288 * 288];                       // one mask, row-major
 *     uint32_t counts[65536];
 *     int64_t count, area;
 *     int32_t box[4];
 *     int32_t status = sam3i_mask_rle(logits, 288, 288, 1080, 1920, 0.0f, counts, 65536, &count, &area, box);
 *     if (status == SAM3I_CAPACITY) { ... call again with room for `count` runs ... }
 *
 * Thread safety: every function may be called from any number of threads at once. There is no global state.
 * Memory: the caller owns every buffer; nothing is kept after a call returns.
 * Errors: a status other than SAM3I_OK. Nothing is printed, nothing is thrown.
 */
#ifndef SAM3I_H
#define SAM3I_H

#include <stdint.h>

#if defined(_WIN32)
#if defined(SAM3I_BUILD)
#define SAM3I_API __declspec(dllexport)
#else
#define SAM3I_API __declspec(dllimport)
#endif
#else
#define SAM3I_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Raised by one whenever a signature or the meaning of an argument changes. */
#define SAM3I_ABI_VERSION 1

enum {
    SAM3I_OK = 0,
    SAM3I_INVALID_ARGUMENT = 1, /* a null pointer, a side under 1, too many pixels, a deviation not above 0 */
    SAM3I_NOT_FINITE = 2,       /* a logit or the threshold is NaN, infinite or beyond 1e30 */
    SAM3I_CAPACITY = 3,         /* `counts` is too short; `count`, `area` and `bbox` are right all the same */
    SAM3I_OUT_OF_MEMORY = 4
};

/* SAM3I_ABI_VERSION of the library, to compare with the one that the caller was written for. */
SAM3I_API int32_t sam3i_abi_version(void);

/* Resizes one mask's logits, cuts at the threshold and counts runs, in one pass.
 *
 * Definition, in float32 unless said otherwise, each operation rounded by itself:
 *   d      = logits - threshold
 *   for the output column x of out_w: n = (2 x + 1) m_w - out_w, an integer;
 *            x0 = floor(n / (2 out_w)), u = remainder / (2 out_w), divided in float64, rounded to float32
 *            (half-pixel centres); n < 0 means x0 = 0, u = 0; x1 = min(x0 + 1, m_w - 1)   (edges repeat)
 *   c[j]   = d[j][x0] (1 - u) + d[j][x1] u          for every row j of the grid; rows are treated alike:
 *   v[y,x] = c[y0] (1 - w) + c[y1] w
 *   mask   = v > 0
 *
 * logits     [m_h, m_w] row-major.
 * out_h, out_w  size of the image, pixels.
 * threshold  logit above which a pixel belongs to the mask; 0 is a probability of one half.
 * counts     [capacity] receives the lengths of the runs, column by column, background first (so the first
 *            may be 0). May be null when capacity is 0, to ask for `count` alone.
 * count      number of runs; at most out_h * out_w + 1.
 * area       pixels in the mask.
 * bbox       x, y, width, height of the mask in pixels; zeros when it is empty.
 */
SAM3I_API int32_t sam3i_mask_rle(const float* logits, int32_t m_h, int32_t m_w, int32_t out_h, int32_t out_w,
                                 float threshold, uint32_t* counts, int64_t capacity, int64_t* count,
                                 int64_t* area, int32_t bbox[4]);

/* The image encoder's input from a picture, in one pass: resized to a square, normalised, planes apart.
 *
 * Definition: Pillow's bilinear resize of uint8 with antialiasing (a triangle as wide as the reduction, in
 * integer weights of 22 bits), first across, then down, each rounded to uint8; then in float32, each operation
 * rounded by itself, (v / 255 - mean) / deviation. Pillow 13 takes tall pictures down first, older ones never.
 *
 * image      [height, width, 3] uint8, RGB.
 * size       side of the square, pixels.
 * mean, deviation  of the three channels, on a scale of 0..1; deviations above 0.
 * values     [3, size, size] receives the result.
 */
SAM3I_API int32_t sam3i_pixel_values(const uint8_t* image, int32_t height, int32_t width, int32_t size,
                                     const float mean[3], const float deviation[3], float* values);

#ifdef __cplusplus
}
#endif

#endif
