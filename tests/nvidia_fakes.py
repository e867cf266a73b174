"""NVIDIA's libraries as far as they are called: no GPU is needed, or used."""

from __future__ import annotations

import types


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


def libraries(driver=None, tensorrt=101600):
    """A stand-in for `nvidia._library` that gives these."""
    nvinfer = types.SimpleNamespace(getInferLibVersion=lambda: tensorrt)
    opened = {"libcuda.so.1": driver or Driver()}
    return lambda *names: opened.get(names[0], nvinfer)
