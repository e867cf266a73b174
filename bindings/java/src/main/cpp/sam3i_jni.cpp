// The functions of Native.java over sam3i.h. Java checks sizes; a status other than SAM3I_OK becomes a Sam3iException.
#include <jni.h>

#include <cstdint>
#include <cstring>
#include <vector>

#include "sam3i.h"

namespace {

template <class T>
T* pointer(jlong handle) {
    return reinterpret_cast<T*>(static_cast<intptr_t>(handle));
}

jlong number(const void* handle) { return static_cast<jlong>(reinterpret_cast<intptr_t>(handle)); }

jbyteArray bytes(JNIEnv* env, const char* text) {
    const auto length = static_cast<jsize>(std::strlen(text));
    jbyteArray made = env->NewByteArray(length);
    if (made) env->SetByteArrayRegion(made, 0, length, reinterpret_cast<const jbyte*>(text));
    return made;
}

// Whether the call succeeded; otherwise an exception is pending.
bool passed(JNIEnv* env, int32_t status) {
    if (status == SAM3I_OK) return true;
    jbyteArray line = bytes(env, sam3i_last_error());
    jclass type = line ? env->FindClass("sam3i/Sam3iException") : nullptr;
    jmethodID make = type ? env->GetMethodID(type, "<init>", "(I[B)V") : nullptr;
    if (!make) return false;
    auto raised = static_cast<jthrowable>(env->NewObject(type, make, static_cast<jint>(status), line));
    if (raised) env->Throw(raised);
    return false;
}

// A Java array of plain values, copied: the call may take a second, for which no array can be pinned.
template <class T>
std::vector<T> copied(JNIEnv* env, jarray array) {
    if (!array) return {};
    std::vector<T> values(static_cast<size_t>(env->GetArrayLength(array)));
    void* from = values.empty() ? nullptr : env->GetPrimitiveArrayCritical(array, nullptr);
    if (!from) return {};
    std::memcpy(values.data(), from, values.size() * sizeof(T));
    env->ReleasePrimitiveArrayCritical(array, from, JNI_ABORT);
    return values;
}

template <class T>
const T* data(const std::vector<T>& values) {
    return values.empty() ? nullptr : values.data();
}

template <class T>
T sized() {
    T value{};
    value.size = sizeof(T);
    return value;
}

// u and v in turn, as NV12 has them. A camera that keeps them so is read in place.
const uint8_t* interleaved(const uint8_t* u, const uint8_t* v, int32_t columns, int32_t rows, jlong stride,
                           jint pixel_stride, std::vector<uint8_t>& scratch) {
    if (pixel_stride == 2 && v == u + 1) return nullptr;
    scratch.resize(2 * static_cast<size_t>(columns) * static_cast<size_t>(rows));
    uint8_t* to = scratch.data();
    for (int32_t row = 0; row < rows; ++row) {
        const int64_t start = row * static_cast<int64_t>(stride);
        for (int32_t column = 0; column < columns; ++column) {
            const int64_t at = start + static_cast<int64_t>(column) * pixel_stride;
            *to++ = u[at];
            *to++ = v[at];
        }
    }
    return scratch.data();
}

}  // namespace

