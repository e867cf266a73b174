"""An official checkpoint as our tensors and as a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sam3i_edge.checkpoints.huggingface import HUGGINGFACE
from sam3i_edge.checkpoints.keys import Converted, convert_keys
from sam3i_edge.checkpoints.official import OFFICIAL
from sam3i_edge.checkpoints.sizes import infer_config, read_sizes
from sam3i_edge.checkpoints.source import open_source
from sam3i_edge.errors import ArtifactError
from sam3i_edge.model.config import ModelConfig
from sam3i_edge.model.folding import fold, site_gates
from sam3i_edge.model.sam3i import SAM3I, GraphModel, adapter_of
from sam3i_edge.model.weights import build_model, no_parameter_storage

LAYOUTS = (OFFICIAL, HUGGINGFACE)
_SHOWN = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A checkpoint in our names, complete and of the right shapes.

    Attributes:
        config: the sizes; `adapter_dim` is 0 where the file has no adapters (level concept only).
        tensors: our name -> tensor, mapped from the source, in its dtype; constant adapters are folded.
        dropped: reason -> source keys that were left out.
        notes: layout, dtypes, and what the container says of its training.
        folded_adapters, folded_bytes: constant adapters, and the float32 bytes that folding them saves.
    """

    config: ModelConfig
    tensors: Mapping[str, torch.Tensor]
    dropped: Mapping[str, list[str]]
    notes: Mapping[str, str]
    folded_adapters: int
    folded_bytes: int


def read_checkpoint(
    path: str | Path,
    *,
    adapters: str | Path | None = None,
    config: str | Path | Mapping[str, Any] | None = None,
    resolution: int | None = None,
) -> Checkpoint:
    """Opens, renames and checks a checkpoint; large values stay in the file until they are used.

    Args:
        path: a `sam3.pt`, a SAM3-I trainer checkpoint, a safetensors file in either layout, or the folder of
            a transformers model.
        adapters: a SAM3-I checkpoint to take the adapters from, where `path` is a base without them.
        config: sizes that tensors cannot tell, by the names of `ModelConfig`: a JSON file or a mapping. What
            neither this nor the checkpoint says is taken from the official model.
        resolution: side of the input, pixels.

    Raises:
        ArtifactError: a file is missing, damaged or holds code; a key is unknown; a tensor is missing, has a
            wrong shape or dtype; or the sizes do not fit. The message lists what is wrong.
    """
    source = open_source(Path(path))
    converted = convert_keys(source.state, LAYOUTS)
    tensors, dropped = converted.tensors, dict(converted.dropped)
    notes = {"layout": converted.layout, **source.notes}
    sizes = dict(source.sizes)
    if adapters is not None:
        second = open_source(Path(adapters))
        extra = convert_keys(second.state, LAYOUTS)
        tensors = _join(converted, extra, Path(adapters), dropped)
        notes |= second.notes
        sizes |= second.sizes
    if config is not None:
        sizes |= dict(config) if isinstance(config, Mapping) else read_sizes(Path(config))
    model_config = infer_config(tensors, sizes, resolution)
    gates = _check(tensors, model_config)
    folded = fold(tensors, gates)
    notes["dtypes"] = ", ".join(
        sorted({str(value.dtype).removeprefix("torch.") for value in tensors.values()})
    )
    return Checkpoint(
        config=model_config,
        tensors=folded.tensors,
        dropped=dropped,
        notes=notes,
        folded_adapters=folded.adapters,
        folded_bytes=folded.bytes_saved,
    )


def load_checkpoint(
    path: str | Path,
    config: str | Path | Mapping[str, Any] | None = None,
    *,
    adapters: str | Path | None = None,
    resolution: int | None = None,
) -> GraphModel:
    """Loads a checkpoint as a model.

    Args:
        path: as in `read_checkpoint`.
        config: as in `read_checkpoint`.
        adapters: as in `read_checkpoint`.
        resolution: as in `read_checkpoint`.

    Returns:
        The model in evaluation mode, float32, with the levels it has: `image_encoder(pixel_values)`,
        `text_encoder(input_ids, level="simple")`, `detector(fpn_4x, fpn_2x, fpn_1x, prompt, prompt_mask,
        level)`.

    Raises:
        ArtifactError: as `read_checkpoint`.
    """
    checkpoint = read_checkpoint(path, adapters=adapters, config=config, resolution=resolution)
    tensors = {name: value.float().contiguous() for name, value in checkpoint.tensors.items()}
    return GraphModel(build_model(checkpoint.config, tensors)).eval()


def _join(
    base: Converted, second: Converted, path: Path, dropped: dict[str, list[str]]
) -> dict[str, torch.Tensor]:
    taken = {name: value for name, value in second.tensors.items() if adapter_of(name)}
    if not taken:
        raise ArtifactError(f"{path} holds no adapters")
    if any(adapter_of(name) for name in base.tensors):
        raise ArtifactError(f"both files hold adapters: leave {path} out, or give a base without them")
    left = [name for name in second.tensors if name not in taken]
    if left:
        dropped["base weights of the adapters' file; the base comes from the other"] = left
    return {**base.tensors, **taken}


def _check(tensors: Mapping[str, torch.Tensor], config: ModelConfig) -> dict[str, torch.Tensor]:
    """Compares names, shapes and dtypes with the model; gives the gates of its adapter sites."""
    with no_parameter_storage():
        model = SAM3I(config)
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    missing = sorted(wanted.keys() - tensors.keys())
    surplus = sorted(tensors.keys() - wanted.keys())
    wrong = [
        f"{name} is {tuple(value.shape)}, want {wanted[name]}"
        for name, value in tensors.items()
        if name in wanted and tuple(value.shape) != wanted[name]
    ]
    typed = [
        f"{name} is {value.dtype}, want a float"
        for name, value in tensors.items()
        if not value.is_floating_point()
    ]
    for count, text in (
        (missing, "tensors are missing: "),
        (surplus, "tensors are more than a model of this size has: "),
        (wrong, "tensors have a wrong shape: "),
        (typed, "tensors have a wrong dtype: "),
    ):
        if count:
            more = f" and {len(count) - _SHOWN} more" if len(count) > _SHOWN else ""
            raise ArtifactError(f"{len(count)} {text}{', '.join(count[:_SHOWN])}{more}")
    return site_gates(model)
