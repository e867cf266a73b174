/* The header in C: null pointers, sizes and indices are refused with a status and a line, and nothing ends the
 * program. */

#include <stdio.h>
#include <string.h>

#include "sam3i.h"

static int failures = 0;

static void expect(int32_t found, int32_t wanted, const char* words, const char* what) {
    if (found != wanted || strstr(sam3i_last_error(), words) == NULL) {
        fprintf(stderr, "%s: status %d, \"%s\"; want %d and \"%s\"\n", what, (int)found, sam3i_last_error(),
                (int)wanted, words);
        ++failures;
    }
}

int main(void) {
    sam3i_segmenter* segmenter = (sam3i_segmenter*)&failures;
    sam3i_scene* scene = (sam3i_scene*)&failures;
    sam3i_result* result = (sam3i_result*)&failures;
    sam3i_open_options options = SAM3I_OPEN_OPTIONS;
    const uint8_t pixels[12] = {0};
    sam3i_image image = SAM3I_IMAGE(pixels, 2, 2, SAM3I_RGB);
    sam3i_question question = SAM3I_QUESTION("star");
    sam3i_info info = {0};
    sam3i_answer answer = {0};
    sam3i_instance instance = {0};
    sam3i_mask mask = {0};
    sam3i_polygons polygons = {0};
    uint8_t bitmap[4];

    info.size = sizeof info;
    answer.size = sizeof answer;
    instance.size = sizeof instance;
    mask.size = sizeof mask;
    polygons.size = sizeof polygons;
    if (sam3i_abi_version() != SAM3I_ABI_VERSION || strcmp(sam3i_last_error(), "") != 0) ++failures;
    expect(sam3i_open(NULL, NULL, &segmenter), SAM3I_INVALID_ARGUMENT, "bundle is NULL", "no bundle");
    if (segmenter != NULL) ++failures;
    expect(sam3i_open("x", NULL, NULL), SAM3I_INVALID_ARGUMENT, "segmenter is NULL", "nowhere to open to");
    options.size = 4;
    expect(sam3i_open("x", &options, &segmenter), SAM3I_INVALID_ARGUMENT, "options->size is 4", "small options");
    options.size = sizeof options + 8;
    expect(sam3i_open("x", &options, &segmenter), SAM3I_INVALID_ARGUMENT, "options->size", "large options");
    options.size = sizeof options;
    options.threads = 2000;
    expect(sam3i_open("x", &options, &segmenter), SAM3I_INVALID_ARGUMENT, "got 2000", "too many threads");
    expect(sam3i_open("no such folder", NULL, &segmenter), SAM3I_BAD_BUNDLE, "is no bundle but nothing", "no folder");
    expect(sam3i_get_info(NULL, &info), SAM3I_INVALID_ARGUMENT, "segmenter is NULL", "info of none");
    expect(sam3i_encode(NULL, &image, &scene), SAM3I_INVALID_ARGUMENT, "segmenter is NULL", "encode by none");
    if (scene != NULL) ++failures;
    expect(sam3i_segment(NULL, &question, &result), SAM3I_INVALID_ARGUMENT, "scene is NULL", "ask none");
    if (result != NULL) ++failures;
    expect(sam3i_result_answer(NULL, &answer), SAM3I_INVALID_ARGUMENT, "result is NULL", "answer of none");
    expect(sam3i_result_instance(NULL, 0, &instance), SAM3I_INVALID_ARGUMENT, "result is NULL", "instance of none");
    expect(sam3i_result_mask(NULL, 0, &mask), SAM3I_INVALID_ARGUMENT, "result is NULL", "mask of none");
    expect(sam3i_result_bitmap(NULL, 0, 1, bitmap, 0, 4), SAM3I_INVALID_ARGUMENT, "result is NULL", "bitmap of none");
    expect(sam3i_result_polygons(NULL, 0, &polygons), SAM3I_INVALID_ARGUMENT, "result is NULL", "polygons of none");
    sam3i_close(NULL);
    sam3i_scene_close(NULL);
    sam3i_result_close(NULL);
    if (sam3i_runtimes() == NULL) ++failures;
    return failures != 0;
}
