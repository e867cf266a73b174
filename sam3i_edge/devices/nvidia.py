"""The parts of the NVIDIA driver and CUDA that the runtimes need, through ctypes: facts, and memory.

The libraries come with the driver, CUDA and TensorRT. They are opened when first asked for.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam3i_edge.errors import RuntimeUnavailable

# CUdevice_attribute's numbers for the two halves of the compute capability (cuda.h).
_MAJOR, _MINOR = 75, 76
_TO_DEVICE, _TO_HOST = 1, 2  # cudaMemcpyKind (driver_types.h)


def gpu_missing() -> str | None:
    """Says why this machine has no NVIDIA GPU to use, or None where it has one."""
    try:
        driver = _driver()
    except RuntimeUnavailable as error:
        return str(error)
    count = ctypes.c_int()
    status = driver.cuDeviceGetCount(ctypes.byref(count))
    if status or not count.value:
        return f"the NVIDIA driver sees no GPU (cuDeviceGetCount: status {status}, {count.value} GPUs)"
    return None


def compute_capability() -> str:
    """Gives the first GPU's compute capability, such as "8.7" for Orin.

    Raises:
        RuntimeUnavailable: there is no driver or no GPU.
    """
    driver = _driver()
    values = []
    for attribute in (_MAJOR, _MINOR):
        value = ctypes.c_int()
        status = driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, 0)
        if status:
            raise RuntimeUnavailable(f"the NVIDIA driver does not answer (cuDeviceGetAttribute: {status})")
        values.append(value.value)
    return f"{values[0]}.{values[1]}"


def tensorrt_version() -> str:
    """Gives the version of the TensorRT library, such as "10.16.0".

    Raises:
        RuntimeUnavailable: it is not installed.
    """
    library = _library("libnvinfer.so.11", "libnvinfer.so.10", "libnvinfer.so.8")
    number = int(library.getInferLibVersion())
    # 10.3.0 is 100300; up to TensorRT 9 the places were 1000 and 100: 8.6.1 is 8601.
    major, minor = (1000, 100) if number < 10_000 else (10_000, 100)
    return f"{number // major}.{number % major // minor}.{number % minor}"


class Memory:
    """Device buffers and one stream, kept until `close`. Not thread-safe."""

    def __init__(self) -> None:
        """Makes the stream.

        Raises:
            RuntimeUnavailable: the CUDA runtime is not installed, or refuses.
        """
        self._cuda = _library("libcudart.so", "libcudart.so.13", "libcudart.so.12")
        self._cuda.cudaGetErrorString.restype = ctypes.c_char_p
        self._buffers: list[ctypes.c_void_p] = []
        self._stream = ctypes.c_void_p()
        self._call("cudaStreamCreate", ctypes.byref(self._stream))

    @property
    def stream(self) -> int:
        """Address of the stream; 0 after `close`."""
        return self._stream.value or 0

    def allocate(self, size: int) -> int:
        """Gives the address of a new buffer of `size` bytes."""
        buffer = ctypes.c_void_p()
        self._call("cudaMalloc", ctypes.byref(buffer), ctypes.c_size_t(size))
        self._buffers.append(buffer)
        return buffer.value or 0

    def upload(self, address: int, array: NDArray[Any]) -> None:
        """Copies a contiguous array to a buffer, in the order of the stream."""
        self._copy(address, array.ctypes.data, array.nbytes, _TO_DEVICE)

    def download(self, address: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Starts to copy a buffer into a new array, which is whole after `wait`."""
        array = np.empty(shape, dtype)
        self._copy(array.ctypes.data, address, array.nbytes, _TO_HOST)
        return array

    def wait(self) -> None:
        """Waits until all that was started has ended, and reports what failed meanwhile."""
        self._call("cudaStreamSynchronize", self._stream)

    def close(self) -> None:
        """Frees everything. Closing twice does nothing."""
        while self._buffers:
            self._cuda.cudaFree(self._buffers.pop())
        if self._stream:
            self._cuda.cudaStreamDestroy(self._stream)
            self._stream = ctypes.c_void_p()

    def _copy(self, to: int, source: int, size: int, kind: int) -> None:
        self._call(
            "cudaMemcpyAsync",
            ctypes.c_void_p(to), ctypes.c_void_p(source), ctypes.c_size_t(size), kind, self._stream,
        )  # fmt: skip

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self._cuda, name)(*arguments)
        if status:
            words = (self._cuda.cudaGetErrorString(status) or b"").decode(errors="replace")
            raise RuntimeUnavailable(
                f"{name} failed with status {status} ({words}): the GPU may be gone or out of memory; "
                "'sam3i-edge doctor' tells what still runs"
            )


def _driver() -> Any:
    driver = _library("libcuda.so.1")
    status = driver.cuInit(0)
    if status:
        raise RuntimeUnavailable(f"the NVIDIA driver does not start (cuInit: status {status})")
    return driver


def _library(*names: str) -> Any:
    """Opens the first of these libraries that is there."""
    for name in names:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise RuntimeUnavailable(f"{names[0]} is not installed on this machine")
