"""What the NVIDIA driver and TensorRT say of themselves, through ctypes.

Their libraries are opened when first asked for.
"""

from __future__ import annotations

import ctypes
from typing import Any

from sam3i_edge.errors import RuntimeUnavailable

# CUdevice_attribute's numbers for the two halves of the compute capability (cuda.h).
_MAJOR, _MINOR = 75, 76


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
