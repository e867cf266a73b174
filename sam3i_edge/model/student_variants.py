"""The image and text encoders that EfficientSAM3 and SAM3-LiteText released, as fields of `ModelConfig`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final


def _tinyvit(widths: tuple[int, ...], heads: tuple[int, ...]) -> dict[str, Any]:
    return {
        "backbone": "tinyvit", "trunk_widths": widths, "trunk_depths": (2, 2, 6, 2), "trunk_heads": heads,
        "trunk_windows": (7, 14, 7),
    }  # fmt: skip


def _repvit(width: int, depths: tuple[int, ...], squeezes: tuple[int, ...]) -> dict[str, Any]:
    widths = tuple(width * 2**stage for stage in range(4))
    return {
        "backbone": "repvit", "trunk_widths": widths, "trunk_depths": depths, "trunk_squeezes": squeezes,
    }  # fmt: skip


def _efficientvit(width: int, depths: tuple[int, ...], group: int) -> dict[str, Any]:
    widths = tuple(width * 2**stage for stage in range(5))
    return {
        "backbone": "efficientvit", "trunk_widths": widths, "trunk_depths": depths, "trunk_group": group,
    }  # fmt: skip


IMAGE_STUDENTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "repvit-m0.9": _repvit(48, (3, 3, 15, 2), (1, 5, *range(9, 22, 2), 25)),
    "repvit-m1.1": _repvit(64, (3, 3, 13, 2), (1, 5, *range(9, 20, 2), 23)),
    "repvit-m2.3": _repvit(80, (7, 7, 35, 2), (1, 3, 5, 9, 11, 13, *range(17, 50, 2), 53)),
    "tinyvit-5m": _tinyvit((64, 128, 160, 320), (4, 5, 10)),
    "tinyvit-11m": _tinyvit((64, 128, 256, 448), (4, 8, 14)),
    "tinyvit-21m": _tinyvit((96, 192, 384, 576), (6, 12, 18)),
    "efficientvit-b0": _efficientvit(8, (1, 2, 2, 2, 2), 16),
    "efficientvit-b1": _efficientvit(16, (1, 2, 3, 3, 4), 16),
    "efficientvit-b2": _efficientvit(24, (1, 3, 4, 4, 6), 32),
}


def _text(width: int, layers: int, mixers: tuple[int, ...] = ()) -> dict[str, Any]:
    return {
        "text_width": width, "text_layers": layers, "text_heads": width // 64, "text_mlp_dim": 4 * width,
        "text_causal": False, "text_mixers": mixers,
    }  # fmt: skip


TEXT_STUDENTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "mobileclip-s0": _text(512, 6, (0, 5)),
    "mobileclip-s1": _text(512, 12),
    "mobileclip2-l": _text(768, 12),
}


def variant_name(variants: Mapping[str, Mapping[str, Any]], sizes: Mapping[str, Any]) -> str | None:
    """The variant that these sizes are, or None.

    Args:
        variants: `IMAGE_STUDENTS` or `TEXT_STUDENTS`.
        sizes: fields of `ModelConfig`, by name.
    """
    return next(
        (name for name, fields in variants.items() if all(sizes.get(k) == v for k, v in fields.items())), None
    )
