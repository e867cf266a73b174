/* sam3i: segments what a sentence describes, in C. Two libraries have this header:
 *
 *   libsam3i_edge  the first two functions: a picture to a model's input, a mask to run lengths. The Python package
 *                  opens it (sam3i_edge/masks/native.py). It needs nothing.
 *   libsam3i       all of it: opens a bundle, encodes pictures and answers instructions, without Python.
 *
 *     sam3i_segmenter* segmenter = NULL;
 *     sam3i_scene* scene = NULL;
 *     sam3i_result* result = NULL;
 *     sam3i_image image = SAM3I_IMAGE(pixels, 640, 480, SAM3I_RGB);
 *     sam3i_question question = SAM3I_QUESTION("the red star left of the ring");
 *     if (sam3i_open("nano", NULL, &segmenter) || sam3i_encode(segmenter, &image, &scene) ||
 *         sam3i_segment(scene, &question, &result))
 *         fprintf(stderr, "%s\n", sam3i_last_error());
 *     sam3i_result_close(result);  sam3i_scene_close(scene);  sam3i_close(segmenter);
 *
 * Thread safety: every function may be called from any number of threads at once, also with the same handle, except
 * that a handle must not be used while, or after, it is closed. Each graph runs one question at a time; threads
 * overlap in everything else.
 * Memory: the caller owns every buffer that it passes, and nothing of it is kept after a call returns. What a result
 * gives by pointer lives until that result is closed. Handles may be closed in any order; NULL is ignored.
 * Errors: a status other than SAM3I_OK, and a line in sam3i_last_error(). Outputs are then untouched, handles NULL.
 * Nothing is printed, nothing is thrown.
 * Structs: `size` is sizeof the struct that the caller was compiled with, so that later versions can add fields at the
 * end. A larger one than the library knows is refused.
 */
#ifndef SAM3I_H
#define SAM3I_H

#include <stddef.h>
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
    SAM3I_INVALID_ARGUMENT = 1, /* a null pointer, a side under 1, too many pixels, a number out of range, ... */
    SAM3I_NOT_FINITE = 2,       /* a logit or the threshold is NaN, infinite or beyond 1e30 */
    SAM3I_CAPACITY = 3,         /* a buffer is too short; what says how long it must be is right all the same */
    SAM3I_OUT_OF_MEMORY = 4,
    SAM3I_BAD_BUNDLE = 5,       /* no bundle, damaged, changed, newer than this library, or without such a variant */
    SAM3I_UNAVAILABLE = 6,      /* a runtime or device is unknown, not built in, or failed; a closed segmenter */
    SAM3I_BAD_IMAGE = 7,        /* no pixels, too many, or a stride that does not fit */
    SAM3I_BAD_INSTRUCTION = 8,  /* blank, absurdly long, no UTF-8, or neither an instruction nor a box */
    SAM3I_INTERNAL = 9          /* a defect of this library */
};

/* SAM3I_ABI_VERSION of the library, to compare with the one that the caller was written for. */
SAM3I_API int32_t sam3i_abi_version(void);

/* Resizes one mask's logits, cuts at the threshold and counts runs, in one pass.
 *
 * A detector gives one small grid of logits an object; a user wants the object's mask at the size of the image, most
 * often as COCO run lengths. This goes from one to the other without the dense mask. A segmenter's results call it.
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
 *
 * It sets no text for sam3i_last_error().
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
 *
 * It sets no text for sam3i_last_error().
 */
SAM3I_API int32_t sam3i_pixel_values(const uint8_t* image, int32_t height, int32_t width, int32_t size,
                                     const float mean[3], const float deviation[3], float* values);

/* What follows is in libsam3i alone. */

typedef struct sam3i_segmenter sam3i_segmenter; /* an opened bundle */
typedef struct sam3i_scene sam3i_scene;         /* a picture, encoded once, to be asked often */
typedef struct sam3i_result sam3i_result;       /* the answer to one question */

/* What the last call that failed in this thread says: one line, UTF-8: what was found, what was wanted, what to do
 * next. "" before the first. It lives until this thread's next call that fails. */
SAM3I_API const char* sam3i_last_error(void);

/* The runtimes that were built in, by name, ended by NULL: "onnxruntime", "openvino". */
SAM3I_API const char* const* sam3i_runtimes(void);

