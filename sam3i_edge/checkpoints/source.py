"""Opens what users hold: a PyTorch file, a safetensors file, a transformers folder or its Hub id.

Nothing is ever unpickled but tensors, and nothing is decided by a file's name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from sam3i_edge.checkpoints.huggingface import config_values
from sam3i_edge.errors import ArtifactError

_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
HUB_FILES = ("*.safetensors", "*.safetensors.index.json", "*.json", "*.txt", "LICENSE*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """An opened checkpoint.

    Attributes:
        state: key -> tensor, mapped from the file where its format allows: values are read when used.
        sizes: what the checkpoint itself says of the sizes, in our names.
        notes: facts of the container for the bundle's provenance, such as the trainer's stage.
    """

    state: Mapping[str, torch.Tensor]
    sizes: Mapping[str, Any]
    notes: Mapping[str, str]


def open_source(path: Path) -> Source:
    """Opens a file or folder.

    Raises:
        ArtifactError: it is missing, damaged, holds code, or holds no tensors.
    """
    if path.is_dir():
        return _open_folder(path)
    if not path.is_file():
        raise ArtifactError(f"there is no checkpoint {path}")
    with path.open("rb") as file:
        start = file.read(512)
    if start.lstrip()[:1] == b"<":
        raise ArtifactError(
            f"{path} is a web page and no checkpoint: the download failed, open its link in a browser, log in"
        )
    # A safetensors file begins with the length of its JSON header.
    if start[8:9] == b"{":
        return Source(state=_safetensors(path), sizes={}, notes={})
    return _open_torch(path)


def _open_torch(path: Path) -> Source:
    zipped = path.open("rb").read(2) == b"PK"
    try:
        container = torch.load(path, map_location="cpu", mmap=zipped, weights_only=True)
    except UnpicklingError as error:
        raise ArtifactError(
            f"{path} is no plain checkpoint: it is damaged, or holds code, of which nothing was run "
            f"({_first_line(error)})"
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise ArtifactError(
            f"{path} cannot be read as a checkpoint ({_first_line(error)}): it is cut short or damaged, "
            "download it again"
        ) from error
    if not isinstance(container, Mapping):
        raise ArtifactError(f"{path} holds a {type(container).__name__}, want a state dict")
    state = container.get("model", container.get("state_dict", container))
    if not isinstance(state, Mapping) or not any(isinstance(value, torch.Tensor) for value in state.values()):
        raise ArtifactError(
            f"{path} holds no tensors; its entries: {', '.join(map(str, list(container)[:20]))}"
        )
    notes = {
        f"trainer_{name}": str(container[name])
        for name in ("inst_stage", "epoch", "steps")
        if state is not container and name in container
    }
    adapters = container.get("adapter_config") if state is not container else None
    meta = container.get("meta") if state is not container else None
    context = meta.get("text_context_length") if isinstance(meta, Mapping) else None
    sizes = _adapter_sizes(adapters) | ({"text_context": context} if isinstance(context, int) else {})
    return Source(state=_only_tensors(path, state), sizes=sizes, notes=notes)


def _adapter_sizes(values: object) -> dict[str, Any]:
    """Heads and scale of the adapters, where a trainer wrote them down."""
    if not isinstance(values, Mapping):
        return {}
    names = {"adapter_heads": int, "adapter_scale": float}
    return {
        name: kind(values[name]) for name, kind in names.items() if isinstance(values.get(name), (int, float))
    }


def _open_folder(path: Path) -> Source:
    sizes: dict[str, Any] = {}
    if (path / "config.json").is_file():
        try:
            sizes = config_values(json.loads((path / "config.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, AttributeError, RecursionError) as error:
            raise ArtifactError(f"{path / 'config.json'} is damaged: {error}") from error
    if (path / _INDEX).is_file():
        try:
            shards = sorted(
                set(json.loads((path / _INDEX).read_text(encoding="utf-8"))["weight_map"].values())
            )
        except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
            raise ArtifactError(f"{path / _INDEX} is damaged: {error}") from error
        state: dict[str, torch.Tensor] = {}
        for shard in shards:
            if Path(shard).name != shard:
                raise ArtifactError(f"{path / _INDEX} names {shard!r}, which is no file of this folder")
            state |= _safetensors(path / shard)
        return Source(state=state, sizes=sizes, notes={})
    if (path / _SINGLE).is_file():
        return Source(state=_safetensors(path / _SINGLE), sizes=sizes, notes={})
    raise ArtifactError(
        f"{path} holds neither {_SINGLE} nor {_INDEX}: want a transformers model's folder, or name one file "
        "of it (of the Hub: ORG/NAME/FILE.pt)"
    )


def _safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
    except (SafetensorError, OSError) as error:
        raise ArtifactError(
            f"{path} cannot be read as safetensors ({_first_line(error)}): it is cut short or damaged"
        ) from error


def _only_tensors(path: Path, state: Mapping[object, object]) -> dict[str, torch.Tensor]:
    wrong = [str(key) for key, value in state.items() if not isinstance(value, torch.Tensor)]
    if wrong:
        raise ArtifactError(f"{path} mixes tensors with other entries: {', '.join(wrong[:20])}")
    tensors = {str(key): value for key, value in state.items() if isinstance(value, torch.Tensor)}
    odd = sorted(n for n, t in tensors.items() if t.layout != torch.strided or t.is_quantized or t.is_meta)
    if odd:
        raise ArtifactError(
            f"{path} holds sparse, quantized or empty tensors, want plain ones: {', '.join(odd[:20])}"
        )
    return tensors


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
