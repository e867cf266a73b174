"""Recipes: which modules become integers, in which form, and which stay float."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from torch import nn

from sam3i_edge.model.adapters import Bottleneck
from sam3i_edge.model.sam3i import SAM3I

Kind = Literal["linear", "conv2d", "conv_transpose2d", "embedding"]

_KINDS: dict[type[nn.Module], Kind] = {
    nn.Linear: "linear",
    nn.Conv2d: "conv2d",
    nn.ConvTranspose2d: "conv_transpose2d",
    nn.Embedding: "embedding",
}
# The one table that is gathered by ids, in every model whatever its size; the others hold learned tokens.
_TABLE = "text_encoder.token_embedding"

# What decides whether and where there is something: a step of int8 in a score is a different instance.
_HEADS = (
    "detector.scoring.*",
    "detector.decoder.box_head.*",
    "detector.decoder.presence_head.*",
    "detector.decoder.box_bias_?.*",
)
# Weights gathered by level: integers behind a gather run as a float product in ONNX Runtime.
_GATHERED = ("detector.*.adapter.*", "detector.mask_decoder.mask_embedders.*")
# They see one value a channel, and what they give multiplies whole maps.
_SQUEEZES = ("image_encoder.backbone.features.*.squeeze.*",)
# The first depthwise kernels: folded batch norms leave taps of 26 that cancel, and one rounding of them moved
# scores of sam3i-nano by more than any other layer. They are 0.4 % of its multiply-adds.
_FIRST = ("image_encoder.stages.0.0.depthwise.*",)
# Few weights that decide which thing is chosen: of two that are nearly alike, 4 bits here chose the other.
_EIGHT_BITS = ("detector.decoder.*",)
# In no exported graph.
_UNUSED = ("detector.mask_decoder.semantic_proj",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a model is quantized.

    Attributes:
        name: the precision that it gives.
        linear_bits: of the weights of linear layers, 8 (a scale per output channel) or 4 (a scale per group).
            The token table has 8 and a scale per token.
        group: input channels that share a scale at 4 bits. A layer whose input it does not divide takes 8
            bits.
        eight_bits: patterns (`fnmatch`) of names of linear layers that take 8 bits whatever `linear_bits`.
        static_activations: inputs (of convolutions outputs too) are int8 with one fixed scale a tensor; False
            leaves activations float.
        keep_float: patterns (`fnmatch`) of module names that stay float.
    """

    name: str
    linear_bits: Literal[4, 8] = 8
    group: int = 32
    eight_bits: tuple[str, ...] = _EIGHT_BITS
    static_activations: bool = False
    keep_float: tuple[str, ...] = _HEADS + _GATHERED + _SQUEEZES + _FIRST + _UNUSED

    def __post_init__(self) -> None:
        if self.linear_bits not in (4, 8):
            raise ValueError(f"linear_bits must be 4 or 8, got {self.linear_bits}")
        if self.group < 1:
            raise ValueError(f"group must be at least 1, got {self.group}")
        if self.static_activations and self.linear_bits == 4:
            raise ValueError(
                "static int8 activations go with 8-bit weights: ONNX Runtime 1.31 refuses int4 beside them"
            )

    def kind(self, name: str, module: nn.Module) -> Kind | None:
        """What the module becomes, or None where it stays float."""
        kind = _KINDS.get(type(module))
        if kind == "embedding" and name != _TABLE:
            return None
        if kind is None or any(fnmatchcase(name, pattern) for pattern in self.keep_float):
            return None
        return kind

    def bits(self, name: str, module: nn.Module) -> Literal[4, 8]:
        """Of this module's weights; 4 come in groups along the input."""
        if self.linear_bits == 8 or not isinstance(module, nn.Linear) or module.in_features % self.group:
            return 8
        return 8 if any(fnmatchcase(name, pattern) for pattern in self.eight_bits) else 4

    def modules(self, model: SAM3I) -> dict[str, nn.Module]:
        """The modules to quantize, by name, in the order of the model."""
        inner = {f"{name}." for name, module in model.named_modules() if isinstance(module, Bottleneck)}
        return {
            name: module
            for name, module in model.named_modules()
            if self.kind(name, module) and not any(name.startswith(prefix) for prefix in inner)
        }


RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(name="int8", static_activations=True),
        Recipe(name="int8w"),
        Recipe(name="int4", linear_bits=4),
    )
}