typedef struct sam3i_open_options {
    uint32_t size;
    int32_t threads;           /* of one operator, 1 to 1,024; 0: one for each core that this process may use */
    const char* device;        /* "cpu"; ONNX Runtime: "cuda", "jetson" (TensorRT); OpenVINO: "intel-gpu", "intel-npu";
                                  NULL or "auto": jetson or cuda where such a board or driver is here and the library's
                                  ONNX Runtime has the provider, else cpu */
    const char* precision;     /* "fp32", "int8", ...; NULL or "auto": fp32, on jetson and cuda fp16 before it */
    const char* runtime;       /* a name of sam3i_runtimes(); NULL or "auto": the first that the bundle has a variant
                                  for */
    const char* engine_cache;  /* jetson: a folder for TensorRT's engines, which take minutes to build; NULL: none */
    float threshold;           /* least score of an instance, 0 to 1; below 0: the bundle's */
    int32_t instruction_cache; /* encoded instructions that are kept, least recently used first out; below 0: 256 */
} sam3i_open_options;

#define SAM3I_OPEN_OPTIONS {sizeof(sam3i_open_options), 0, NULL, NULL, NULL, NULL, -1.0f, -1}

/* Opens a bundle: its bundle.json is checked, and of its files those that this variant opens, by size and sha256.
 * The image encoder and the detector are opened at once, the others at their first use.
 *
 * bundle     its folder, UTF-8.
 * options    NULL for the defaults.
 *
 * SAM3I_BAD_BUNDLE, SAM3I_UNAVAILABLE, SAM3I_INVALID_ARGUMENT, SAM3I_OUT_OF_MEMORY.
 */
SAM3I_API int32_t sam3i_open(const char* bundle, const sam3i_open_options* options, sam3i_segmenter** segmenter);

/* Frees the graphs, each when its last run has ended. Scenes and results that are still open stay valid, but a scene
 * can no longer be asked. */
SAM3I_API void sam3i_close(sam3i_segmenter* segmenter);

enum { SAM3I_CONCEPT = 0, SAM3I_SIMPLE = 1, SAM3I_COMPLEX = 2, SAM3I_AUTO = 3 };

typedef struct sam3i_info {
    uint32_t size;
    int32_t image_size;          /* side of the square that pictures are resized to, pixels */
    int32_t max_boxes;           /* most boxes of a question; 0: the model takes none */
    int32_t levels;              /* bit 1 << SAM3I_CONCEPT and so on for each level that the model has */
    int32_t threads;             /* of one operator */
    float threshold;             /* least score where a question names none */
    const char* model;           /* its name. Strings live until the segmenter is closed */
    const char* variant;         /* of the bundle, that was opened */
    const char* device;
    const char* runtime;
    const char* runtime_version;
    const char* precision;
    const char* note;            /* what users of the model must know, or "" */
} sam3i_info;

/* What runs. Set info->size first. */
SAM3I_API int32_t sam3i_get_info(const sam3i_segmenter* segmenter, sam3i_info* info);

enum {
    SAM3I_RGB = 0,   /* 3 bytes a pixel */
    SAM3I_BGR = 1,   /* 3 */
    SAM3I_RGBA = 2,  /* 4; blended over white, as viewers show it */
    SAM3I_BGRA = 3,  /* 4; likewise */
    SAM3I_GRAY8 = 4, /* 1 */
    SAM3I_NV12 = 5   /* luma, then a plane of half the height with u and v in turn; BT.601, 16 to 235, as OpenCV turns
                        it to RGB; both sides even */
};

typedef struct sam3i_image {
    uint32_t size;
    int32_t format;
    const uint8_t* data;   /* the first row; of NV12 the luma */
    int32_t width, height; /* of what lies in memory, pixels */
    int64_t stride;        /* bytes from row to row; 0: rows lie close together */
    const uint8_t* chroma; /* of NV12 its second plane; NULL: right after the luma */
    int64_t chroma_stride; /* 0: that of the luma */
    int32_t rotation;      /* degrees to turn it clockwise until it stands upright: 0, 90, 180 or 270 */
} sam3i_image;

#define SAM3I_IMAGE(data, width, height, format) \
    {sizeof(sam3i_image), (format), (data), (width), (height), 0, NULL, 0, 0}

/* Encodes a picture of at most 64 million pixels. All that a scene and its results say is in pixels of the upright
 * picture.
 *
 * SAM3I_BAD_IMAGE, SAM3I_UNAVAILABLE, SAM3I_BAD_BUNDLE, SAM3I_INVALID_ARGUMENT, SAM3I_OUT_OF_MEMORY.
 */
SAM3I_API int32_t sam3i_encode(sam3i_segmenter* segmenter, const sam3i_image* image, sam3i_scene** scene);
SAM3I_API void sam3i_scene_close(sam3i_scene* scene);

