// ONNX Runtime: on the CPU, on NVIDIA GPUs through CUDA, and on Jetson through TensorRT. The settings are those of
// runtimes/ort.py: a device has one execution provider, and no node may run on another.

#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <utility>

#include "backend.hpp"
#include "error.hpp"

namespace sam3i::core {

namespace {

Ort::Env& environment() {
    static Ort::Env shared = [] {
        Ort::Env made(ORT_LOGGING_LEVEL_ERROR, "sam3i");
        made.DisableTelemetryEvents();
        return made;
    }();
    return shared;
}

const char* provider_of(const std::string& device) {
    if (device == "cpu") return "CPUExecutionProvider";
    if (device == "cuda") return "CUDAExecutionProvider";
    if (device == "jetson") return "TensorrtExecutionProvider";
    return nullptr;
}

std::string version() {
    return Ort::GetVersionString();
}

std::string missing(const std::string& device) {
    const char* provider = provider_of(device);
    if (provider == nullptr) return "onnxruntime runs on cpu, cuda and jetson, not on '" + device + "'";
    const auto offered = Ort::GetAvailableProviders();
    if (std::find(offered.begin(), offered.end(), provider) != offered.end()) return "";
    std::string names;
    for (const auto& name : offered) names += (names.empty() ? "" : ", ") + name;
    return "device '" + device + "' needs " + provider + ", and onnxruntime " + version() + " was built with " +
           names + " only: link a build for " + device + ", or ask for device cpu";
}

Type type_of(ONNXTensorElementDataType type, const std::string& name) {
    switch (type) {
        case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT:
            return Type::float32;
        case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64:
            return Type::int64;
        case ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL:
            return Type::boolean;
        default:
            throw std::runtime_error("'" + name + "' is neither float32, int64 nor bool");
    }
}

ONNXTensorElementDataType element_of(Type type) {
    return type == Type::float32 ? ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT
           : type == Type::int64 ? ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64
                                 : ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL;
}

class OnnxGraph : public Graph {
public:
    explicit OnnxGraph(Ort::Session session) : session_(std::move(session)) {
        const auto input_names = session_.GetInputNames(), output_names = session_.GetOutputNames();
        for (size_t i = 0; i < input_names.size(); ++i) {
            inputs_[input_names[i]] = slot(session_.GetInputTypeInfo(i), input_names[i]);
        }
        for (size_t i = 0; i < output_names.size(); ++i) {
            outputs_[output_names[i]] = slot(session_.GetOutputTypeInfo(i), output_names[i]);
        }
    }

    const std::map<std::string, Slot>& inputs() const override { return inputs_; }
    const std::map<std::string, Slot>& outputs() const override { return outputs_; }

    Arrays run(const Arrays& inputs) override {
        const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
        std::vector<const char*> given, wanted;
        std::vector<Ort::Value> values;
        for (const auto& [name, array] : inputs) {
            const auto bytes = static_cast<size_t>(array.size()) * (array.type == Type::float32 ? 4u
                                                                    : array.type == Type::int64 ? 8u
                                                                                                : 1u);
            given.push_back(name.c_str());
            values.push_back(Ort::Value::CreateTensor(memory, const_cast<void*>(array.data.get()), bytes,
                                                      array.shape.data(), array.shape.size(),
                                                      element_of(array.type)));
        }
        for (const auto& [name, _] : outputs_) wanted.push_back(name.c_str());
        auto results = session_.Run(Ort::RunOptions{nullptr}, given.data(), values.data(), given.size(),
                                    wanted.data(), wanted.size());
        Arrays found;
        for (size_t i = 0; i < wanted.size(); ++i) {
            const auto info = results[i].GetTensorTypeAndShapeInfo();
            const auto held = std::make_shared<Ort::Value>(std::move(results[i]));
            found[wanted[i]] = {type_of(info.GetElementType(), wanted[i]), info.GetShape(),
                                std::shared_ptr<const void>(held, held->GetTensorRawData())};
        }
        return found;
    }

private:
    static Slot slot(const Ort::TypeInfo& type, const std::string& name) {
        const auto info = type.GetTensorTypeAndShapeInfo();
        Slot found{type_of(info.GetElementType(), name), info.GetShape()};
        for (const int64_t side : found.shape) {
            if (side < 1) throw std::runtime_error("'" + name + "' has a shape that is not static");
        }
        return found;
    }

    Ort::Session session_;
    std::map<std::string, Slot> inputs_, outputs_;
};

void append_provider(Ort::SessionOptions& options, const GraphOptions& wanted) {
    if (wanted.device == "cuda") {
        Ort::CUDAProviderOptions cuda;  // TF32 is on by default, and its 10 bits of mantissa are not fp32
        cuda.Update({{"use_tf32", "0"}, {"arena_extend_strategy", "kSameAsRequested"}});
        options.AppendExecutionProvider_CUDA_V2(*cuda);
    } else if (wanted.device == "jetson") {
        std::unordered_map<std::string, std::string> settings{
            {"trt_context_memory_sharing_enable", "1"},
            {"trt_fp16_enable", wanted.precision == "fp16" ? "1" : "0"},
        };
        if (wanted.precision == "fp16") settings["trt_layer_norm_fp32_fallback"] = "1";
        if (!wanted.engine_cache.empty()) {
            settings["trt_engine_cache_enable"] = "1";
            settings["trt_engine_cache_path"] = wanted.engine_cache;
            settings["trt_timing_cache_enable"] = "1";
            settings["trt_timing_cache_path"] = wanted.engine_cache;
        }
        Ort::TensorRTProviderOptions tensorrt;
        tensorrt.Update(settings);
        options.AppendExecutionProvider_TensorRT_V2(*tensorrt);
    } else {
        return;
    }
    // Nodes that the provider cannot run would go to the CPU, one by one and silently.
    options.AddConfigEntry("session.disable_cpu_ep_fallback", "1");
}

std::unique_ptr<Graph> open(const std::filesystem::path& path, const GraphOptions& wanted) {
    try {
        Ort::SessionOptions options;
        options.SetIntraOpNumThreads(wanted.threads).SetInterOpNumThreads(1);
        options.SetGraphOptimizationLevel(GraphOptimizationLevel::ORT_ENABLE_ALL).DisableCpuMemArena();
        // As in runtimes/ort.py, where the reason is.
        options.AddConfigEntry("session.intra_op.allow_spinning", ORT_API_VERSION >= 26 ? "1" : "0");
        options.AddConfigEntry("session.intra_op.spin_duration_us", "50");
        options.AddConfigEntry("session.force_spinning_stop", "1");
        options.AddConfigEntry("session.qdq_matmulnbits_accuracy_level", "1");
        append_provider(options, wanted);
        return std::make_unique<OnnxGraph>(Ort::Session(environment(), path.c_str(), options));
    } catch (const std::exception& error) {
        throw Error(SAM3I_BAD_BUNDLE, "onnxruntime cannot open " + path.u8string() + ": " + error.what());
    }
}

}  // namespace

Backend onnxruntime_backend() {
    return {"onnxruntime", version, missing, open};
}

}  // namespace sam3i::core
