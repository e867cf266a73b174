"""The sizes of a SAM3-I model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Final

# More than any model has: what is beyond is a slip, and would end in no memory.
_MOST: Final = 1 << 20
_LIMITS: Final = {"image_size": 8_192, "pretrain_image_size": 8_192}
# Parts that a model can do without.
_MAY_BE_ZERO: Final = {
    "vit_depth", "conv_depth", "text_layers", "encoder_layers", "decoder_layers", "geometry_layers",
    "score_dim", "mask_detail", "adapter_dim", "trunk_depths", "trunk_group", "text_mixers",
    "vit_global_blocks",
}  # fmt: skip
_SEVERAL: Final = {
    "vit_global_blocks", "conv_widths", "trunk_widths", "trunk_depths", "trunk_squeezes", "trunk_heads",
    "trunk_windows", "text_mixers",
}  # fmt: skip
_CHOICES: Final[Mapping[str, tuple[object, ...]]] = {
    "backbone": ("vit", "conv", "efficientnet", "repvit", "tinyvit", "efficientvit"),
    "text_causal": (True, False),
    "geometry": (True, False),
    "query_adapters": (True, False),
    "presence": ("score", "token", "none"),
}
# Stages that a student's trunk has, by its backbone.
_STAGES: Final = {"repvit": 4, "tinyvit": 4, "efficientvit": 5}


def check_sizes(values: Mapping[str, Any]) -> None:
    """Checks sizes one by one; whether they fit together, `ModelConfig` says.

    Args:
        values: some fields of `ModelConfig`, by name.

    Raises:
        ValueError: one is no number of its kind or beyond its limit; names it.
    """
    for name, value in values.items():
        if name in _CHOICES:
            if not any(value == choice and type(value) is type(choice) for choice in _CHOICES[name]):
                known = " or ".join(map(repr, _CHOICES[name]))
                raise ValueError(f"{name} must be {known}, got {value!r:.60}")
            continue
        if name == "adapter_scale":
            if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _MOST:
                raise ValueError(f"{name} must be a number within ±{_MOST:,}, got {value!r:.60}")
            continue
        least = 0 if name in _MAY_BE_ZERO else 1
        most = _LIMITS.get(name, _MOST)
        several = name in _SEVERAL
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
        backbone: "vit" (the official ViT with a simple feature pyramid), "conv" (a small residual network),
            "efficientnet" (EfficientNet-Lite), or the trunk of a student under the ViT's pyramid: "repvit",
            "tinyvit", "efficientvit".
        patch_size, pretrain_image_size, window_size, vit_*: the ViT; `window_size` is in patches.
        vit_width: also the channels that a student's head gives to the pyramid.
        vit_global_blocks: indices of the blocks that attend to the whole grid.
        conv_widths: channels at strides 2, 4, 8 and 16 of the convolutional backbone.
        conv_depth: residual blocks at each of the strides 4, 8 and 16.
        trunk_widths: channels of a student's stages, of its stem first for EfficientViT and EfficientNet.
        trunk_depths: blocks of each of these, without those that halve the map.
        trunk_squeezes: RepViT: numbers of the blocks, from 1, that squeeze and excite.
        trunk_heads, trunk_windows: TinyViT: heads and window side of the last three stages.
        trunk_group: EfficientViT: channels of an attention group.
        text_*: the text encoder; `text_context` is the number of token slots.
        text_causal: a token attends to those before it alone (CLIP); False for students, where all slots,
            padding too, attend to all.
        text_mixers: numbers of the blocks, from 0, that mix tokens by a convolution (MobileCLIP S0).
        vocab_size: entries of the token table.
        d_model, n_heads, ffn_dim: width, heads and feed-forward width of everything after the two encoders.
        score_dim: hidden width of the prompt MLP of the scoring head; 0 means `ffn_dim`.
        mask_detail: channels that sharpen masks at twice the 4x grid; 0 leaves masks at that grid, as SAM3's.
        encoder_layers, decoder_layers, geometry_layers: depths.
        num_queries: object queries of the decoder.
        roi_size: side of the pooled box feature, bins.
        geometry: whether there is a geometry encoder; without it the CLS slot of the prompt is masked, and
            boxes cannot be asked for.
        presence: "score" multiplies scores by the presence; "token" keeps its token, which queries attend to,
            and leaves scores alone; "none" does without.
        adapter_dim: bottleneck of the instruction adapters; 0 builds the plain SAM3 (concept only).
        adapter_heads: heads of the text adapters.
        query_adapters: adapters of the decoder that attend from query to query, which SAM3-I's do not.
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
    trunk_widths: tuple[int, ...] = ()
    trunk_depths: tuple[int, ...] = ()
    trunk_squeezes: tuple[int, ...] = ()
    trunk_heads: tuple[int, ...] = ()
    trunk_windows: tuple[int, ...] = ()
    trunk_group: int = 0
    text_width: int = 1024
    text_layers: int = 24
    text_heads: int = 16
    text_mlp_dim: int = 4096
    text_context: int = 32
    text_causal: bool = True
    text_mixers: tuple[int, ...] = ()
    vocab_size: int = 49408
    d_model: int = 256
    n_heads: int = 8
    ffn_dim: int = 2048
    score_dim: int = 0
    mask_detail: int = 0
    encoder_layers: int = 6
    decoder_layers: int = 6
    num_queries: int = 200
    geometry_layers: int = 3
    roi_size: int = 7
    geometry: bool = True
    presence: str = "score"
    adapter_dim: int = 64
    adapter_heads: int = 4
    query_adapters: bool = False
    adapter_scale: float = 1.0
    max_detections: int = 64

    def __post_init__(self) -> None:
        check_sizes(asdict(self))
        if self.image_size <= 0 or self.image_size % self.stride:
            raise ValueError(
                f"image_size must be a positive multiple of {self.stride}, got {self.image_size}"
            )
        if self.backbone == "efficientnet" and self.image_size % 32:
            raise ValueError(f"an efficientnet's image_size is a multiple of 32, got {self.image_size}")
        if self.backbone == "vit" and self.grid % self.window_size:
            raise ValueError(
                f"image_size {self.image_size} gives a grid of {self.grid} patches, which windows of "
                f"{self.window_size} do not tile; use a multiple of {self.window_size * self.patch_size} px"
            )
        for name, width, heads in (
            *((("vit", self.vit_width, self.vit_heads),) if self.backbone == "vit" else ()),
            ("text", self.text_width, self.text_heads),
            ("d_model", self.d_model, self.n_heads),
        ):
            if width % heads:
                raise ValueError(f"{name} width {width} is not a multiple of its {heads} heads")
        if self.text_mixers and max(self.text_mixers) >= self.text_layers:
            raise ValueError(
                f"text_mixers names block {max(self.text_mixers)} of {self.text_layers}, numbered from 0"
            )
        if self.is_student:
            self._check_trunk()

    def _check_trunk(self) -> None:
        stages = _STAGES[self.backbone]
        wanted = {"trunk_widths": stages, "trunk_depths": stages}
        if self.backbone == "tinyvit":
            wanted |= {"trunk_heads": stages - 1, "trunk_windows": stages - 1}
        for name, count in wanted.items():
            if len(getattr(self, name)) != count:
                raise ValueError(f"a {self.backbone} has {count} {name}, got {list(getattr(self, name))}")
        divided = zip(self.trunk_widths[1:], self.trunk_heads, strict=False)
        if self.backbone == "efficientvit":
            divided = zip(self.trunk_widths[3:], (self.trunk_group,) * 2, strict=True)
        for width, part in divided:
            if not part or width % part:
                raise ValueError(f"a {self.backbone} stage of {width} channels cannot be cut by {part}")

    @property
    def is_student(self) -> bool:
        """Whether the image encoder is a student's: a trunk, and a head that makes the ViT's map of its."""
        return self.backbone in _STAGES

    @property
    def stride(self) -> int:
        """Pixels per cell of the 1x grid."""
        return 16 if self.backbone in ("conv", "efficientnet") else self.patch_size

    @property
    def grid(self) -> int:
        """Side of the 1x grid, cells."""
        return self.image_size // self.stride

    @property
    def mask_size(self) -> int:
        """Side of the mask logits: four times the 1x grid, eight times with `mask_detail`."""
        return (8 if self.mask_detail else 4) * self.grid

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

# For tables and drawn shapes; the trunk is EfficientNet-Lite0 without its last stage and head.
SAM3I_NANO_256 = replace(
    SAM3I_NANO,
    image_size=256,
    backbone="efficientnet",
    conv_widths=(),
    trunk_widths=(32, 16, 24, 40, 80, 112, 192),
    trunk_depths=(1, 2, 2, 3, 3, 4),
    vocab_size=2048,
    mask_detail=8,
    adapter_dim=64,
    query_adapters=True,
)

PRESETS = {"sam3i": SAM3I_OFFICIAL, "sam3i-nano": SAM3I_NANO, "sam3i-nano-256": SAM3I_NANO_256}
