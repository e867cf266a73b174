"""Adapters whose last projections are zero are constants: this finds them and replaces them.

The released SAM3-I initialisation zeroes two factors in series, so most of an adapter never learns: the
branch then adds the same vector to every token. Source: SAM3-I (arXiv:2512.04585), the released code.

A text adapter is constant when `Up = 0` and its attention's output projection or value projection is 0; a
bottleneck when `Up = 0`. The complex level of a site is constant when its last bottleneck is and the bridge
adds nothing that varies.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from sam3i_edge.model.adapters import GatedAdapter, TextAdapter
from sam3i_edge.model.sam3i import SAM3I

_TEXT = re.compile(r"(text_encoder\.layers\.\d+\.adapter\.(?:simple|bridge|complex))\.up_proj\.weight")
_SITE = re.compile(r"(detector\.(?:fusion_encoder|decoder)\.layers\.\d+\.adapter)\.complex\.up_proj\.weight")


@dataclass(frozen=True, slots=True)
class Folded:
    """What folding did.

    Attributes:
        tensors: our name -> tensor, with `….constants` in place of what was constant.
        adapters: how many adapters became constants.
        bytes_saved: float32 bytes that the model no longer holds.
    """

    tensors: dict[str, torch.Tensor]
    adapters: int
    bytes_saved: int


class ConstantTextAdapter(nn.Module):
    """A text adapter that adds the same two vectors to every token.

    Two and not their sum, so that the result has the bits of the adapter that it replaces.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.constants = nn.Parameter(torch.zeros(2, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, T, C] -> [B, T, C]."""
        return x + self.constants[0] + self.constants[1]


class ConstantBranch(nn.Module):
    """Rows of constants that a site adds."""

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        self.constants = nn.Parameter(torch.zeros(rows, width))


class FoldedAdapter(nn.Module):
    """A detector site whose complex level is constant, and perhaps its simple level too.

    Args:
        site: what it replaces.
        width: channels.
        simple_constant: the simple level is constant too.
    """

    gate: torch.Tensor

    def __init__(self, site: GatedAdapter, width: int, *, simple_constant: bool) -> None:
        super().__init__()
        self.simple = ConstantBranch(1, width) if simple_constant else site.simple
        self.complex = ConstantBranch(2, width)
        simple_gate = site.gates[:, 0] * torch.tensor((0.0, 1.0, 0.0))
        self.register_buffer("gate", simple_gate, persistent=False)

    def forward(self, x: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        """[B, N, C], level int64 [B] -> [B, N, C]."""
        gate = self.gate.index_select(0, level)[:, None, None]
        branch = self.simple.constants if isinstance(self.simple, ConstantBranch) else self.simple(x)
        nothing = torch.zeros_like(self.complex.constants)
        added = torch.stack((nothing, nothing, self.complex.constants)).index_select(0, level)  # [B, 2, C]
        return x + gate * branch + added[:, :1] + added[:, 1:]


def fold(tensors: Mapping[str, torch.Tensor], gates: Mapping[str, torch.Tensor]) -> Folded:
    """Replaces constant adapters in a state dict.

    Args:
        tensors: our name -> tensor.
        gates: `detector.….adapter` -> its gates [3, 2], times the adapter scale.
    """
    kept = dict(tensors)
    adapters = 0
    for name in tensors:
        if found := _TEXT.fullmatch(name):
            adapters += _fold_text(kept, found[1])
        elif found := _SITE.fullmatch(name):
            adapters += _fold_site(kept, found[1], gates[found[1]])
    return Folded(kept, adapters, 4 * (_numel(tensors) - _numel(kept)))


def unfold(
    tensors: Mapping[str, torch.Tensor], fresh: Mapping[str, torch.Tensor], gates: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """The inverse of `fold`: adapters that give what the constants give, and can learn again.

    Args:
        tensors: our name -> tensor; what is no constant stays, and so do constants that `fresh` has.
        fresh: state of a new model, whose values are taken for what a constant does not tell.
        gates: as in `fold`.
    """
    kept = dict(tensors)
    for name in [name for name in tensors if name.endswith(".constants") and name not in fresh]:
        constants, path = kept.pop(name), name.removesuffix(".constants")
        if path.startswith("text_encoder."):
            layers = [(f"{path}.attn.o_proj", constants[0]), (f"{path}.up_proj", constants[1])]
        elif path.endswith(".complex"):
            site = path.removesuffix(".complex")
            gate_a, gate_b = gates[site][2].tolist()
            bridge = constants[0] / gate_a if gate_a else torch.zeros_like(constants[0])
            layers = [(f"{site}.bridge.up_proj", bridge), (f"{path}.up_proj", constants[1] / gate_b)]
        else:
            layers = [(f"{path}.up_proj", constants[0])]
        for adapter in {layer.removesuffix(".up_proj").removesuffix(".attn.o_proj") for layer, _ in layers}:
            kept |= {key: value.clone() for key, value in fresh.items() if key.startswith(f"{adapter}.")}
        for layer, bias in layers:
            kept |= {f"{layer}.weight": torch.zeros_like(fresh[f"{layer}.weight"]), f"{layer}.bias": bias}
    return kept


def with_constants(model: SAM3I, names: Iterable[str]) -> SAM3I:
    """Gives `model` the constant adapters that a folded state dict has; their values are loaded later."""
    folded = {name.removesuffix(".constants") for name in names if name.endswith(".constants")}
    for path in sorted(folded):
        if path.startswith("text_encoder."):
            parent, leaf = path.rsplit(".", 1)
            old = model.get_submodule(path)
            if not isinstance(old, TextAdapter):
                raise TypeError(f"{path} is a {type(old).__name__}, want a TextAdapter")
            setattr(model.get_submodule(parent), leaf, ConstantTextAdapter(model.config.text_width))
        elif path.endswith(".complex"):
            place = path.removesuffix(".complex")
            site = model.get_submodule(place)
            if not isinstance(site, GatedAdapter):
                raise TypeError(f"{place} is a {type(site).__name__}, want a GatedAdapter")
            simple = f"{place}.simple" in folded
            new = FoldedAdapter(site, model.config.d_model, simple_constant=simple)
            model.get_submodule(place.rsplit(".", 1)[0]).adapter = new
    return model


def site_gates(model: SAM3I) -> dict[str, torch.Tensor]:
    """The gates of every detector site, for `fold`."""
    return {name: module.gates for name, module in model.named_modules() if isinstance(module, GatedAdapter)}


def _fold_text(tensors: dict[str, torch.Tensor], path: str) -> int:
    def part(name: str) -> torch.Tensor:
        return tensors[f"{path}.{name}"]

    silent = _zero(part("attn.o_proj.weight")) or _zero(part("attn.v_proj.weight"))
    if not (silent and _zero(part("up_proj.weight"))):
        return 0
    value = part("attn.o_proj.weight").double() @ part("attn.v_proj.bias").double()
    attended = (value + part("attn.o_proj.bias").double()).float()
    constants = torch.stack((attended, part("up_proj.bias").float()))
    _replace(tensors, path, constants)
    return 1


def _fold_site(tensors: dict[str, torch.Tensor], path: str, gates: torch.Tensor) -> int:
    def part(name: str) -> torch.Tensor:
        return tensors[f"{path}.{name}"]

    def silent(branch: str) -> bool:
        return _zero(part(f"{branch}.up_proj.weight"))

    gate_a, gate_b = gates[2].tolist()
    if not (silent("complex") and (silent("bridge") or gate_a == 0)):
        return 0
    first = (
        gate_a * part("bridge.up_proj.bias").float()
        if gate_a
        else torch.zeros(part("complex.up_proj.bias").shape)
    )
    constants = torch.stack((first, gate_b * part("complex.up_proj.bias").float()))
    simple = part("simple.up_proj.bias").float()[None] if silent("simple") else None
    for branch in ("bridge", "complex"):
        _drop(tensors, f"{path}.{branch}")
    tensors[f"{path}.complex.constants"] = constants
    if simple is not None:
        _replace(tensors, f"{path}.simple", simple)
    return 2 + (simple is not None)


def _replace(tensors: dict[str, torch.Tensor], path: str, constants: torch.Tensor) -> None:
    _drop(tensors, path)
    tensors[f"{path}.constants"] = constants


def _drop(tensors: dict[str, torch.Tensor], path: str) -> None:
    for name in [name for name in tensors if name.startswith(f"{path}.")]:
        del tensors[name]


def _zero(weight: torch.Tensor) -> bool:
    return not bool(weight.any())


def _numel(tensors: Mapping[str, torch.Tensor]) -> int:
    return sum(value.numel() for value in tensors.values())
