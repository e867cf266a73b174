// Bad bundles and bad arguments: each is refused with its status and a line that names what is wrong.

#include <cmath>
#include <functional>

#include "fixtures.hpp"
#include "sam3i.hpp"

namespace {

using nlohmann::json;
namespace fs = std::filesystem;

void expect(fixtures::Check& check, int32_t status, int32_t wanted, const std::string& words,
            const std::string& what) {
    const std::string line = status == SAM3I_OK ? "" : sam3i_last_error();
    check(status == wanted && (wanted == SAM3I_OK || line.find(words) != std::string::npos) &&
              line.find('\n') == std::string::npos,
          what + ": status " + std::to_string(status) + ", \"" + line + "\"; want " + std::to_string(wanted) +
              " and \"" + words + '"');
}

int32_t open_status(const fs::path& bundle, const sam3i_open_options* options = nullptr) {
    sam3i_segmenter* opened = nullptr;
    const int32_t status = sam3i_open(bundle.string().c_str(), options, &opened);
    sam3i_close(opened);
    return status;
}

void write(const fs::path& path, const std::string& content) {
    std::ofstream(path, std::ios::binary | std::ios::trunc) << content;
}

// Copies the bundle, changes something, and expects a refusal.
void damaged(fixtures::Check& check, const std::string& words, const std::function<void(const fs::path&)>& change) {
    const fs::path copy = fixtures::folder() / "damaged";
    fs::remove_all(copy);
    fs::copy(fixtures::folder() / "tiny", copy, fs::copy_options::recursive);
    change(copy);
    expect(check, open_status(copy), SAM3I_BAD_BUNDLE, words, words);
    fs::remove_all(copy);
}

void manifest(fixtures::Check& check, const std::string& words, const std::function<void(json&)>& change) {
    damaged(check, words, [&](const fs::path& root) {
        json content = fixtures::json(root / "bundle.json");
        change(content);
        write(root / "bundle.json", content.dump());
    });
}

void check_bundles(fixtures::Check& check) {
    const std::string graph = "onnx-fp32/detector.onnx";
    damaged(check, "a folder without bundle.json", [](const fs::path& root) { fs::remove(root / "bundle.json"); });
    damaged(check, "is damaged or no manifest",
            [](const fs::path& root) { write(root / "bundle.json", "{\"a\": "); });
    damaged(check, "is damaged or no manifest", [](const fs::path& root) { write(root / "bundle.json", "[1]"); });
    damaged(check, "is damaged or no manifest",
            [](const fs::path& root) { write(root / "bundle.json", std::string(100'000, '[')); });
    damaged(check, "is missing", [&](const fs::path& root) { fs::remove(root / graph); });
    damaged(check, "was changed, its sha256", [&](const fs::path& root) {
        std::string content = fixtures::content(root / graph);
        content[content.size() / 2] ^= 1;
        write(root / graph, content);
    });
    damaged(check, "bytes, want", [&](const fs::path& root) { write(root / graph, "short"); });
    damaged(check, "is a link that leaves the bundle", [&](const fs::path& root) {
        fs::remove(root / graph);
        fs::create_symlink(fixtures::folder() / "tiny" / graph, root / graph);
    });
    damaged(check, "was changed", [&](const fs::path& root) {
        std::string content = fixtures::content(root / "tokenizer.json");
        content[content.size() / 2] ^= 1;
        write(root / "tokenizer.json", content);
    });
    manifest(check, "has schema version 2, this library reads up to 1",
             [](json& content) { content["schema_version"] = 2; });
    manifest(check, "schema_version", [](json& content) { content["schema_version"] = "1"; });
    manifest(check, "schema_version: Field required", [](json& content) { content.erase("schema_version"); });
    manifest(check, "extra: no such field", [](json& content) { content["extra"] = 1; });
    manifest(check, "tokenizer.extra: no such field", [](json& content) { content["tokenizer"]["extra"] = 1; });
    manifest(check, "preprocessing.image_size", [](json& content) { content["preprocessing"]["image_size"] = 5000; });
    manifest(check, "preprocessing.image_size", [](json& content) { content["preprocessing"]["image_size"] = 32.5; });
    manifest(check, "preprocessing.std[1]", [](json& content) { content["preprocessing"]["std"] = {1, 0, 1}; });
    manifest(check, "tokenizer.context_length", [](json& content) { content["tokenizer"]["context_length"] = -1; });
    manifest(check, "id 16000000 is outside the vocabulary",
             [](json& content) { content["tokenizer"]["end_id"] = 16000000; });
    manifest(check, "thresholds.score", [](json& content) { content["thresholds"]["score"] = 1.5; });
    manifest(check, "leaves the bundle or is not plain",
             [](json& content) { content["files"]["../x"] = content["files"]["LICENSE"]; });
    manifest(check, "leaves the bundle or is not plain",
             [](json& content) { content["files"]["/x"] = content["files"]["LICENSE"]; });
    manifest(check, "must be 64 hexadecimal digits",
             [](json& content) { content["files"]["LICENSE"]["sha256"] = "0"; });
    manifest(check, "which `files` does not list", [](json& content) { content["files"].erase("LICENSE"); });
    manifest(check, "lacks the graph detector",
             [](json& content) { content["variants"]["onnx-fp32"]["graphs"].erase("detector"); });
    manifest(check, "takes 3 boxes and lacks box_encoder",
             [](json& content) { content["variants"]["onnx-fp32"]["boxes"] = 3; });
    manifest(check, "has no variant for",
             [](json& content) { content["variants"]["onnx-fp32"]["runtime"] = "coreml"; });
    manifest(check, "has no file", [](json& content) {  // the data beside a graph is verified too
        const json files = content["files"];
        for (const auto& [name, _] : files.items()) {
            if (name.find(".data") != std::string::npos) content["files"].erase(name);
        }
    });
    manifest(check, "cannot open", [](json& content) {  // a graph that is none
        content["variants"]["onnx-fp32"]["graphs"]["detector"] = "LICENSE";
    });
}

void check_options(fixtures::Check& check, const fs::path& tiny) {
    const auto with = [&](auto change, int32_t status, const std::string& words) {
        sam3i_open_options options = SAM3I_OPEN_OPTIONS;
        change(options);
        expect(check, open_status(tiny, &options), status, words, words);
    };
    with([](auto& options) { options.runtime = "tensorflow"; }, SAM3I_UNAVAILABLE,
         "runtime 'tensorflow' is not in this");
    with([](auto& options) { options.device = "gpu"; }, SAM3I_UNAVAILABLE, "unknown device 'gpu'");
    with([](auto& options) { options.device = "jetson"; }, SAM3I_UNAVAILABLE, "jetson");
    with(
        [](auto& options) {
            options.precision = "fp16";
            options.device = "cpu";
        },
        SAM3I_UNAVAILABLE, "does not run fp16");
    with([](auto& options) { options.precision = "int4"; }, SAM3I_BAD_BUNDLE, "at int4; it has onnx-fp32");
    with([](auto& options) { options.threshold = 1.5f; }, SAM3I_INVALID_ARGUMENT,
         "threshold must be 0 to 1, got 1.5");
    with([](auto& options) { options.threshold = NAN; }, SAM3I_INVALID_ARGUMENT, "threshold must be 0 to 1");
    with([](auto& options) { options.threads = -1; }, SAM3I_INVALID_ARGUMENT, "threads");
}

void check_images(fixtures::Check& check, sam3i_segmenter* segmenter) {
    const std::vector<uint8_t> pixels(64);
    const auto with = [&](auto change, int32_t status, const std::string& words) {
        sam3i_image image = SAM3I_IMAGE(pixels.data(), 4, 4, SAM3I_RGB);
        change(image);
        sam3i_scene* scene = nullptr;
        expect(check, sam3i_encode(segmenter, &image, &scene), status, words, words);
        sam3i_scene_close(scene);
    };
    with([](auto& image) { image.data = nullptr; }, SAM3I_INVALID_ARGUMENT, "image->data is NULL");
    with([](auto& image) { image.size = 0; }, SAM3I_INVALID_ARGUMENT, "image->size is 0");
    with([](auto& image) { image.width = 0; }, SAM3I_BAD_IMAGE, "0 x 4 pixels, nothing to segment");
    with([](auto& image) { image.height = -3; }, SAM3I_BAD_IMAGE, "nothing to segment");
    with([](auto& image) { image.width = image.height = INT32_MAX; }, SAM3I_BAD_IMAGE, "over 64 megapixels");
    with([](auto& image) { image.stride = 11; }, SAM3I_BAD_IMAGE, "stride is 11 bytes, a row of 4 pixels has 12");
    with([](auto& image) { image.format = 9; }, SAM3I_INVALID_ARGUMENT, "format is 9");
    with([](auto& image) { image.rotation = 45; }, SAM3I_INVALID_ARGUMENT, "rotation is 45");
    with([](auto& image) { image.rotation = -90; }, SAM3I_INVALID_ARGUMENT, "rotation is -90");
    with([](auto& image) { image.format = SAM3I_NV12, image.width = 3; }, SAM3I_BAD_IMAGE, "NV12");
    with([](auto&) {}, SAM3I_OK, "");
}

void check_questions(fixtures::Check& check, sam3i_scene* scene, bool takes_boxes) {
    const double box[] = {0, 0, 2, 2}, empty[] = {2, 0, 2, 2}, outside[] = {0, 0, 5, 2}, odd[] = {0, 0, NAN, 2};
    const double many[16] = {0, 0, 2, 2, 0, 0, 2, 2, 0, 0, 2, 2, 0, 0, 2, 2};
    const int32_t label = 2;
    const std::string words_2001 = [] {
        std::string text;
        for (int i = 0; i < 2001; ++i) text += "a ";
        return text;
    }();
    const std::string long_text(10'001, 'x');
    const auto with = [&](auto change, int32_t status, const std::string& words) {
        sam3i_question question = SAM3I_QUESTION("star");
        change(question);
        sam3i_result* result = nullptr;
        expect(check, sam3i_segment(scene, &question, &result), status, words, words);
        sam3i_result_close(result);
    };
    with([](auto& question) { question.size = 1; }, SAM3I_INVALID_ARGUMENT, "question->size is 1");
    with([](auto& question) { question.instruction = nullptr; }, SAM3I_BAD_INSTRUCTION,
         "neither an instruction nor a box");
    with([](auto& question) { question.instruction = " \n "; }, SAM3I_BAD_INSTRUCTION, "the instruction is empty");
    with([](auto& question) { question.instruction = "st\xC3"; }, SAM3I_BAD_INSTRUCTION, "no UTF-8 at byte 2");
    with([](auto& question) { question.instruction = "\xED\xA0\x80"; }, SAM3I_BAD_INSTRUCTION, "no UTF-8 at byte 0");
    with([&](auto& question) { question.instruction = long_text.c_str(); }, SAM3I_BAD_INSTRUCTION,
         "10,001 characters");
    with([&](auto& question) { question.instruction = words_2001.c_str(); }, SAM3I_BAD_INSTRUCTION, "2,001 words");
    with([](auto& question) { question.level = 7; }, SAM3I_INVALID_ARGUMENT, "level is 7");
    with([](auto& question) { question.threshold = 2; }, SAM3I_INVALID_ARGUMENT, "threshold must be 0 to 1, got 2");
    with([](auto& question) { question.suppress = NAN; }, SAM3I_INVALID_ARGUMENT, "suppress must be 0 to 1");
    with([](auto& question) { question.box_count = -1; }, SAM3I_INVALID_ARGUMENT, "box_count is -1");
    with([&](auto& question) { question.box_labels = &label; }, SAM3I_INVALID_ARGUMENT,
         "box_labels say what boxes mean");
    with([](auto& question) { question.box_count = 1; }, SAM3I_INVALID_ARGUMENT, "boxes is NULL");
    const auto boxed = [&](const double* boxes, int32_t count, const std::string& words,
                           const int32_t* labels = nullptr) {
        with(
            [&](auto& question) { question.boxes = boxes, question.box_count = count, question.box_labels = labels; },
            SAM3I_INVALID_ARGUMENT, takes_boxes ? words : "takes no boxes");
    };
    boxed(empty, 1, "boxes[0] (2, 0, 2, 2) is empty");
    boxed(outside, 1, "leaves the image of 4 x 4");
    boxed(odd, 1, "is not finite");
    boxed(many, 4, "got 4 boxes, model 'tiny' takes at most 3");
    boxed(box, 1, "box_labels[0] is 2", &label);
    if (takes_boxes) {
        with(
            [&](auto& question) {
                question = SAM3I_QUESTION(nullptr), question.boxes = box, question.box_count = 1,
                question.level = SAM3I_SIMPLE;
            },
            SAM3I_INVALID_ARGUMENT, "boxes without an instruction are asked at level concept");
    }
}

void check_results(fixtures::Check& check, sam3i_scene* scene) {
    sam3i_question question = SAM3I_QUESTION("star");
    question.threshold = 0.0f;
    sam3i_result* result = nullptr;
    expect(check, sam3i_segment(scene, &question, &result), SAM3I_OK, "", "an answer");
    auto answer = sam3i::detail::sized<sam3i_answer>();
    auto mask = sam3i::detail::sized<sam3i_mask>();
    auto instance = sam3i::detail::sized<sam3i_instance>();
    std::vector<uint8_t> bitmap(16);
    expect(check, sam3i_result_answer(result, &answer), SAM3I_OK, "", "answer");
    check(answer.count > 0, "the tiny model finds something at threshold 0");
    expect(check, sam3i_result_answer(result, nullptr), SAM3I_INVALID_ARGUMENT, "answer is NULL", "no answer");
    for (const int32_t index : {-1, answer.count, INT32_MAX}) {
        expect(check, sam3i_result_instance(result, index, &instance), SAM3I_INVALID_ARGUMENT, "index is", "index");
        expect(check, sam3i_result_mask(result, index, &mask), SAM3I_INVALID_ARGUMENT, "index is", "index");
    }
    mask.size = 0;
    expect(check, sam3i_result_mask(result, 0, &mask), SAM3I_INVALID_ARGUMENT, "mask->size is 0", "size");
    const auto draw = [&](uint8_t* to, int64_t stride, int64_t bytes) {
        return sam3i_result_bitmap(result, 0, 1, to, stride, bytes);
    };
    expect(check, draw(nullptr, 0, 16), SAM3I_INVALID_ARGUMENT, "bitmap is NULL", "bitmap");
    expect(check, draw(bitmap.data(), 3, 16), SAM3I_INVALID_ARGUMENT, "stride is 3", "stride");
    expect(check, draw(bitmap.data(), -4, 16), SAM3I_INVALID_ARGUMENT, "stride is -4", "stride");
    expect(check, draw(bitmap.data(), 0, 15), SAM3I_CAPACITY, "bitmap has 15 bytes, want at least 3 * 4 + 4", "bytes");
    expect(check, draw(bitmap.data(), INT64_MAX, 16), SAM3I_CAPACITY, "want at least", "a huge stride");
    expect(check, draw(bitmap.data(), 0, 16), SAM3I_OK, "", "bitmap");
    sam3i_result_close(result);
}

// A graph that takes another size than the manifest says: found when it is asked.
void check_misfit(fixtures::Check& check, const sam3i_image& image) {
    const fs::path copy = fixtures::folder() / "misfit";
    fs::remove_all(copy);
    fs::copy(fixtures::folder() / "tiny", copy, fs::copy_options::recursive);
    json content = fixtures::json(copy / "bundle.json");
    content["preprocessing"]["image_size"] = 64;
    write(copy / "bundle.json", content.dump());
    sam3i_segmenter* segmenter = nullptr;
    sam3i_scene* scene = nullptr;
    expect(check, sam3i_open(copy.string().c_str(), nullptr, &segmenter), SAM3I_OK, "", "misfit");
    expect(check, sam3i_encode(segmenter, &image, &scene), SAM3I_BAD_BUNDLE,
           "do not fit together: image_encoder: input 'pixel_values' is float32 [1, 3, 64, 64]", "misfit");
    sam3i_close(segmenter);
    fs::remove_all(copy);
}

}  // namespace

int main() try {
    fixtures::Check check;
    check_bundles(check);
    check_options(check, fixtures::folder() / "tiny");
    const std::vector<uint8_t> pixels(48, 100);
    const sam3i_image image = SAM3I_IMAGE(pixels.data(), 4, 4, SAM3I_RGB);
    check_misfit(check, image);
    for (const char* name : {"tiny", "tiny-boxes"}) {
        sam3i_segmenter* segmenter = nullptr;
        sam3i_scene* scene = nullptr;
        expect(check, sam3i_open((fixtures::folder() / name).string().c_str(), nullptr, &segmenter), SAM3I_OK, "",
               name);
        expect(check, sam3i_encode(segmenter, &image, &scene), SAM3I_OK, "", name);
        check_images(check, segmenter);
        check_questions(check, scene, std::string(name) == "tiny-boxes");
        check_results(check, scene);
        sam3i_close(segmenter);  // handles may go in any order, and a scene says so
        const sam3i_question question = SAM3I_QUESTION("star");
        sam3i_result* result = nullptr;
        expect(check, sam3i_segment(scene, &question, &result), SAM3I_UNAVAILABLE, "was closed", "closed");
        sam3i_scene_close(scene);
    }
    return check.finish("refusals", 100);
} catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
}