extern "C" {

JNIEXPORT jlong JNICALL Java_sam3i_Native_open(JNIEnv* env, jclass, jbyteArray bundle, jbyteArray device,
                                               jbyteArray precision, jbyteArray runtime, jbyteArray engine_cache,
                                               jint threads, jfloat threshold, jint instruction_cache) {
    const auto folder = copied<char>(env, bundle), on = copied<char>(env, device), at = copied<char>(env, precision),
               in = copied<char>(env, runtime), engines = copied<char>(env, engine_cache);
    sam3i_open_options options = SAM3I_OPEN_OPTIONS;
    options.threads = threads;
    options.device = data(on);
    options.precision = data(at);
    options.runtime = data(in);
    options.engine_cache = data(engines);
    options.threshold = threshold;
    options.instruction_cache = instruction_cache;
    sam3i_segmenter* segmenter = nullptr;
    passed(env, sam3i_open(data(folder), &options, &segmenter));
    return number(segmenter);
}

JNIEXPORT void JNICALL Java_sam3i_Native_close(JNIEnv*, jclass, jlong handle) {
    sam3i_close(pointer<sam3i_segmenter>(handle));
}

JNIEXPORT void JNICALL Java_sam3i_Native_info(JNIEnv* env, jclass, jlong handle, jintArray numbers,
                                              jfloatArray threshold, jobjectArray texts) {
    auto info = sized<sam3i_info>();
    if (!passed(env, sam3i_get_info(pointer<sam3i_segmenter>(handle), &info))) return;
    const jint values[] = {info.image_size, info.max_boxes, info.levels, info.threads};
    env->SetIntArrayRegion(numbers, 0, 4, values);
    env->SetFloatArrayRegion(threshold, 0, 1, &info.threshold);
    jsize place = 0;
    for (const char* text : {info.model, info.variant, info.device, info.runtime, info.runtime_version,
                             info.precision, info.note}) {
        jbyteArray made = bytes(env, text);
        if (!made) return;
        env->SetObjectArrayElement(texts, place++, made);
        env->DeleteLocalRef(made);
    }
}

JNIEXPORT jlong JNICALL Java_sam3i_Native_encode(JNIEnv* env, jclass, jlong handle, jint format, jobject first,
                                                 jobject u, jobject v, jint width, jint height, jlong stride,
                                                 jlong chroma_stride, jint chroma_pixel_stride, jint rotation) {
    sam3i_image image = SAM3I_IMAGE(static_cast<const uint8_t*>(env->GetDirectBufferAddress(first)), width, height,
                                    format);
    image.stride = stride;
    image.rotation = rotation;
    std::vector<uint8_t> scratch;
    if (u) {
        const auto* blue = static_cast<const uint8_t*>(env->GetDirectBufferAddress(u));
        const auto* red = static_cast<const uint8_t*>(env->GetDirectBufferAddress(v));
        image.chroma = interleaved(blue, red, width / 2, height / 2, chroma_stride, chroma_pixel_stride, scratch);
        image.chroma_stride = image.chroma ? width : chroma_stride;
        if (!image.chroma) image.chroma = blue;
    }
    sam3i_scene* scene = nullptr;
    passed(env, sam3i_encode(pointer<sam3i_segmenter>(handle), &image, &scene));
    return number(scene);
}

JNIEXPORT void JNICALL Java_sam3i_Native_closeScene(JNIEnv*, jclass, jlong handle) {
    sam3i_scene_close(pointer<sam3i_scene>(handle));
}

JNIEXPORT jlong JNICALL Java_sam3i_Native_segment(JNIEnv* env, jclass, jlong handle, jbyteArray instruction,
                                                  jint level, jdoubleArray boxes, jintArray labels,
                                                  jfloat threshold, jdouble suppress) {
    const auto text = copied<char>(env, instruction);
    const auto corners = copied<double>(env, boxes);
    const auto around = copied<int32_t>(env, labels);
    sam3i_question question = SAM3I_QUESTION(data(text));
    question.level = level;
    question.boxes = data(corners);
    question.box_labels = data(around);
    question.box_count = static_cast<int32_t>(around.size());
    question.threshold = threshold;
    question.suppress = suppress;
    sam3i_result* result = nullptr;
    passed(env, sam3i_segment(pointer<sam3i_scene>(handle), &question, &result));
    return number(result);
}

JNIEXPORT void JNICALL Java_sam3i_Native_closeResult(JNIEnv*, jclass, jlong handle) {
    sam3i_result_close(pointer<sam3i_result>(handle));
}

JNIEXPORT void JNICALL Java_sam3i_Native_answer(JNIEnv* env, jclass, jlong handle, jintArray numbers,
                                                jfloatArray threshold, jdoubleArray measured) {
    auto answer = sized<sam3i_answer>();
    if (!passed(env, sam3i_result_answer(pointer<sam3i_result>(handle), &answer))) return;
    const jint values[] = {answer.count,      answer.width,      answer.height,   answer.level,
                           answer.level_auto, answer.tokens_cut, answer.truncated};
    env->SetIntArrayRegion(numbers, 0, 7, values);
    env->SetFloatArrayRegion(threshold, 0, 1, &answer.threshold);
    const jdouble took[] = {answer.presence,        answer.preprocess_ms, answer.encode_image_ms,
                            answer.encode_text_ms,  answer.encode_boxes_ms, answer.detect_ms,
                            answer.postprocess_ms,  answer.total_ms};
    env->SetDoubleArrayRegion(measured, 0, 8, took);
}

JNIEXPORT void JNICALL Java_sam3i_Native_instance(JNIEnv* env, jclass, jlong handle, jint index,
                                                  jfloatArray values) {
    auto instance = sized<sam3i_instance>();
    if (!passed(env, sam3i_result_instance(pointer<sam3i_result>(handle), index, &instance))) return;
    env->SetFloatArrayRegion(values, 0, 1, &instance.score);
    env->SetFloatArrayRegion(values, 1, 4, instance.box);
}

JNIEXPORT jintArray JNICALL Java_sam3i_Native_mask(JNIEnv* env, jclass, jlong handle, jint index, jintArray bbox,
                                                   jlongArray area) {
    auto mask = sized<sam3i_mask>();
    if (!passed(env, sam3i_result_mask(pointer<sam3i_result>(handle), index, &mask))) return nullptr;
    env->SetIntArrayRegion(bbox, 0, 4, mask.bbox);
    const jlong pixels = mask.area;
    env->SetLongArrayRegion(area, 0, 1, &pixels);
    const auto length = static_cast<jsize>(mask.count);
    jintArray counts = env->NewIntArray(length);
    // A picture has at most 64 million pixels, so that no run reaches the sign.
    if (counts) env->SetIntArrayRegion(counts, 0, length, reinterpret_cast<const jint*>(mask.counts));
    return counts;
}

JNIEXPORT void JNICALL Java_sam3i_Native_bitmap(JNIEnv* env, jclass, jlong handle, jint index, jbyte inside,
                                                jbyteArray bitmap) {
    jbyte* to = env->GetByteArrayElements(bitmap, nullptr);
    if (!to) return;
    const int32_t status = sam3i_result_bitmap(pointer<sam3i_result>(handle), index, static_cast<uint8_t>(inside),
                                               reinterpret_cast<uint8_t*>(to), 0, env->GetArrayLength(bitmap));
    env->ReleaseByteArrayElements(bitmap, to, 0);
    passed(env, status);
}

JNIEXPORT jobjectArray JNICALL Java_sam3i_Native_polygons(JNIEnv* env, jclass, jlong handle, jint index) {
    auto found = sized<sam3i_polygons>();
    if (!passed(env, sam3i_result_polygons(pointer<sam3i_result>(handle), index, &found))) return nullptr;
    const jsize rings = found.ring_count;
    jintArray starts = env->NewIntArray(rings + 1);
    if (!starts) return nullptr;
    env->SetIntArrayRegion(starts, 0, rings + 1, found.starts);
    jbyteArray hole = env->NewByteArray(rings);
    if (!hole) return nullptr;
    env->SetByteArrayRegion(hole, 0, rings, reinterpret_cast<const jbyte*>(found.hole));
    const jsize length = 2 * found.starts[rings];
    jfloatArray points = env->NewFloatArray(length);
    if (!points) return nullptr;
    env->SetFloatArrayRegion(points, 0, length, found.points);
    jclass type = env->FindClass("java/lang/Object");
    jobjectArray parts = type ? env->NewObjectArray(3, type, nullptr) : nullptr;
    if (!parts) return nullptr;
    env->SetObjectArrayElement(parts, 0, starts);
    env->SetObjectArrayElement(parts, 1, hole);
    env->SetObjectArrayElement(parts, 2, points);
    return parts;
}

}  // extern "C"