typedef struct sam3i_question {
    uint32_t size;
    int32_t level;             /* SAM3I_AUTO: by the words of the instruction */
    const char* instruction;   /* UTF-8, at most 10,000 characters and 2,000 words; NULL with boxes alone */
    const double* boxes;       /* [box_count, 4] x0, y0, x1, y1 in pixels: examples of what is meant; or NULL */
    const int32_t* box_labels; /* [box_count] 1 around what is meant, 0 around what is not; NULL: 1 throughout */
    int32_t box_count;
    float threshold;           /* least score, 0 to 1; below 0: the segmenter's */
    double suppress;           /* of instances whose masks overlap by more than this IoU, 0 to 1, only the best is kept;
                                  below 0: all are */
} sam3i_question;

#define SAM3I_QUESTION(instruction) \
    {sizeof(sam3i_question), SAM3I_AUTO, (instruction), NULL, NULL, 0, -1.0f, -1.0}

/* Answers a question about a scene.
 *
 * SAM3I_BAD_INSTRUCTION, SAM3I_UNAVAILABLE, SAM3I_BAD_BUNDLE, SAM3I_INVALID_ARGUMENT, SAM3I_OUT_OF_MEMORY.
 */
SAM3I_API int32_t sam3i_segment(sam3i_scene* scene, const sam3i_question* question, sam3i_result** result);
SAM3I_API void sam3i_result_close(sam3i_result* result);

typedef struct sam3i_answer {
    uint32_t size;
    int32_t count;          /* of instances, best first; 0 is a normal answer */
    int32_t width, height;  /* of the upright picture, pixels */
    int32_t level;          /* at which it was answered */
    int32_t level_auto;     /* 1: chosen by the words, 0: by the caller */
    int32_t tokens_cut;     /* dropped from the end of a too long instruction */
    int32_t truncated;      /* 1: all of the detector's queries passed, so there may be more instances */
    float threshold;        /* scores at or below it were dropped */
    double presence;        /* probability that the picture holds what was asked for at all */
    /* Milliseconds. The first two are the scene's, the total is the question's; 0 for a text that was cached. */
    double preprocess_ms, encode_image_ms, encode_text_ms, encode_boxes_ms, detect_ms, postprocess_ms, total_ms;
} sam3i_answer;

/* What was answered. Set answer->size first. */
SAM3I_API int32_t sam3i_result_answer(const sam3i_result* result, sam3i_answer* answer);

typedef struct sam3i_instance {
    uint32_t size;
    float score;  /* 0..1 */
    float box[4]; /* x0, y0, x1, y1 of the detector, pixels, within the picture */
} sam3i_instance;

/* One instance; index from 0. Set instance->size first. */
SAM3I_API int32_t sam3i_result_instance(const sam3i_result* result, int32_t index, sam3i_instance* instance);

typedef struct sam3i_mask {
    uint32_t size;
    int32_t bbox[4];        /* x, y, width, height of the mask, pixels; zeros when it is empty */
    int64_t area;           /* pixels */
    const uint32_t* counts; /* COCO run lengths, see sam3i_mask_rle; live until the result is closed */
    int64_t count;          /* of them */
} sam3i_mask;

/* The mask of one instance at the size of the picture, made at the first request. Set mask->size first. */
SAM3I_API int32_t sam3i_result_mask(const sam3i_result* result, int32_t index, sam3i_mask* mask);

/* Writes a mask as a bitmap of the upright picture: `inside` in its pixels, 0 elsewhere.
 *
 * stride     bytes from row to row, at least the width; 0: the width.
 * bytes      of `bitmap`; SAM3I_CAPACITY below (height - 1) * stride + width.
 */
SAM3I_API int32_t sam3i_result_bitmap(const sam3i_result* result, int32_t index, uint8_t inside, uint8_t* bitmap,
                                      int64_t stride, int64_t bytes);

typedef struct sam3i_polygons {
    uint32_t size;
    int32_t ring_count;     /* closed lines along the edges of pixels; the last point is not the first again */
    const int32_t* starts;  /* [ring_count + 1] the first point of each ring, and one past the last */
    const uint8_t* hole;    /* [ring_count] 0: the outer ring of a part; 1: a hole of the part before it */
    const float* points;    /* [starts[ring_count], 2] x, y, pixels; all three live until the result is closed */
} sam3i_polygons;

/* The outlines of one mask, parts from the top down; pixels that touch at a corner alone are two parts. Set
 * polygons->size first. */
SAM3I_API int32_t sam3i_result_polygons(const sam3i_result* result, int32_t index, sam3i_polygons* polygons);

#ifdef __cplusplus
}
#endif

#endif
