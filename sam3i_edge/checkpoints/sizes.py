"""The sizes of a model, read from the shapes of its tensors."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from sam3i_edge.checkpoints.student_sizes import config_sizes, student_backbone, text_sizes, trunk_sizes
from sam3i_edge.errors import ArtifactError
from sam3i_edge.model.config import SAM3I_OFFICIAL, ModelConfig, check_sizes

# What no shape tells; taken from the user's config, else from the official model.
UNTOLD = (
    "image_size", "window_size", "vit_heads", "vit_global_blocks", "text_heads", "adapter_heads",
    "adapter_scale", "max_detections",
)  # fmt: skip
# Sizes of dropped parts, which an official config may name.
_IGNORED = {"text_proj_dim"}

# field -> (our tensor, dimension)
_VIT_SHAPE: dict[str, tuple[str, int]] = {
    "patch_size": ("image_encoder.backbone.patch_embed.weight", 2),
    "vit_width": ("image_encoder.backbone.patch_embed.weight", 0),
    "vit_mlp_dim": ("image_encoder.backbone.blocks.0.mlp.fc1.weight", 0),
}
_FROM_SHAPE: dict[str, tuple[str, int]] = {
    "text_width": ("text_encoder.token_embedding.weight", 1),
    "vocab_size": ("text_encoder.token_embedding.weight", 0),
    "text_context": ("text_encoder.position_embedding", 0),
    "text_mlp_dim": ("text_encoder.layers.0.mlp.fc1.weight", 0),
    "d_model": ("text_encoder.projection.weight", 0),
    "n_heads": ("detector.decoder.box_bias_x.layers.1.weight", 0),
    "ffn_dim": ("detector.fusion_encoder.layers.0.mlp.fc1.weight", 0),
    "score_dim": ("detector.scoring.prompt_mlp.layers.0.weight", 0),
    "num_queries": ("detector.decoder.query_embed.weight", 0),
}
# field -> what stands before the layer's number
_FROM_COUNT = {
    "text_layers": "text_encoder.layers.",
    "encoder_layers": "detector.fusion_encoder.layers.",
    "decoder_layers": "detector.decoder.layers.",
    "geometry_layers": "geometry_encoder.layers.",
}
_PRESENCE = {"score": "presence_head.layers.0", "token": "presence_token"}
_ADAPTER = "detector.fusion_encoder.layers.0.adapter.simple.down_proj.weight"


def read_sizes(path: Path) -> dict[str, Any]:
    """Reads a config file: an object with the field names of `ModelConfig`, or one that holds it as "dims".

    Raises:
        ArtifactError: the file cannot be read, is no such object, or names an unknown size.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ArtifactError(f"cannot read the config {path}: {error}") from error
    sizes = values.get("dims", values) if isinstance(values, dict) else None
    if not isinstance(sizes, dict):
        raise ArtifactError(f"{path} must hold an object of sizes, or one under the name 'dims'")
    sizes = config_sizes(sizes)
    unknown = sorted(sizes.keys() - {f.name for f in fields(ModelConfig)} - _IGNORED)
    if unknown:
        raise ArtifactError(f"{path} names unknown sizes: {', '.join(unknown)}; see ModelConfig")
    return {name: value for name, value in sizes.items() if name not in _IGNORED}


