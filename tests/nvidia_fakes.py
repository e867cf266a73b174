"""NVIDIA's libraries as far as the runtimes call them, over ordinary memory: no GPU is needed, or used."""

from __future__ import annotations

import ctypes
import types

import numpy as np


class Driver:
    """libcuda with one GPU."""

    def __init__(self, gpus=1, capability=(8, 7)):
        self.gpus, self.capability = gpus, capability

    def cuInit(self, flags):  # noqa: N802
        return 0

    def cuDeviceGetCount(self, count):  # noqa: N802
        count._obj.value = self.gpus
        return 0

    def cuDeviceGetAttribute(self, value, attribute, device):  # noqa: N802
        value._obj.value = self.capability[{75: 0, 76: 1}[attribute]]
        return 0


class Cudart:
    """libcudart whose device memory is the process's own; `fail` names a call that fails."""

    def __init__(self):
        self.live = {}
        self.calls = []
        self.fail = None
        self.cudaGetErrorString = lambda status: b"all CUDA-capable devices are busy or unavailable"

    def __getattr__(self, name):
        if not name.startswith("cuda"):
            raise AttributeError(name)

        def call(*arguments):
            self.calls.append(name)
            return 46 if name == self.fail else getattr(self, f"_{name}")(*arguments)

        return call

    def _cudaStreamCreate(self, stream):  # noqa: N802
        stream._obj.value = 7
        return 0

    def _cudaMalloc(self, address, size):  # noqa: N802
        buffer = ctypes.create_string_buffer(size.value)
        address._obj.value = ctypes.addressof(buffer)
        self.live[address._obj.value] = buffer
        return 0

    def _cudaFree(self, address):  # noqa: N802
        del self.live[address.value]
        return 0

    def _cudaMemcpyAsync(self, to, source, size, kind, stream):  # noqa: N802
        ctypes.memmove(to, source, size.value)
        return 0

    def _cudaStreamSynchronize(self, stream):  # noqa: N802
        return 0

    def _cudaStreamDestroy(self, stream):  # noqa: N802
        return 0


def libraries(cudart=None, driver=None, tensorrt=101600):
    """A stand-in for `nvidia._library` that gives these."""
    nvinfer = types.SimpleNamespace(getInferLibVersion=lambda: tensorrt)
    opened = {"libcuda.so.1": driver or Driver(), "libcudart.so": cudart or Cudart()}
    return lambda *names: opened.get(names[0], nvinfer)


class Slot:
    def __init__(self, name, dtype, shape, is_input):
        self.name, self.dtype, self.shape, self.is_input = name, np.dtype(dtype), shape, is_input


class TensorRT(types.ModuleType):
    """The package `tensorrt`: it builds an engine that computes y = 2 x + 1, and records what it was asked.

    An engine is the bytes b"engine " and a name; anything else cannot be opened.
    """

    __version__ = "10.16.0"

    def __init__(self, *, half=False, weak=True):
        super().__init__("tensorrt")
        self.record = {"flags": [], "networks": [], "timing": [], "float32": [], "builds": 0}
        self.fail_build = self.fail_parse = False
        self.half = half  # whether graphs hold float16
        self.slots = [Slot("x", np.float32, (2, 3), True), Slot("y", np.float32, (2, 3), False)]
        self.float16, self.float32, self.int64 = "half", "float", "int64"
        self.TensorIOMode = types.SimpleNamespace(INPUT="in", OUTPUT="out")
        names = ["FP16", "OBEY_PRECISION_CONSTRAINTS"] if weak else []
        self.BuilderFlag = types.SimpleNamespace(**{name: name for name in names})
        self.NetworkDefinitionCreationFlag = types.SimpleNamespace(STRONGLY_TYPED=1)
        self.LayerType = types.SimpleNamespace(
            SOFTMAX="softmax", NORMALIZATION="norm", REDUCE="reduce", MATRIX_MULTIPLY="matmul"
        )
        self.nptype = lambda dtype: dtype
        self.Builder = lambda logger: _Builder(self, logger)
        self.Runtime = lambda logger: _Runtime(self, logger)
        self.OnnxParser = lambda network, logger: _Parser(self, network)

    class ILogger:
        Severity = types.SimpleNamespace(ERROR="error", INTERNAL_ERROR="internal", WARNING="warning")

    class IProgressMonitor:
        pass


