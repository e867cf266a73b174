// The files that an ONNX graph reads beside its own, found without a runtime; sam3i_edge/bundle/data_files.py.

#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "bundle.hpp"

namespace sam3i::core {

namespace {

constexpr std::string_view kKey = "location";

// Messages of onnx.proto that lead to the names of external data.
enum class Message { none, model, training, graph, function, node, attribute, sparse, tensor, entry };

Message inner(Message message, uint64_t field) {
    switch (message) {
        case Message::model:
            return field == 7    ? Message::graph
                   : field == 20 ? Message::training
                   : field == 25 ? Message::function
                                 : Message::none;
        case Message::training:
            return field == 1 || field == 2 ? Message::graph : Message::none;
        case Message::graph:
            return field == 1    ? Message::node
                   : field == 5  ? Message::tensor
                   : field == 15 ? Message::sparse
                                 : Message::none;
        case Message::function:
            return field == 7 ? Message::node : field == 11 ? Message::attribute : Message::none;
        case Message::node:
            return field == 5 ? Message::attribute : Message::none;
        case Message::attribute:
            return field == 5 || field == 10    ? Message::tensor
                   : field == 6 || field == 11  ? Message::graph
                   : field == 22 || field == 23 ? Message::sparse
                                                : Message::none;
        case Message::sparse:
            return field == 1 || field == 2 ? Message::tensor : Message::none;
        case Message::tensor:
            return field == 13 ? Message::entry : Message::none;
        default:
            return Message::none;
    }
}

uint64_t read_number(std::string_view bytes, size_t& at) {
    uint64_t value = 0;
    const size_t first = at;
    for (int shift = 0; shift < 64 && at < bytes.size(); shift += 7) {
        const auto byte = static_cast<unsigned char>(bytes[at++]);
        value |= static_cast<uint64_t>(byte & 127) << shift;
        if (byte < 128) return value;
    }
    throw std::invalid_argument("it is cut, or no ONNX file: byte " + std::to_string(first) + " ends no number");
}

// Calls `visit(field, content)` for the fields that have a length: strings and messages.
template <class Visit>
void each_field(std::string_view bytes, Visit visit) {
    for (size_t at = 0; at < bytes.size();) {
        const uint64_t tag = read_number(bytes, at), kind = tag & 7;
        if (kind == 0) {
            read_number(bytes, at);
            continue;
        }
        if (kind != 1 && kind != 2 && kind != 5) {
            throw std::invalid_argument("it is no ONNX file, byte " + std::to_string(at) +
                                        " begins a field of kind " + std::to_string(kind));
        }
        const uint64_t size = kind == 2 ? read_number(bytes, at) : kind == 1 ? 8 : 4;
        if (size > bytes.size() - at) {
            throw std::invalid_argument("it is cut, or no ONNX file: " + std::to_string(size) +
                                        " bytes wanted after byte " + std::to_string(at));
        }
        if (kind == 2) visit(tag >> 3, bytes.substr(at, size));
        at += size;
    }
}

}  // namespace

std::set<std::string> external_data(std::string_view content) {
    std::set<std::string> found;
    std::vector<std::pair<Message, std::string_view>> parts{{Message::model, content}};
    while (!parts.empty()) {
        const auto [message, bytes] = parts.back();
        parts.pop_back();
        each_field(bytes, [&, message = message](uint64_t field, std::string_view part) {
            const Message next = inner(message, field);
            if (next == Message::entry) {
                std::string_view key, value;
                each_field(part, [&](uint64_t number, std::string_view text) { (number == 1 ? key : value) = text; });
                if (key == kKey) found.emplace(value);
            } else if (next != Message::none && part.find(kKey) != std::string_view::npos) {
                parts.emplace_back(next, part);  // what does not hold the key at all need not be walked
            }
        });
    }
    return found;
}

}  // namespace sam3i::core
