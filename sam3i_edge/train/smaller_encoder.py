"""Smaller image encoders: another trunk, fewer channels, or a ViT with fewer blocks.

Which blocks go is chosen by what leaving each out costs. Source: trunks of EfficientSAM3
(SimonZeng7108/efficientsam3); dropping layers of a trained transformer (Fan et al. 2019, arXiv:1909.11556).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor

from sam3i_edge.model.config import ModelConfig
from sam3i_edge.model.student_variants import IMAGE_STUDENTS
from sam3i_edge.model.vit import ViTEncoder

_CHANNELS: Final = 8  # widths are multiples of it


def smaller(teacher: ModelConfig, backbone: str = "", width: float = 1.0) -> dict[str, Any]:
    """Sizes of a smaller image encoder, where they differ from the teacher's.

    Args:
        teacher: sizes.
        backbone: name in `IMAGE_STUDENTS`; "" for the teacher's own.
        width: share of the channels to keep, above 0 and at most 1; heads keep their width.

    Raises:
        ValueError: `backbone` is unknown or `width` is out of range.
    """
    if not 0 < width <= 1:
        raise ValueError(f"width is a share of the channels, above 0 and at most 1, got {width:g}")
    sizes: dict[str, Any] = {}
    if backbone:
        if backbone not in IMAGE_STUDENTS:
            raise ValueError(f"unknown backbone {backbone!r}; choose from {', '.join(IMAGE_STUDENTS)}")
        sizes = {**IMAGE_STUDENTS[backbone], "patch_size": teacher.stride}
        if teacher.backbone == "conv":  # its maps come from no wide one that the head would have to imitate
            sizes["vit_width"] = 2 * teacher.d_model
    merged = ModelConfig.from_dict(teacher.to_dict() | sizes)
    return sizes if width == 1 else sizes | _narrowed(merged, width)


def _narrowed(config: ModelConfig, share: float) -> dict[str, Any]:
    def scaled(size: int, unit: int = _CHANNELS) -> int:
        return max(1, round(size * share / unit)) * unit

    if config.backbone == "vit":
        width = scaled(config.vit_width, config.vit_width // config.vit_heads)
        return {
            "vit_width": width,
            "vit_heads": width * config.vit_heads // config.vit_width,
            "vit_mlp_dim": scaled(config.vit_mlp_dim),
        }
    if config.backbone == "conv":
        return {"conv_widths": tuple(map(scaled, config.conv_widths))}
    if config.backbone == "tinyvit":
        first, *widths = config.trunk_widths
        units = [width // heads for width, heads in zip(widths, config.trunk_heads, strict=True)]
        narrow = [scaled(width, unit) for width, unit in zip(widths, units, strict=True)]
        heads = tuple(width // unit for width, unit in zip(narrow, units, strict=True))
        return {"trunk_widths": (scaled(first), *narrow), "trunk_heads": heads}
    unit = config.trunk_group or _CHANNELS
    early, late = config.trunk_widths[:3], config.trunk_widths[3:]
    return {"trunk_widths": (*map(scaled, early), *(scaled(width, unit) for width in late))}


def without_blocks(teacher: ModelConfig, kept: Sequence[int]) -> dict[str, Any]:
    """Sizes of the teacher's ViT with these blocks alone.

    Args:
        teacher: sizes.
        kept: numbers of blocks, from 0.

    Raises:
        ValueError: the image encoder has no blocks to drop, or not these.
    """
    if teacher.backbone != "vit":
        raise ValueError(
            f"a {teacher.backbone} image encoder has no blocks to drop: want --width or --backbone"
        )
    if not kept or sorted(set(kept)) != list(kept) or not 0 <= kept[0] <= kept[-1] < teacher.vit_depth:
        raise ValueError(
            f"blocks to keep must ascend and be some of 0 to {teacher.vit_depth - 1}, got {list(kept)}"
        )
    places = tuple(place for place, block in enumerate(kept) if block in teacher.vit_global_blocks)
    return {"vit_depth": len(kept), "vit_global_blocks": places}


def choose_blocks(costs: Mapping[int, float], count: int, always: Sequence[int]) -> tuple[int, ...]:
    """The blocks to keep: `always`, and those whose loss costs most.

    Args:
        costs: of leaving out each block.
        count: how many to keep.
        always: blocks that are kept whatever they cost.

    Raises:
        ValueError: `count` is not between the number of `always` and that of all.
    """
    if not len(always) <= count <= len(costs):
        raise ValueError(
            f"can keep {len(always)} to {len(costs)} blocks, got {count}: the {len(always)} that see the "
            "whole picture stay, unless you name the blocks to keep, as in --keep-blocks 0,2,4"
        )
    others = sorted(costs.keys() - set(always), key=lambda block: -costs[block])
    return tuple(sorted([*always, *others[: count - len(always)]]))


@torch.no_grad()
def block_costs(encoder: ViTEncoder, pictures: Sequence[Tensor]) -> Iterator[tuple[int, float]]:
    """What leaving out each block changes in the pyramid: mean square over that of the whole, block by block.

    Args:
        encoder: with its blocks.
        pictures: a few, float32 [1, 3, S, S] each.
    """
    whole = [encoder(picture) for picture in pictures]
    for number, block in enumerate(encoder.backbone.blocks):
        skipped = block.register_forward_hook(lambda module, given, gave: given[0])
        changed = [encoder(picture) for picture in pictures]
        skipped.remove()
        pairs = [pair for a, b in zip(changed, whole, strict=True) for pair in zip(a, b, strict=True)]
        costs = torch.stack([(a - b).square().mean() / b.square().mean() for a, b in pairs])
        yield number, float(costs.mean())
