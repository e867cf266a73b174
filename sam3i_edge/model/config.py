"""The sizes of a SAM3-I model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Final

# More than any model has: what is beyond is a slip, and would end in no memory.
_MOST: Final = 1 << 20
_LIMITS: Final = {"image_size": 8_192, "pretrain_image_size": 8_192}
# Parts that a model can do without.
_MAY_BE_ZERO: Final = {
    "vit_depth", "conv_depth", "text_layers", "encoder_layers", "decoder_layers", "geometry_layers",
    "score_dim", "adapter_dim",
}  # fmt: skip


def check_sizes(values: Mapping[str, Any]) -> None:
    """Checks sizes one by one; whether they fit together, `ModelConfig` says.

    Args:
        values: some fields of `ModelConfig`, by name.

    Raises:
        ValueError: one is no number of its kind or beyond its limit; names it.
    """
    for name, value in values.items():
        if name == "backbone":
            continue
        if name == "adapter_scale":
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise ValueError(f"{name} must be a finite number, got {value!r:.60}")
            continue
        least = 0 if name in _MAY_BE_ZERO or name == "vit_global_blocks" else 1
        most = _LIMITS.get(name, _MOST)
        several = name in ("vit_global_blocks", "conv_widths")
        if several != isinstance(value, list | tuple):
            raise ValueError(
                f"{name} must be {'a list of numbers' if several else 'one number'}, got {value!r:.60}"
            )
        for size in value if several else [value]:
            if isinstance(size, bool) or not isinstance(size, int) or not least <= size <= most:
                raise ValueError(f"{name} must be a whole number from {least} to {most:,}, got {size!r:.60}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """One model, complete. The defaults are the official SAM3-I at 1008 px.

    Attributes:
        image_size: side of the square input, pixels.
        backbone: "vit" (the official ViT with a simple feature pyramid) or "conv" (a small residual network).
        patch_size, pretrain_image_size, window_size, vit_*: the ViT; `window_size` is in patches.
        vit_global_blocks: indices of the blocks that attend to the whole grid.
        conv_widths: channels at strides 2, 4, 8 and 16 of the convolutional backbone.
        conv_depth: residual blocks at each of the strides 4, 8 and 16.
        text_*: the text encoder; `text_context` is the number of token slots.
        vocab_size: entries of the token table.
        d_model, n_heads, ffn_dim: width, heads and feed-forward width of everything after the two encoders.
        score_dim: hidden width of the prompt MLP of the scoring head; 0 means `ffn_dim`.
        encoder_layers, decoder_layers, geometry_layers: depths.
        num_queries: object queries of the decoder.
        roi_size: side of the pooled box feature, bins.
        adapter_dim: bottleneck of the instruction adapters; 0 builds the plain SAM3 (concept only).
        adapter_heads: heads of the text adapters.
        adapter_scale: factor on the fusion and decoder adapters (text adapters ignore it).
        max_detections: queries that `Detector.forward` keeps, best first (all where there are fewer).
    """

    image_size: int = 1008
    backbone: str = "vit"
    patch_size: int = 14
    pretrain_image_size: int = 336
    window_size: int = 24
    vit_width: int = 1024
    vit_depth: int = 32
    vit_heads: int = 16
    vit_mlp_dim: int = 4736
    vit_global_blocks: tuple[int, ...] = (7, 15, 23, 31)
    conv_widths: tuple[int, ...] = (24, 48, 96, 160)
    conv_depth: int = 1
    text_width: int = 1024
    text_layers: int = 24
    text_heads: int = 16
    text_mlp_dim: int = 4096
    text_context: int = 32
    vocab_size: int = 49408
    d_model: int = 256
    n_heads: int = 8
    ffn_dim: int = 2048
    score_dim: int = 0
    encoder_layers: int = 6
    decoder_layers: int = 6
    num_queries: int = 200
    geometry_layers: int = 3
    roi_size: int = 7
    adapter_dim: int = 64
    adapter_heads: int = 4
    adapter_scale: float = 1.0
    max_detections: int = 64

    def __post_init__(self) -> None:
        check_sizes(asdict(self))
        if self.backbone not in ("vit", "conv"):
            raise ValueError(f"backbone must be 'vit' or 'conv', got {self.backbone!r}")
        if self.image_size <= 0 or self.image_size % self.stride:
            raise ValueError(
                f"image_size must be a positive multiple of {self.stride}, got {self.image_size}"
            )
        if self.backbone == "vit" and self.grid % self.window_size:
            raise ValueError(
                f"image_size {self.image_size} gives a grid of {self.grid} patches, which windows of "
                f"{self.window_size} do not tile; use a multiple of {self.window_size * self.patch_size} px"
            )
        for name, width, heads in (
            ("vit", self.vit_width, self.vit_heads),
            ("text", self.text_width, self.text_heads),
            ("d_model", self.d_model, self.n_heads),
        ):
            if width % heads:
                raise ValueError(f"{name} width {width} is not a multiple of its {heads} heads")

    @property
    def stride(self) -> int:
        """Pixels per cell of the 1x grid."""
        return self.patch_size if self.backbone == "vit" else 16

    @property
    def grid(self) -> int:
        """Side of the 1x grid, cells."""
        return self.image_size // self.stride

    @property
    def mask_size(self) -> int:
        """Side of the mask logits: four times the 1x grid."""
        return 4 * self.grid

    @property
    def detections(self) -> int:
        """Queries that the detector returns."""
        return min(self.max_detections, self.num_queries)

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON-ready values."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelConfig:
        """The inverse of `to_dict`.

        Raises:
            ValueError: a field is unknown, or the values do not fit together.
        """
        unknown = sorted(set(values) - {f.name for f in fields(cls)})
        if unknown:
            raise ValueError(f"unknown model config fields {', '.join(unknown)}; see ModelConfig")
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**plain)


SAM3I_OFFICIAL = ModelConfig()

SAM3I_NANO = ModelConfig(
    image_size=224,
    backbone="conv",
    text_width=128,
    text_layers=3,
    text_heads=4,
    text_mlp_dim=512,
    vocab_size=1024,
    d_model=96,
    n_heads=4,
    ffn_dim=384,
    encoder_layers=2,
    decoder_layers=3,
    num_queries=20,
    geometry_layers=1,
    roi_size=3,
    adapter_dim=32,
)

# For tables and drawn shapes, at 256 px; in training, no bundle has it yet.
SAM3I_NANO_256 = replace(
    SAM3I_NANO, image_size=256, conv_widths=(32, 64, 128, 192), vocab_size=2048, adapter_dim=64
)

PRESETS = {"sam3i": SAM3I_OFFICIAL, "sam3i-nano": SAM3I_NANO, "sam3i-nano-256": SAM3I_NANO_256}