class _Layer:
    def __init__(self, trt, kind, dtype):
        self._trt, self.type, self._dtype = trt, kind, dtype
        self.num_outputs = 1
        self.precision = None

    def get_output(self, number):
        return types.SimpleNamespace(dtype=self._dtype)

    def set_output_type(self, number, dtype):
        self._trt.record["float32"].append((self.type, self.precision, dtype))


class _Network:
    def __init__(self, trt):
        kinds = [("matmul", trt.float16 if trt.half else trt.float32), ("softmax", trt.float32)]
        kinds += [("norm", trt.float32), ("reduce", trt.int64), ("reduce", trt.float32)]
        self._layers = [_Layer(trt, *kind) for kind in kinds]
        self.num_layers = len(self._layers)

    def get_layer(self, position):
        return self._layers[position]


class _Parser:
    def __init__(self, trt, network):
        self._trt = trt
        self.num_errors = 1

    def parse_from_file(self, path):
        return not self._trt.fail_parse

    def get_error(self, number):
        return "In node 3: unsupported operator Foo"


class _Config:
    def __init__(self, trt):
        self._trt = trt
        self.progress_monitor = None

    def set_flag(self, flag):
        self._trt.record["flags"].append(flag)

    def create_timing_cache(self, known):
        self._trt.record["timing"].append(known)
        return types.SimpleNamespace(serialize=lambda: b"timings " + known[-3:])

    def set_timing_cache(self, cache, ignore_mismatch):
        assert ignore_mismatch is False
        self._cache = cache

    def get_timing_cache(self):
        return self._cache


class _Builder:
    def __init__(self, trt, logger):
        self._trt, self._logger = trt, logger

    def create_network(self, flags):
        self._trt.record["networks"].append(flags)
        return _Network(self._trt)

    def create_builder_config(self):
        return _Config(self._trt)

    def build_serialized_network(self, network, config):
        self._trt.record["builds"] += 1
        if self._trt.fail_build:
            self._logger.log("error", "Could not find any implementation\nfor node 7")
            return None
        if config.progress_monitor is not None:
            monitor = config.progress_monitor
            monitor.phase_start("Building Engine", None, 2)
            monitor.phase_start("Tactics", "Building Engine", 9)
            for phase, step in (("Building Engine", 0), ("Tactics", 3), ("Building Engine", 1)):
                if not monitor.step_complete(phase, step):
                    return None
            monitor.phase_finish("Tactics")
            monitor.phase_finish("Building Engine")
        return b"engine 1"


class _Runtime:
    def __init__(self, trt, logger):
        self._trt, self._logger = trt, logger

    def deserialize_cuda_engine(self, serialized):
        if not serialized.startswith(b"engine "):
            self._logger.log("error", "Serialization assertion failed: version tag does not match")
            return None
        return _Engine(self._trt)


class _Engine:
    def __init__(self, trt):
        self._trt = trt
        self._slots = {slot.name: slot for slot in trt.slots}
        self.num_io_tensors = len(self._slots)

    def get_tensor_name(self, position):
        return list(self._slots)[position]

    def get_tensor_dtype(self, name):
        return self._slots[name].dtype

    def get_tensor_shape(self, name):
        return self._slots[name].shape

    def get_tensor_mode(self, name):
        return "in" if self._slots[name].is_input else "out"

    def create_execution_context(self):
        return _Context(self._trt)


class _Context:
    def __init__(self, trt):
        self._trt = trt
        self._addresses = {}

    def set_tensor_address(self, name, address):
        self._addresses[name] = address

    def execute_async_v3(self, stream):
        assert stream == 7
        if self._trt.record.get("lost"):
            return False
        views = {}
        for slot in self._trt.slots:
            count = int(np.prod(slot.shape)) * slot.dtype.itemsize
            memory = (ctypes.c_char * count).from_address(self._addresses[slot.name])
            views[slot.name] = np.frombuffer(memory, slot.dtype).reshape(slot.shape)
        views["y"][:] = 2 * views["x"] + 1
        return True
