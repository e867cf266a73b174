"""The graphs of a model as Core ML packages (ML programs).

Float and int8 packages ask for iOS 17, int4 for iOS 18, whose format is the first with weights in groups.
Quantized modules keep their integers: what a package holds is read back from disk and compared.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from sam3i_edge import __version__
from sam3i_edge.bundle.manifest import Preprocessing
from sam3i_edge.errors import ExportError
from sam3i_edge.export.coreml.mil_reference import MilProgram, quiet
from sam3i_edge.export.coreml.mil_trace import places_of_float32, quantized_constants, results_of, trace
from sam3i_edge.export.isolated import call, done
from sam3i_edge.model.config import ModelConfig
from sam3i_edge.model.graph_specs import GraphSpec, graph_names, graph_specs
from sam3i_edge.model.weights import build_model, open_weights
from sam3i_edge.quantize.spec import QuantSpec
from sam3i_edge.runtimes import Progress, untold
from sam3i_edge.runtimes.coreml import INTERFACE_KEY, ImageInput, Interface, Port

Precision = Literal["fp32", "fp16", "int8", "int8w", "int4"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8", "int8w", "int4")

_MAX_RANK = 5

_REMOVED_PASSES = {
    # Fails on an `unbind` whose pieces are read in more than one way (coremltools 9.0).
    "common::fuse_stack_split",
    # Gives activations other scales.
    "common::distributive_quantized_binary_op_scale_normalization",
}

_DESCRIPTIONS = {
    "image_encoder": "Features of one image. Run once per image.",
    "text_encoder": "Features of one instruction at level {level}. Run once per instruction.",
    "box_encoder": "Geometry tokens of box prompts on one image; they replace the image's cls_token.",
    "detector": "Instances that an instruction names in an image: scores, boxes, mask logits.",
    "image": "The image, RGB, resized to the square without keeping its aspect.",
    "pixel_values": "The image resized to a square, RGB, normalised.",
    "input_ids": "Token ids: start, text, end, then 0 as padding.",
    "fpn_4x": "Image features, finest level.",
    "fpn_2x": "Image features, middle level.",
    "fpn_1x": "Image features, coarsest level.",
    "cls_token": "The token that has read the image; last of the prompt when no boxes are given.",
    "text_features": "One vector for each of the 32 token slots.",
    "boxes_in": "Box prompts (cx, cy, w, h) in 0..1 of the image.",
    "labels": "1 for a box to go by, 0 for one to avoid, -1 for an unused slot.",
    "geometry_tokens": "One token a box slot, then the token that has read the image.",
    "geometry_mask": "1 for tokens in use.",
    "prompt": "text_features, box slots, then cls_token; or text_features, then geometry_tokens.",
    "prompt_mask": "1 for prompt tokens in use.",
    "level": "0 concept, 1 simple, 2 complex.",
    "scores": "0..1, best first.",
    "boxes": "(x0, y0, x1, y1) in 0..1 of the image.",
    "mask_logits": "Above 0 inside the instance; resize to the image before the threshold.",
    "presence": "Logit that anything is there at all; scores hold it already.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageOptions:
    """How packages are written.

    Attributes:
        precision: what the model's modules already are; "fp32" computes in float32, all others in float16.
        float32_ops: kinds of operation kept in float32 all the same, and "boxes" for those that compute boxes
            (`export.float32_places`). GroupNorm always is: its square overflows float16 above 256.
        image: makes the image encoder take a pixel buffer, with this normalisation inside the program.
        name: of the model.
        author: shown by Xcode.
        license: shown by Xcode.
    """

    precision: Precision = "fp16"
    float32_ops: frozenset[str] = frozenset({"softmax", "boxes"})
    image: Preprocessing | None = None
    name: str = "SAM3-I"
    author: str = "sam3i-edge"
    license: str = ""

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {self.precision!r}")
        if self.image is not None and len(set(self.image.std)) > 1:
            raise ValueError(
                f"a pixel buffer is scaled by one number, the deviations are {self.image.std}: "
                "export without an image input"
            )


def file_name(graph: str) -> str:
    """The package of a graph; Xcode makes a class of this name."""
    return "".join(part.capitalize() for part in graph.replace(".", "_").split("_")) + ".mlpackage"


def export_mlpackage(
    weights: Path,
    config: ModelConfig,
    folder: Path,
    options: PackageOptions,
    boxes: int = 0,
    *,
    quantized: Path | None = None,
    isolate: bool = False,
    progress: Progress = untold,
) -> dict[str, str]:
    """Writes every graph of a model as a package, with one graph in memory at a time.

    Args:
        weights: folder of the model's safetensors.
        config: its sizes.
        folder: an existing folder.
        options: how.
        boxes: as in `graph_specs`.
        quantized: file of a `QuantSpec` to export in place of the float model.
        isolate: convert each graph in a process of its own, which gives its memory back.
        progress: called before each graph, and when it is written.

    Returns:
        Graph name -> package name inside `folder`.

    Raises:
        ExportError: as `write_package`, or the process of a graph died.
    """
    files = {}
    names = graph_names(config, boxes)
    for number, graph in enumerate(names):
        words = f"converting {graph} for Core ML"
        progress(words, number / len(names))
        path, peak = call(
            _export_one, quantized or weights, config, folder, options, boxes, graph, isolate=isolate
        )
        files[graph] = path.name
        progress(done(words, peak, isolate), (number + 1) / len(names))
    return files


def _export_one(
    weights: Path, config: ModelConfig, folder: Path, options: PackageOptions, boxes: int, graph: str
) -> Path:
    if weights.is_file():
        model = QuantSpec.load(weights, graph).build(config)
    else:
        model = build_model(config, open_weights(weights, graph))
    spec = next(spec for spec in graph_specs(model, boxes) if spec.name == graph)
    return write_package(spec, folder, options)


def write_package(spec: GraphSpec, folder: Path, options: PackageOptions) -> Path:
    """Converts one graph, and reads the package back from disk to check it.

    Args:
        spec: the graph; its module is in eval mode, on the CPU, float32 or with quantized layers.
        folder: an existing folder.
        options: how.

    Returns:
        The package's path.

    Raises:
        ExportError: the package's inputs, outputs, shapes, integers or scales are not those of the module.
    """
    with quiet():
        import coremltools as ct
    image = _image_input(spec, options)
    half = options.precision != "fp32"
    program = trace(spec)
    inputs = []
    for name, example in spec.inputs.items():
        if image is not None and name == image.replaces:
            inputs.append(
                ct.ImageType(
                    name=image.name,
                    shape=tuple(example.shape),
                    scale=image.scale,
                    bias=list(image.bias),
                    color_layout=ct.colorlayout.RGB,
                )
            )
        else:
            dtype = _port_type(name, example.dtype, half)
            inputs.append(ct.TensorType(name=name, shape=tuple(example.shape), dtype=dtype))
    results = dict(zip(spec.outputs, results_of(program), strict=True))
    passes = ct.PassPipeline.DEFAULT
    passes.remove_passes(_REMOVED_PASSES)
    precision = ct.precision.FLOAT32
    if half:
        stays = places_of_float32(program)
        precision = ct.transform.FP16ComputePrecision(op_selector=lambda op: _is_half(op, options, stays))
    with quiet():
        model = ct.convert(
            program,
            source="pytorch",
            convert_to="mlprogram",
            inputs=inputs,
            outputs=[
                ct.TensorType(name=name, dtype=_port_type(name, value.dtype, half))
                for name, value in results.items()
            ],
            minimum_deployment_target=ct.target.iOS18 if options.precision == "int4" else ct.target.iOS17,
            compute_precision=precision,
            pass_pipeline=passes,
            skip_model_load=True,
        )
        _describe(model, spec, results, options, image)
        path = folder / file_name(spec.name)
        model.save(str(path))
    _check(path, spec, program)
    return path


def _is_half(op: Any, options: PackageOptions, stays: Callable[[Any], bool]) -> bool:
    """Whether a MIL operation becomes float16; `stays` is `places_of_float32`."""
    if op.op_type in options.float32_ops or _in_group_norm(op):
        return False
    return not ("boxes" in options.float32_ops and stays(op))


def _in_group_norm(op: Any) -> bool:
    """Whether a MIL operation belongs to (x - mean) / sqrt(mean((x - mean)^2) + eps)."""

    def made_by(name: str, *kinds: str) -> bool:
        maker = op.inputs[name].op
        return maker is not None and maker.op_type in kinds

    if op.op_type in ("reduce_mean", "square", "sqrt"):
        return True
    if op.op_type in ("sub", "real_div"):
        return made_by("y", "reduce_mean", "sqrt")
    return op.op_type == "add" and made_by("x", "reduce_mean")


def _port_type(name: str, dtype: torch.dtype, half: bool) -> type[np.generic]:
    """The maps, which are large and only pass from package to package, are float16 where the program is."""
    if not dtype.is_floating_point:
        return np.int32
    return np.float16 if half and name.startswith("fpn_") else np.float32


def _image_input(spec: GraphSpec, options: PackageOptions) -> ImageInput | None:
    if options.image is None or "pixel_values" not in spec.inputs:
        return None
    std = options.image.std[0]
    red, green, blue = (-mean / std for mean in options.image.mean)
    return ImageInput("image", "pixel_values", 1 / (255 * std), (red, green, blue))


def _describe(
    model: Any,
    spec: GraphSpec,
    results: dict[str, torch.Tensor],
    options: PackageOptions,
    image: ImageInput | None,
) -> None:
    kind, _, level = spec.name.partition(".")
    about = _DESCRIPTIONS[kind].format(level=level) if kind in _DESCRIPTIONS else ""
    model.short_description = f"{options.name} {spec.name}, {options.precision}. {about}".strip()
    model.author, model.license, model.version = options.author, options.license, __version__
    for name in spec.inputs:
        shown = image.name if image is not None and name == image.replaces else name
        key = "boxes_in" if name == "boxes" else shown
        model.input_description[shown] = _DESCRIPTIONS.get(key, "")
    for name in spec.outputs:
        model.output_description[name] = _DESCRIPTIONS.get(name, "")
    bools = _bool_outputs(spec)
    interface = Interface(
        spec.name,
        {name: Port(_dtype(value.dtype), tuple(value.shape)) for name, value in spec.inputs.items()},
        {
            name: Port("bool" if name in bools else _dtype(value.dtype), tuple(value.shape))
            for name, value in results.items()
        },
        image,
    )
    model.user_defined_metadata[INTERFACE_KEY] = interface.to_json()
    model.user_defined_metadata["com.sam3i-edge.precision"] = options.precision


def _bool_outputs(spec: GraphSpec) -> set[str]:
    with torch.no_grad(), torch._subclasses.FakeTensorMode(allow_non_fake_inputs=True):
        found = spec.module(*spec.inputs.values())
    found = found if isinstance(found, tuple) else (found,)
    return {name for name, value in zip(spec.outputs, found, strict=True) if value.dtype == torch.bool}


def _dtype(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _check(path: Path, spec: GraphSpec, program: torch.export.ExportedProgram) -> None:
    """Reads the package from disk and compares it with what was to be written."""
    written = MilProgram(path)
    names = [
        written.interface.image.name
        if written.interface.image is not None and name == written.interface.image.replaces
        else name
        for name in spec.inputs
    ]
    for side, found, wanted in (
        ("inputs", list(written.inputs), names),
        ("outputs", list(written.outputs), list(spec.outputs)),
    ):
        if sorted(found) != sorted(wanted):
            raise ExportError(f"{path.name} has the {side} {', '.join(found)}; want {', '.join(wanted)}")
    for name, shape in written.shapes():
        if len(shape) > _MAX_RANK or not all(isinstance(size, int) for size in shape):
            raise ExportError(
                f"{path.name}: {name} has the shape {list(shape)}; Core ML takes at most {_MAX_RANK} "
                "dimensions, and they must be static"
            )
    wanted_weights, wanted_steps = quantized_constants(program)
    found_weights = {weight.key(): weight for weight in written.quantized_weights()}
    # Of an activation that is a constant, such as a learned token, coremltools keeps the integers.
    constants = [found_weights[key] for key in found_weights.keys() - wanted_weights]
    found_steps = written.activation_steps() | {
        (float(scale), 128) for constant in constants for scale in np.unique(constant.scales)
    }
    missing = wanted_weights - found_weights.keys()
    if missing:
        raise ExportError(
            f"{path.name} lacks the integers or scales of {len(missing)} of {len(wanted_weights)} quantized "
            "weights: coremltools changed them"
        )
    if found_steps != wanted_steps:
        raise ExportError(
            f"{path.name} quantizes activations by scales and steps below zero {sorted(found_steps)}, want "
            f"{sorted(wanted_steps)}"
        )
