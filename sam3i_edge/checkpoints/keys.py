"""A checkpoint layout as data, and the renaming that it drives.

A rule is (pattern, target, operation). Patterns match a whole key after the layout's prefix is stripped.
Operations: "copy"; "split" cuts dim 0 in three for q, k and v (the target holds `{qkv}`); "no_cls" drops the
first row of dim 1 (the pretrained class position).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch

from sam3i_edge.errors import ArtifactError

Rule = tuple[re.Pattern[str], str, str]

_SHOWN = 20  # keys that an error lists


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyLayout:
    """How one kind of checkpoint names its tensors.

    Attributes:
        name: for messages.
        marker: found in at least one key of this layout and in none of another.
        prefix: what may stand before every key.
        rules: key to our name; the first that matches the whole key wins.
        dropped: (reason, pattern) of keys that an image model does not need; checked before the rules, with
            and without the prefix.
    """

    name: str
    marker: re.Pattern[str]
    prefix: re.Pattern[str]
    rules: tuple[Rule, ...]
    dropped: tuple[tuple[str, re.Pattern[str]], ...]


@dataclass(frozen=True, slots=True)
class Converted:
    """A checkpoint in our names.

    Attributes:
        layout: name of its layout.
        tensors: our parameter name -> tensor, sharing memory with the source.
        dropped: reason -> keys that were left out.
    """

    layout: str
    tensors: dict[str, torch.Tensor]
    dropped: dict[str, list[str]]


def compile_rules(rules: Iterable[tuple[str, str, str]]) -> tuple[Rule, ...]:
    """Compiles the patterns of rules."""
    return tuple((re.compile(pattern), target, operation) for pattern, target, operation in rules)


def compile_dropped(rules: Iterable[tuple[str, str]]) -> tuple[tuple[str, re.Pattern[str]], ...]:
    """Compiles the patterns of what is dropped."""
    return tuple((reason, re.compile(pattern)) for reason, pattern in rules)


def convert_keys(state: Mapping[str, torch.Tensor], layouts: Sequence[KeyLayout]) -> Converted:
    """Renames a state dict by the layout that its keys show.

    Args:
        state: the flat state dict.
        layouts: the known ones.

    Returns:
        Converted; base tensors, and adapters where the file has them.

    Raises:
        ArtifactError: the keys show no layout, some of them are unknown to it, or two become the same tensor.
    """
    layout = next((one for one in layouts if any(one.marker.search(key) for key in state)), None)
    if layout is None:
        raise ArtifactError(
            f"none of the {len(state)} keys belongs to a known layout ({_listed(state)}); want "
            + " or ".join(one.name for one in layouts)
        )
    tensors: dict[str, torch.Tensor] = {}
    dropped: dict[str, list[str]] = {}
    unknown: list[str] = []
    twice: list[str] = []
    for key, value in state.items():
        name = layout.prefix.sub("", key, count=1)
        reason = next(
            (why for why, pattern in layout.dropped if pattern.fullmatch(key) or pattern.fullmatch(name)),
            None,
        )
        if reason is not None:
            dropped.setdefault(reason, []).append(key)
            continue
        renamed = _rename(layout, name, value)
        if renamed is None:
            unknown.append(key)
            continue
        twice += renamed.keys() & tensors.keys()
        tensors |= renamed
    if unknown:
        trunk = [key for key in unknown if ".trunk." in key]
        hint = (
            "; its image backbone is none of ours: want SAM3's ViT"
            if len(trunk) == len(unknown)
            else f"; want {layout.name}"
        )
        raise ArtifactError(f"{len(unknown)} checkpoint keys are unknown: {_listed(unknown)}{hint}")
    if twice:
        raise ArtifactError(f"{len(twice)} tensors are in the checkpoint twice: {_listed(twice)}")
    return Converted(layout.name, tensors, dropped)


_WANTED = {"split": "does not split into q, k and v", "no_cls": "is no table [1, positions, width]"}


def _rename(layout: KeyLayout, name: str, value: torch.Tensor) -> dict[str, torch.Tensor] | None:
    for pattern, target, operation in layout.rules:
        found = pattern.fullmatch(name)
        if found:
            to = found.expand(target)
            if (operation == "split" and (not value.ndim or value.shape[0] % 3)) or (
                operation == "no_cls" and value.ndim != 3
            ):
                raise ArtifactError(
                    f"the tensor {name} has shape {tuple(value.shape)}, which {_WANTED[operation]}"
                )
            if operation == "split":
                return {to.replace("{qkv}", n): part for n, part in zip("qkv", value.chunk(3), strict=True)}
            return {to: value[:, 1:] if operation == "no_cls" else value}
    return None


def _listed(keys: Iterable[str]) -> str:
    ordered = sorted(keys)
    more = f" and {len(ordered) - _SHOWN} more" if len(ordered) > _SHOWN else ""
    return ", ".join(ordered[:_SHOWN]) + more
