/* The same in C, for a picture as PPM (P6, 255): prints one line an instance.
 *
 *     segment_c BUNDLE PICTURE.ppm INSTRUCTION
 */

#include <stdio.h>
#include <stdlib.h>

#include "sam3i.h"

static uint8_t* read_ppm(const char* path, int32_t* width, int32_t* height) {
    FILE* file = fopen(path, "rb");
    uint8_t* pixels = NULL;
    int most = 0;
    if (file != NULL && fscanf(file, "P6 %d %d %d", width, height, &most) == 3 && most == 255 && fgetc(file) != EOF &&
        *width > 0 && *height > 0 && *width < 10000 && *height < 10000) {
        const size_t bytes = (size_t)3 * (size_t)*width * (size_t)*height;
        pixels = malloc(bytes);
        if (pixels != NULL && fread(pixels, 1, bytes, file) != bytes) {
            free(pixels);
            pixels = NULL;
        }
    }
    if (file != NULL) fclose(file);
    return pixels;
}

int main(int argc, char** argv) {
    sam3i_segmenter* segmenter = NULL;
    sam3i_scene* scene = NULL;
    sam3i_result* result = NULL;
    sam3i_answer answer = {0};
    sam3i_instance instance = {0};
    int32_t width = 0, height = 0, status = 0, index = 0;
    uint8_t* pixels = NULL;

    answer.size = sizeof answer;
    instance.size = sizeof instance;
    if (argc != 4) {
        fprintf(stderr, "usage: segment_c BUNDLE PICTURE.ppm INSTRUCTION\n");
        return 2;
    }
    pixels = read_ppm(argv[2], &width, &height);
    if (pixels == NULL) {
        fprintf(stderr, "%s: want a PPM of kind P6 with 255 levels\n", argv[2]);
        return 1;
    }
    {
        const sam3i_image image = SAM3I_IMAGE(pixels, width, height, SAM3I_RGB);
        const sam3i_question question = SAM3I_QUESTION(argv[3]);
        status = sam3i_open(argv[1], NULL, &segmenter);
        if (status == SAM3I_OK) status = sam3i_encode(segmenter, &image, &scene);
        if (status == SAM3I_OK) status = sam3i_segment(scene, &question, &result);
        if (status == SAM3I_OK) status = sam3i_result_answer(result, &answer);
    }
    for (index = 0; status == SAM3I_OK && index < answer.count; ++index) {
        status = sam3i_result_instance(result, index, &instance);
        printf("%.3f  box %.1f %.1f %.1f %.1f\n", instance.score, instance.box[0], instance.box[1], instance.box[2],
               instance.box[3]);
    }
    if (status != SAM3I_OK) fprintf(stderr, "%s\n", sam3i_last_error());
    sam3i_result_close(result);
    sam3i_scene_close(scene);
    sam3i_close(segmenter);
    free(pixels);
    return status != SAM3I_OK;
}
