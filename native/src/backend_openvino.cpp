// OpenVINO: on CPUs, and on Intel's GPUs and NPUs. As in runtimes/ov.py the precision is pinned, and what would
// quantize activations by itself is off; what the compiled graph really uses is read back.

#include <openvino/openvino.hpp>

#include <algorithm>
#include <cstring>

#include "backend.hpp"
#include "error.hpp"

namespace sam3i::core {

namespace {

// It stays until the process ends: a CPU device that goes puts back a signal stack that may be freed.
ov::Core& core() {
    static auto* shared = new ov::Core();
    return *shared;
}

std::string version() {
    const std::string build = ov::get_openvino_version().buildNumber;
    return build.substr(0, build.find('-'));
}

const char* target_of(const std::string& device) {
    if (device == "cpu") return "CPU";
    if (device == "intel-gpu") return "GPU";
    if (device == "intel-npu") return "NPU";
    return nullptr;
}

bool is_kind(const std::string& found, const std::string& kind) {
    return found.substr(0, found.find('.')) == kind;
}

std::string missing(const std::string& device) {
    const char* target = target_of(device);
    if (target == nullptr) return "openvino runs on cpu, intel-gpu and intel-npu, not on '" + device + "'";
    std::string names;
    for (const auto& name : core().get_available_devices()) {
        if (is_kind(name, target)) return "";
        names += (names.empty() ? "" : ", ") + name;
    }
    return "openvino " + version() + " finds " + (names.empty() ? "no device" : names) + " here and no " + target +
           ": install the device's driver, or ask for device cpu";
}

Type type_of(const ov::element::Type& type) {
    if (type == ov::element::f32) return Type::float32;
    if (type == ov::element::i64) return Type::int64;
    if (type == ov::element::boolean) return Type::boolean;
    throw std::runtime_error("a value is " + type.get_type_name() + ", want f32, i64 or boolean");
}

ov::element::Type element_of(Type type) {
    return type == Type::float32 ? ov::element::f32 : type == Type::int64 ? ov::element::i64 : ov::element::boolean;
}

class OpenVinoGraph : public Graph {
public:
    explicit OpenVinoGraph(ov::CompiledModel model)
        : model_(std::move(model)), request_(model_.create_infer_request()) {
        for (const auto& port : model_.inputs()) inputs_[port.get_any_name()] = slot(port);
        // An output may have several names, and the first that it gives need not be the graph's own.
        for (const auto& port : model_.outputs()) {
            for (const auto& name : port.get_names()) outputs_[name] = slot(port);
        }
    }

    const std::map<std::string, Slot>& inputs() const override { return inputs_; }
    const std::map<std::string, Slot>& outputs() const override { return outputs_; }

    Arrays run(const Arrays& inputs) override {
        for (const auto& [name, array] : inputs) {
            request_.set_tensor(name,
                                ov::Tensor(element_of(array.type), ov::Shape(array.shape.begin(), array.shape.end()),
                                           const_cast<void*>(array.data.get())));
        }
        request_.infer();
        Arrays found;
        for (const auto& port : model_.outputs()) {
            const ov::Tensor tensor = request_.get_tensor(port);
            const std::shared_ptr<char[]> copy(new char[tensor.get_byte_size()]);  // the next run writes there again
            std::memcpy(copy.get(), tensor.data(), tensor.get_byte_size());
            const ov::Shape& shape = tensor.get_shape();
            for (const auto& name : port.get_names()) {
                found[name] = {type_of(tensor.get_element_type()),
                               {shape.begin(), shape.end()},
                               std::shared_ptr<const void>(copy, copy.get())};
            }
        }
        return found;
    }

private:
    static Slot slot(const ov::Output<const ov::Node>& port) {
        const ov::Shape& shape = port.get_shape();
        return {type_of(port.get_element_type()), {shape.begin(), shape.end()}};
    }

    ov::CompiledModel model_;
    ov::InferRequest request_;
    std::map<std::string, Slot> inputs_, outputs_;
};

std::string one_line(std::string text) {
    std::replace(text.begin(), text.end(), '\n', ' ');
    return text.substr(0, text.find_last_not_of(' ') + 1);
}

std::shared_ptr<ov::Model> read(const std::filesystem::path& path) {
    try {
        auto model = core().read_model(path.u8string());
        if (model->is_dynamic()) throw std::runtime_error("it has shapes that are not static");
        return model;
    } catch (const std::exception& error) {
        throw Error(SAM3I_BAD_BUNDLE, "openvino cannot open " + path.u8string() + ": " + one_line(error.what()));
    }
}

std::unique_ptr<Graph> open(const std::filesystem::path& path, const GraphOptions& wanted) {
    const auto model = read(path);
    const std::string target = target_of(wanted.device);
    const std::string exported = model->has_rt_info({"sam3i_edge", "precision"})
                                     ? model->get_rt_info<std::string>("sam3i_edge", "precision")
                                     : "fp32";
    if (target == "NPU" && exported == "fp32") {
        throw Error(SAM3I_UNAVAILABLE,
                    "device intel-npu computes in float16 and this is fp32: ask for precision fp16");
    }
    try {
        const bool bf16 = exported.size() > 5 && exported.compare(exported.size() - 5, 5, "-bf16") == 0;
        const bool wide = target == "CPU" || (target != "NPU" && exported == "fp32");
        const auto precision = bf16 ? ov::element::bf16 : wide ? ov::element::f32 : ov::element::f16;
        const auto able = core().get_property(target, ov::device::capabilities);
        if (bf16 && std::find(able.begin(), able.end(), "BF16") == able.end()) {
            throw Error(SAM3I_UNAVAILABLE, exported + " wants a processor with bfloat16 instructions, and openvino " +
                                               version() + " finds none on " + target);
        }
        ov::AnyMap settings{ov::hint::performance_mode(ov::hint::PerformanceMode::LATENCY),
                            ov::hint::inference_precision(precision)};
        if (target == "CPU") settings.insert(ov::inference_num_threads(wanted.threads));
        const auto known = core().get_property(target, ov::supported_properties);
        const auto group = ov::hint::dynamic_quantization_group_size.name();
        const bool groups = std::find(known.begin(), known.end(), group) != known.end();
        if (groups) settings.insert(ov::hint::dynamic_quantization_group_size(0));
        ov::CompiledModel compiled = core().compile_model(model, target, settings);
        const auto used = compiled.get_property(ov::hint::inference_precision);
        if (used != precision || (groups && compiled.get_property(ov::hint::dynamic_quantization_group_size) != 0)) {
            throw Error(SAM3I_UNAVAILABLE, "openvino " + version() + " was told to compute in " +
                                               precision.get_type_name() + " without dynamic quantization on " +
                                               target + ", and computes in " + used.get_type_name() +
                                               ": try another version");
        }
        for (const auto& device : compiled.get_property(ov::execution_devices)) {
            if (!is_kind(device, target)) {
                throw Error(SAM3I_UNAVAILABLE, target + " was asked for, and openvino runs on " + device);
            }
        }
        return std::make_unique<OpenVinoGraph>(std::move(compiled));
    } catch (const Error&) {
        throw;
    } catch (const std::exception& error) {
        throw Error(SAM3I_UNAVAILABLE, "openvino cannot compile for " + target + ": " + one_line(error.what()));
    }
}

}  // namespace

Backend openvino_backend() {
    return {"openvino", version, missing, open};
}

}  // namespace sam3i::core
