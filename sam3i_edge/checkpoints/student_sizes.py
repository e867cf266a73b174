"""The sizes of a student, read from the shapes of its tensors, and what its own configs call them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from math import isqrt
from typing import Any

import torch

from sam3i_edge.errors import ArtifactError
from sam3i_edge.model.config import SAM3I_OFFICIAL, ModelConfig
from sam3i_edge.model.student_variants import IMAGE_STUDENTS, TEXT_STUDENTS, variant_name

Tensors = Mapping[str, torch.Tensor]
_TRUNK = "image_encoder.backbone."
_HEAD = "image_encoder.head.conv2.weight"
# backbone -> a tensor that it alone has
_FIRST = {
    "repvit": f"{_TRUNK}features.0.2.weight",
    "tinyvit": f"{_TRUNK}patch_embed.2.weight",
    "efficientvit": f"{_TRUNK}stem.0.weight",
}
_TRUNK_FIELDS = (
    "trunk_widths",
    "trunk_depths",
    "trunk_squeezes",
    "trunk_heads",
    "trunk_windows",
    "trunk_group",
)


def student_backbone(tensors: Tensors) -> str | None:
    """Which student the image encoder is, or None."""
    return next((backbone for backbone, name in _FIRST.items() if name in tensors), None)


def trunk_sizes(tensors: Tensors, backbone: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """What the tensors of a student's image encoder tell, as fields of `ModelConfig`.

    Args:
        tensors: our name -> tensor.
        backbone: of `student_backbone`.
        given: sizes that a config names.

    Raises:
        ArtifactError: a tensor is missing, or no released student has these sizes and `given` names none.
    """
    read = {"repvit": _repvit, "tinyvit": _tinyvit, "efficientvit": _efficientvit}[backbone]
    try:
        sizes = {"backbone": backbone, **read(tensors), "vit_width": tensors[_HEAD].shape[0]}
    except (KeyError, IndexError) as error:
        raise ArtifactError(
            f"the image encoder, a {backbone}, is not whole: {error.args[0]} is missing or has too few "
            "dimensions"
        ) from error
    known = variant_name(IMAGE_STUDENTS, sizes)
    if known is None and not given.keys() & set(_TRUNK_FIELDS):
        family = [name for name in IMAGE_STUDENTS if name.startswith(backbone)]
        said = ", ".join(f"{name} {list(sizes[name])}" for name in ("trunk_widths", "trunk_depths"))
        raise ArtifactError(
            f"the image encoder is a {backbone} of unknown size: its tensors say {said} (the first, "
            f"{_FIRST[backbone]}, has {sizes['trunk_widths'][0]} rows); want {', '.join(family)}, or "
            "--config FILE.json with its sizes"
        )
    return sizes


def text_sizes(tensors: Tensors, sizes: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """What the tensors of a student's text encoder tell beside its widths.

    Args:
        tensors: our name -> tensor.
        sizes: text_width, text_layers and text_mlp_dim, read before.
        given: sizes that a config names.

    Raises:
        ArtifactError: no released student has these sizes and `given` does not say how many heads it has.
    """
    mixers = tuple(
        number
        for number in range(sizes["text_layers"])
        if f"text_encoder.layers.{number}.mixer.weight" in tensors
    )
    width = sizes["text_width"]
    found = {**sizes, "text_causal": False, "text_mixers": mixers, "text_heads": width // 64}
    if variant_name(TEXT_STUDENTS, found) is None:
        if "text_heads" not in given:
            raise ArtifactError(
                f"the text encoder is a student of unknown size: width {width} (columns of "
                f"text_encoder.token_embedding.weight), {sizes['text_layers']} layers, convolutions in "
                f"{list(mixers)}; want {', '.join(TEXT_STUDENTS)}, or --config FILE.json that says text_heads"
            )
        found["text_heads"] = given["text_heads"]
    return {name: found[name] for name in ("text_causal", "text_mixers", "text_heads")}


def student_names(config: ModelConfig) -> list[str]:
    """The released encoders that a model has, such as "repvit-m1.1"; "of its own size" for others."""
    values = {name: getattr(config, name) for name in ModelConfig.__dataclass_fields__}
    names = []
    if config.is_student:
        names.append(variant_name(IMAGE_STUDENTS, values) or f"a {config.backbone} of its own size")
    if not config.text_causal:
        names.append(variant_name(TEXT_STUDENTS, values) or "a text encoder of its own size")
    return names


def cut_positions(
    tensors: dict[str, torch.Tensor], context: int | None, *, resize: bool = False
) -> tuple[dict[str, torch.Tensor], int]:
    """A student's position table with a row for each token slot.

    Args:
        tensors: our name -> tensor.
        context: token slots; None for all rows.
        resize: interpolate the rows, as the first stage-1 files were trained, in place of taking the first.

    Returns:
        The tensors, and how many rows the file has.

    Raises:
        ArtifactError: the table has fewer rows than `context`.
    """
    name = "text_encoder.position_embedding"
    if name not in tensors or tensors[name].ndim != 2:
        raise ArtifactError(f"the text encoder is not whole: {name} is missing or is no table")
    table = tensors[name]
    rows = len(table)
    context = rows if context is None else context
    if not 1 <= context <= rows:
        raise ArtifactError(
            f"a context of {context} tokens is not possible: the position table has {rows} rows, "
            f"want 1 to {rows}"
        )
    if resize and context != rows:
        size = (context, table.shape[1])
        table = torch.nn.functional.interpolate(table[None, None].float(), size=size, mode="bilinear")[0, 0]
    return {**tensors, name: table[:context]}, rows


def config_sizes(dims: Mapping[str, Any]) -> dict[str, Any]:
    """Sizes by the names of EfficientSAM3's configs, in our names; others stay as they are.

    Raises:
        ArtifactError: a trunk is unknown, or a value is not what a config of it holds.
    """
    sizes = {name: value for name, value in dims.items() if name not in ("trunk", "trunk_config", "text")}
    try:
        if "trunk" in dims:
            sizes["backbone"] = dims["trunk"]
            sizes |= _CONFIGS[dims["trunk"]](dims["trunk_config"])
            widths = sizes["trunk_widths"]
            if sizes.pop("trunk_channels", widths[-1]) != widths[-1]:
                raise ArtifactError(
                    f"the config says trunk_channels {dims['trunk_channels']} and widths {widths}"
                )
        if "trunk_projection" in sizes:
            sizes["vit_width"] = sizes.pop("trunk_projection")
        if "grid" in sizes and sizes.pop("grid") * SAM3I_OFFICIAL.patch_size != dims["image_size"]:
            raise ArtifactError(
                f"the config says image_size {dims['image_size']} and a grid of {dims['grid']}: want "
                f"{SAM3I_OFFICIAL.patch_size} px a cell"
            )
        text = dict(dims.get("text", {}))
        text.pop("position_table", None)
        if "mct" in text.pop("kind", ""):
            text["layers"] += 2  # a RepMixer at either end, which are not counted there
        sizes |= {name if name == "vocab_size" else f"text_{name}": value for name, value in text.items()}
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise ArtifactError(f"the config does not describe a student: {error!r}") from error
    return sizes


def _repvit_config(values: Mapping[str, Any]) -> dict[str, Any]:
    widths: list[int] = []
    depths: list[int] = []
    squeezes = []
    for number, (kernel, expansion, channels, squeeze, _, stride) in enumerate(values["cfgs"], 1):
        if (kernel, expansion) != (3, 2):
            raise ValueError(f"block {number} has kernel {kernel} and expansion {expansion}, want 3 and 2")
        if stride == 2 or not widths:
            widths.append(channels)
            depths.append(0)
        depths[-1] += stride == 1
        squeezes += [number] * bool(squeeze)
    return {"trunk_widths": tuple(widths), "trunk_depths": tuple(depths), "trunk_squeezes": tuple(squeezes)}


_CONFIGS: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "repvit": _repvit_config,
    "tinyvit": lambda values: {
        "trunk_widths": tuple(values["embed_dims"]),
        "trunk_depths": tuple(values["depths"]),
        "trunk_heads": tuple(values["num_heads"][1:]),
        "trunk_windows": tuple(values["window_sizes"][1:]),
    },
    "efficientvit": lambda values: {
        "trunk_widths": tuple(values["width_list"]),
        "trunk_depths": tuple(values["depth_list"]),
        "trunk_group": values["dim"],
    },
}


def _repvit(tensors: Tensors) -> dict[str, Any]:
    widths = [tensors[_FIRST["repvit"]].shape[0]]
    depths = [0]
    squeezes = []
    for number in range(1, _count(tensors, f"{_TRUNK}features.")):
        block = f"{_TRUNK}features.{number}."
        if f"{block}pointwise.weight" in tensors:
            widths.append(tensors[f"{block}pointwise.weight"].shape[0])
            depths.append(0)
        else:
            depths[-1] += 1
        squeezes += [number] * (f"{block}squeeze.fc1.weight" in tensors)
    return {"trunk_widths": tuple(widths), "trunk_depths": tuple(depths), "trunk_squeezes": tuple(squeezes)}


def _tinyvit(tensors: Tensors) -> dict[str, Any]:
    stages = range(_count(tensors, f"{_TRUNK}layers."))
    biases = [tensors[f"{_TRUNK}layers.{stage}.blocks.0.attn.bias"].shape for stage in stages[1:]]
    steps = [tensors[f"{_TRUNK}layers.{stage}.downsample.conv3.weight"].shape[0] for stage in stages[:-1]]
    return {
        "trunk_widths": (tensors[_FIRST["tinyvit"]].shape[0], *steps),
        "trunk_depths": _depths(tensors, [f"{_TRUNK}layers.{stage}.blocks." for stage in stages]),
        "trunk_heads": tuple(shape[0] for shape in biases),
        "trunk_windows": tuple(isqrt(shape[1]) for shape in biases),
    }


def _efficientvit(tensors: Tensors) -> dict[str, Any]:
    stages = range(_count(tensors, f"{_TRUNK}stages."))
    points = [tensors[f"{_TRUNK}stages.{stage}.0.point.weight"].shape[0] for stage in stages]
    blocks = _depths(tensors, [f"{_TRUNK}stages.{stage}." for stage in stages])
    stem = _count(tensors, f"{_TRUNK}stem.") - 1
    return {
        "trunk_widths": (tensors[_FIRST["efficientvit"]].shape[0], *points),
        "trunk_depths": (stem, *blocks[:2], *(count - 1 for count in blocks[2:])),
        "trunk_group": tensors[f"{_TRUNK}stages.2.1.context.mix.weight"].shape[1],
    }


def _depths(tensors: Tensors, prefixes: Sequence[str]) -> tuple[int, ...]:
    return tuple(_count(tensors, prefix) for prefix in prefixes)


def _count(tensors: Tensors, prefix: str) -> int:
    layer = re.compile(re.escape(prefix) + r"(\d+)\.")
    return 1 + max((int(found[1]) for found in map(layer.match, tensors) if found), default=-1)