def infer_config(
    tensors: Mapping[str, torch.Tensor],
    given: Mapping[str, Any],
    resolution: int | None = None,
    *,
    text_causal: bool = True,
) -> ModelConfig:
    """The sizes of a checkpoint.

    Args:
        tensors: our name -> tensor; only shapes are read.
        given: sizes that the user or the checkpoint's own config names. They decide what tensors cannot tell,
            and must agree with the rest.
        resolution: side of the input, pixels; None for the given one or the official 1008.
        text_causal: False where the text encoder is a student's, which only the checkpoint's own keys tell.

    Returns:
        The config; without adapters `adapter_dim` is 0.

    Raises:
        ArtifactError: a tensor that tells a size is missing, a given size disagrees, the official defaults do
            not fit a model of this size, or `resolution` is not allowed.
    """
    try:
        check_sizes({name: value for name, value in given.items() if name not in _IGNORED})
    except ValueError as error:
        raise ArtifactError(f"the config says: {error}") from error
    told: dict[str, Any] = {name: _dimension(tensors, *place) for name, place in _FROM_SHAPE.items()}
    told |= {name: _count(tensors, prefix) for name, prefix in _FROM_COUNT.items()}
    told["text_causal"] = text_causal
    told["geometry"] = any(name.startswith("geometry_encoder.") for name in tensors)
    if told["geometry"]:
        told["roi_size"] = _dimension(tensors, "geometry_encoder.boxes_pool_project.weight", 2)
    told["presence"] = next(
        (kind for kind, name in _PRESENCE.items() if f"detector.decoder.{name}.weight" in tensors), "none"
    )
    backbone = student_backbone(tensors)
    if backbone is not None:
        told |= trunk_sizes(tensors, backbone, given)
    else:
        told |= {name: _dimension(tensors, *place) for name, place in _VIT_SHAPE.items()}
        told["vit_depth"] = _count(tensors, "image_encoder.backbone.blocks.")
        table = round(_dimension(tensors, "image_encoder.backbone.pos_embed", 1) ** 0.5)
        told["pretrain_image_size"] = table * told["patch_size"]
    if not text_causal:
        told |= text_sizes(tensors, told, given)
    told["adapter_dim"] = tensors[_ADAPTER].shape[0] if _ADAPTER in tensors else 0
    if told["score_dim"] == told["ffn_dim"]:
        told["score_dim"] = 0
    for name, value in given.items():
        # A file without adapters, or without a geometry encoder, is whole; sizes of these say nothing.
        absent = (name == "adapter_dim" and not told["adapter_dim"]) or (
            name in ("geometry_layers", "roi_size") and not told["geometry"]
        )
        value = tuple(value) if isinstance(value, list) else value
        if name in told and value != told[name] and not absent:
            raise ArtifactError(f"the config says {name} {value}, the tensors say {told[name]}")
    untold = {name: given.get(name, getattr(SAM3I_OFFICIAL, name)) for name in UNTOLD if name not in told}
    untold["vit_global_blocks"] = tuple(untold["vit_global_blocks"])
    if resolution is not None:
        untold["image_size"] = resolution
    _check(told, untold, given)
    try:
        return ModelConfig(**told, **untold)
    except ValueError as error:
        raise ArtifactError(f"the sizes do not fit together: {error}") from error


def _check(told: Mapping[str, int], untold: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    student = told.get("backbone") is not None
    unit = SAM3I_OFFICIAL.patch_size if student else untold["window_size"] * told["patch_size"]
    size = untold["image_size"]
    if size < 1 or size % unit:
        nearest = max(1, round(size / unit)) * unit
        raise ArtifactError(
            f"a resolution of {size} px is not possible: want a multiple of {unit}, the nearest is {nearest}"
        )
    sizes, wanted = [], []
    if not student:
        sizes, wanted = ["vit_depth", "vit_width"], ["vit_heads", "vit_global_blocks", "window_size"]
    if told["text_causal"]:
        sizes, wanted = [*sizes, "text_width"], [*wanted, "text_heads"]
    if all(told[size] == getattr(SAM3I_OFFICIAL, size) for size in sizes):
        return
    guessed = [name for name in wanted if name not in given]
    if guessed:
        found = ", ".join(f"{size} {told[size]}" for size in sizes)
        raise ArtifactError(
            f"this is no checkpoint of official size ({found}), and its tensors do not tell "
            f"{', '.join(guessed)}: give --config FILE.json"
        )


def _dimension(tensors: Mapping[str, torch.Tensor], name: str, dimension: int) -> int:
    if name not in tensors or tensors[name].ndim <= dimension:
        raise ArtifactError(f"the checkpoint is not whole: {name} is missing or has too few dimensions")
    return tensors[name].shape[dimension]


def _count(tensors: Mapping[str, torch.Tensor], prefix: str) -> int:
    layer = re.compile(re.escape(prefix) + r"(\d+)\.")
    return 1 + max((int(found[1]) for found in map(layer.match, tensors) if found), default=-1)
