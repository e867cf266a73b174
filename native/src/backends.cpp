#include "backend.hpp"

namespace sam3i::core {

#ifdef SAM3I_HAS_ONNXRUNTIME
Backend onnxruntime_backend();
#endif
#ifdef SAM3I_HAS_OPENVINO
Backend openvino_backend();
#endif

const std::vector<Backend>& backends() {
    static const std::vector<Backend> built = {
#ifdef SAM3I_HAS_ONNXRUNTIME
        onnxruntime_backend(),
#endif
#ifdef SAM3I_HAS_OPENVINO
        openvino_backend(),
#endif
    };
    return built;
}

}  // namespace sam3i::core
