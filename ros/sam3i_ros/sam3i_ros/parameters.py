"""The node's parameters: what they are, and which values are refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, ParameterDescriptor
from rclpy.parameter import Parameter

from sam3i_edge.levels import LEVELS

# Name: default, what it is. Those of MODEL are read by `configure`, those of TOPICS by `activate`.
MODEL: dict[str, tuple[Any, str]] = {
    "model": ("sam3i-nano", "A bundled name, a bundle's folder, or a Hub id org/name."),
    "device": ("auto", "auto, or a device such as cpu, cuda, jetson."),
    "runtime": ("auto", "auto, or one that serves the device, such as onnxruntime."),
    "precision": ("auto", "auto, or one that the model has, such as int8."),
    "threads": (0, "Threads to compute with; 0 takes one a core."),
}
TOPICS: dict[str, tuple[Any, str]] = {
    "image_transport": (
        "raw",
        "raw reads image, compressed reads image/compressed.",
    ),
    "use_depth": (False, "Read aligned depth and camera_info, and publish detections_3d."),
}
CHANGING: dict[str, tuple[Any, str]] = {
    "instructions": ([""], "What to segment: noun phrases or sentences. Blank ones count as none."),
    "level": ("auto", f"auto, or at which level to ask: {', '.join(LEVELS)}."),
    "threshold": (-1.0, "Least score of an instance, 0 to 1; -1 takes the model's."),
    "max_rate": (0.0, "Most images a second; 0 takes as many as can be segmented."),
    "publish_overlay": (False, "Draw what was found over the image, and publish overlay."),
    "labels": ("instance", "What a pixel of label_image is: instance (place in detections) or class."),
    "depth_tolerance": (0.05, "Seconds by which depth and image may be apart."),
    "stale_after": (2.0, "Seconds without an image after which diagnostics warn."),
}
CHOICES = {
    "level": ("auto", *LEVELS),
    "labels": ("instance", "class"),
    "image_transport": ("raw", "compressed"),
}
_RANGES = {
    "threshold": (-1.0, 1.0),
    "max_rate": (0.0, 1000.0),
    "depth_tolerance": (0.0, 10.0),
    "stale_after": (0.1, 3600.0),
}


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of an image.

    Attributes:
        instructions: at least one, or none when there is nothing to do.
        level: "auto" or a level.
        threshold: 0 to 1, or None for the model's.
    """

    instructions: tuple[str, ...]
    level: str
    threshold: float | None


def declared() -> list[tuple[str, Any, ParameterDescriptor]]:
    """What `Node.declare_parameters` takes."""
    found = []
    for name, (default, text) in {**MODEL, **TOPICS, **CHANGING}.items():
        if name in CHOICES:
            text += f" One of {', '.join(CHOICES[name])}."
        descriptor = ParameterDescriptor(name=name, description=text)
        if name in _RANGES:
            low, high = _RANGES[name]
            descriptor.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
        found.append((name, default, descriptor))
    return found


def refusal(parameters: list[Parameter], fixed: set[str]) -> str:
    """Why a change of parameters is refused; "" when it is not.

    Args:
        parameters: the new values, of the right types and in range.
        fixed: names that cannot change in the node's state.
    """
    for parameter in parameters:
        name, value = parameter.name, parameter.value
        if name in fixed:
            until = "clean up" if name in MODEL else "deactivate"
            return f"{name} cannot change now: {until} the node first"
        if name in CHOICES and value not in CHOICES[name]:
            return f"unknown {name} {value!r}; choose from {', '.join(CHOICES[name])}"
        if name == "threshold" and -1 < value < 0:
            return f"threshold must be 0 to 1, or -1 for the model's, got {value:g}"
    return ""
