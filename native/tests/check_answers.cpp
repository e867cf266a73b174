// Repeats what Python answered (tests/native/recorded.py) through sam3i.hpp: counts, levels, scores to 1e-6, boxes to
// 1e-3 px, and run lengths, bitmaps and polygons that are equal.

#include <cmath>

#include "fixtures.hpp"
#include "sam3i.hpp"

namespace {

using nlohmann::json;

constexpr const char* kLevels[] = {"concept", "simple", "complex"};

int32_t level_of(const json& question) {
    if (!question.contains("level")) return SAM3I_AUTO;
    for (int32_t level = 0; level < 3; ++level) {
        if (question.at("level") == kLevels[level]) return level;
    }
    std::abort();
}

void compare_mask(fixtures::Check& check, const sam3i::Instance& found, const json& wanted, const json& answer,
                  const std::string& where) {
    const sam3i_mask mask = found.mask();
    const std::vector<uint32_t> counts(mask.counts, mask.counts + mask.count);
    check(json(counts) == wanted.at("counts"), where + ": run lengths differ");
    check(mask.area == wanted.at("area"), where + ": area");
    check(json(std::vector<int32_t>(mask.bbox, mask.bbox + 4)) == wanted.at("bbox"), where + ": bbox");
    const std::vector<uint8_t> bitmap = found.bitmap(1);
    const size_t width = answer.at("width"), height = answer.at("height");
    size_t run = 0, left = counts[0], differing = 0;
    for (size_t at = 0; at < width * height; ++at) {
        while (left == 0) left = counts[++run];
        --left;
        differing += bitmap[at % height * width + at / height] != run % 2;
    }
    check(differing == 0, where + ": bitmap");
    json polygons = json::array();
    for (const auto& polygon : found.polygons()) {
        json rings = json::array({polygon.exterior});
        for (const auto& hole : polygon.holes) rings.push_back(hole);
        polygons.push_back(rings);
    }
    check(polygons == wanted.at("polygons"), where + ": polygons");
}

void compare(fixtures::Check& check, const sam3i::Scene& scene, const json& asked, const std::string& where) {
    const json &question = asked.at("question"), &wanted = asked.at("answer");
    std::string text;
    std::vector<double> boxes;
    std::vector<int32_t> labels;
    sam3i_question given = SAM3I_QUESTION(nullptr);
    if (!question.at("instruction").is_null()) {
        text = question.at("instruction").get<std::string>();
        given.instruction = text.c_str();
    }
    given.level = level_of(question);
    given.threshold = question.value("threshold", -1.0f);
    given.suppress = question.value("suppress", -1.0);
    if (question.contains("boxes")) {
        for (const auto& box : question.at("boxes")) boxes.insert(boxes.end(), box.begin(), box.end());
        labels = question.at("box_labels").get<std::vector<int32_t>>();
        given.boxes = boxes.data(), given.box_labels = labels.data();
        given.box_count = static_cast<int32_t>(labels.size());
    }
    const sam3i::Result result = scene.segment(given);
    const sam3i_answer answer = result.answer();
    check(kLevels[answer.level] == wanted.at("level"), where + ": level");
    check((answer.level_auto == 1) == wanted.at("level_auto"), where + ": who chose the level");
    check(answer.tokens_cut == wanted.at("tokens_cut"), where + ": tokens_cut");
    check((answer.truncated == 1) == wanted.at("truncated"), where + ": truncated");
    check(answer.width == wanted.at("width") && answer.height == wanted.at("height"), where + ": size");
    check(std::fabs(answer.presence - wanted.at("presence").get<double>()) <= 1e-6, where + ": presence");
    const json& instances = wanted.at("instances");
    const auto found = result.instances();
    if (!check(found.size() == instances.size(), where + ": " + std::to_string(found.size()) + " instances, want " +
                                                     std::to_string(instances.size()))) {
        return;
    }
    for (size_t i = 0; i < found.size(); ++i) {
        const json& one = instances[i];
        const std::string place = where + ", instance " + std::to_string(i);
        check(std::fabs(found[i].score - one.at("score").get<float>()) <= 1e-6f, place + ": score");
        for (size_t side = 0; side < 4; ++side) {
            check(std::fabs(found[i].box[side] - one.at("box")[side].get<float>()) <= 1e-3f, place + ": box");
        }
        compare_mask(check, found[i], one, wanted, place);
    }
}

}  // namespace

int main(int argc, char** argv) try {
    fixtures::Check check;
    long questions = 0, instances = 0;
    for (const auto& entry : std::filesystem::directory_iterator(fixtures::folder() / "answers")) {
        const std::string name = entry.path().stem().string();
        if (entry.path().extension() != ".json" || (argc > 1 && name != argv[1])) continue;
        const json fixture = fixtures::json(entry.path());
        const std::string runtime = fixture.at("runtime"), precision = fixture.at("precision");
        sam3i_open_options options = SAM3I_OPEN_OPTIONS;
        options.runtime = runtime.c_str();
        options.precision = precision.c_str();
        options.threads = 1;
        const sam3i::Segmenter segmenter(fixture.at("bundle").get<std::string>(), options);
        check(segmenter.info().runtime == runtime && segmenter.info().precision == precision, name + ": what runs");
        for (const json& picture : fixture.at("pictures")) {
            const std::string bytes =
                fixtures::content(entry.path().parent_path() / picture.at("file").get<std::string>());
            const sam3i::Scene scene = segmenter.encode(sam3i::image(
                reinterpret_cast<const uint8_t*>(bytes.data()), picture.at("width"), picture.at("height"),
                picture.at("format"), picture.at("stride"), picture.at("rotation")));
            for (const json& asked : picture.at("questions")) {
                compare(check, scene, asked,
                        name + ' ' + picture.at("file").get<std::string>() + ' ' + asked.at("question").dump());
                instances += static_cast<long>(asked.at("answer").at("instances").size());
                ++questions;
            }
        }
    }
    std::printf("%ld questions, %ld instances\n", questions, instances);
    return check.finish("answers", 100) + (instances == 0);
} catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
}
