"""Segments what a sentence describes, on edge devices.

Importing this package loads no framework: ONNX Runtime, OpenCV and the rest load with the first name
that needs them, and torch only with training and export.

It also keeps what loads later from telling its maker that it was used. ONNX Runtime and the Hub's client read
a variable when they are imported; a value that the user set stays. OpenVINO does without its package
`openvino_telemetry` where that cannot be imported.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING

from sam3i_edge._moved import MovedModules as _MovedModules

if TYPE_CHECKING:
    from sam3i_edge import errors as errors
    from sam3i_edge.devices.profiles import Info as Info
    from sam3i_edge.result import Result as Result
    from sam3i_edge.scene import Scene as Scene
    from sam3i_edge.segmenter import Segmenter as Segmenter
    from sam3i_edge.stream import Stream as Stream

for _variable in ("ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY"):
    os.environ.setdefault(_variable, "1")
# It has no variable; a module that is None raises ImportError, and whoever imported it before keeps it.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

sys.meta_path.append(_MovedModules())  # old names are found last

__version__ = "0.2.0"

__all__ = ["Info", "Result", "Scene", "Segmenter", "Stream", "__version__", "errors"]

_MODULES = {
    "Info": "sam3i_edge.devices.profiles",
    "Result": "sam3i_edge.result",
    "Scene": "sam3i_edge.scene",
    "Segmenter": "sam3i_edge.segmenter",
    "Stream": "sam3i_edge.stream",
}


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    if name == "errors":
        return importlib.import_module("sam3i_edge.errors")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
