"""An official checkpoint as our tensors and as a model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sam3i_edge.checkpoints.completion import complete, open_checkpoint, part_names
from sam3i_edge.checkpoints.keys import Converted
from sam3i_edge.checkpoints.sizes import infer_config, read_sizes
from sam3i_edge.checkpoints.student_sizes import config_sizes, cut_positions, student_names
from sam3i_edge.errors import ArtifactError
from sam3i_edge.model.config import SAM3I_OFFICIAL, ModelConfig
from sam3i_edge.model.folding import fold, site_gates
from sam3i_edge.model.sam3i import SAM3I, GraphModel, adapter_of
from sam3i_edge.model.weights import build_model, no_parameter_storage

_SHOWN = 20
_CLIP_ROWS = 77  # of CLIP's position table, which students kept at other contexts too
_PRESENCE_HEAD = ("detector.decoder.presence_head.", "detector.decoder.presence_norm.")
_PRESENCE_TOKEN = "detector.decoder.presence_token."


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A checkpoint in our names, complete and of the right shapes.

    Attributes:
        config: the sizes; `adapter_dim` is 0 where the file has no adapters (level concept only).
        tensors: our name -> tensor, mapped from the source, in its dtype; constant adapters are folded.
        dropped: reason -> source keys that were left out.
        notes: layout, dtypes, released students, and what the container says of its training.
        remarks: sentences on what was completed, left out or assumed.
        folded_adapters, folded_bytes: constant adapters, and the float32 bytes that folding them saves.
    """

    config: ModelConfig
    tensors: Mapping[str, torch.Tensor]
    dropped: Mapping[str, list[str]]
    notes: Mapping[str, str]
    remarks: tuple[str, ...]
    folded_adapters: int
    folded_bytes: int


def read_checkpoint(
    path: str | Path,
    *,
    adapters: str | Path | None = None,
    base: str | Path | None = None,
    config: str | Path | Mapping[str, Any] | None = None,
    resolution: int | None = None,
    context: int | None = None,
    resize_positions: bool = False,
    presence: bool = True,
) -> Checkpoint:
    """Opens, renames and checks a checkpoint; large values stay in the file until they are used.

    Args:
        path: a `sam3.pt`, a SAM3-I trainer checkpoint, a file of EfficientSAM3 or SAM3-LiteText, a
            safetensors file in one of these layouts, or the folder of a transformers model.
        adapters: a SAM3-I checkpoint to take the adapters from, where `path` is a base without them.
        base: a checkpoint to take what `path` lacks from, such as the geometry encoder or all but an image
            encoder. Nothing that `path` has is replaced, and no encoder is made of parts of both.
        config: sizes that tensors cannot tell, by the names of `ModelConfig` or of EfficientSAM3's configs:
            a JSON file or a mapping. What neither this nor the checkpoint says is taken from the official
            model.
        resolution: side of the input, pixels.
        context: token slots of a text student; None for what the file says, or 32.
        resize_positions: interpolate a longer position table in place of cutting it.
        presence: False leaves the presence out of the scores, and needs none.

    Raises:
        ArtifactError: a file is missing, damaged or holds code; a key is unknown; a tensor is missing, has a
            wrong shape or dtype; encoders are mixed; or the sizes do not fit. The message lists what is
            wrong.
    """
    opened = open_checkpoint(Path(path))
    tensors, dropped = opened.converted.tensors, dict(opened.converted.dropped)
    notes = {"layout": opened.converted.layout, **opened.source.notes}
    sizes = dict(opened.source.sizes)
    remarks: list[str] = []
    text_student = opened.text_student
    if base is not None:
        second = open_checkpoint(Path(base))
        if text_student is None:
            text_student = second.text_student
            sizes = {**second.source.sizes, **sizes}
        tensors = complete(tensors, second, opened, remarks)
    if not any(name.startswith("detector.") for name in tensors):
        raise ArtifactError(
            f"{path} holds the {part_names(tensors)} alone: give --base with the file that completes it, "
            "sam3.pt for an encoder of stage 1, the merged file of stage 1 for one of stage 3"
        )
    if adapters is not None:
        second = open_checkpoint(Path(adapters))
        if text_student:
            raise ArtifactError(
                f"the adapters of {adapters} belong to SAM3's own text encoder, and this checkpoint has a "
                "student in its place: leave --adapters out"
            )
        tensors = _join(tensors, second.converted, Path(adapters), dropped)
        notes |= second.source.notes
        sizes |= second.source.sizes
    if config is not None:
        given = config_sizes(config) if isinstance(config, Mapping) else read_sizes(Path(config))
        sizes |= given
    if context is not None:
        sizes["text_context"] = context
    if text_student:
        tensors = _cut(tensors, sizes, Path(path), remarks, resize=resize_positions)
    elif resize_positions:
        raise ArtifactError("the text encoder is SAM3's own: its position table is not resized")
    if not presence:
        heads = [name for name in tensors if name.startswith(_PRESENCE_HEAD)]
        tensors = {name: value for name, value in tensors.items() if name not in set(heads)}
        if heads:
            dropped["presence head, left out of the scores"] = heads
    elif not any(name.startswith((*_PRESENCE_HEAD, _PRESENCE_TOKEN)) for name in tensors):
        raise ArtifactError(
            f"{path} has no presence tensors ({_PRESENCE_TOKEN}weight and others): give --base to take them "
            "from a whole file, or --no-presence to score without"
        )
    model_config = infer_config(tensors, sizes, resolution, text_causal=not text_student)
    if not model_config.geometry:
        remarks.append(
            "no geometry encoder in this checkpoint: the image's CLS slot of the prompt is masked and boxes "
            "cannot be asked for; --base sam3.pt completes it"
        )
    gates = _check(tensors, model_config)
    folded = fold(tensors, gates)
    notes["dtypes"] = ", ".join(
        sorted({str(value.dtype).removeprefix("torch.") for value in tensors.values()})
    )
    if names := student_names(model_config):
        notes["students"] = ", ".join(names)
    if remarks:
        notes["remarks"] = "; ".join(remarks)
    return Checkpoint(
        config=model_config,
        tensors=folded.tensors,
        dropped=dropped,
        notes=notes,
        remarks=tuple(remarks),
        folded_adapters=folded.adapters,
        folded_bytes=folded.bytes_saved,
    )


def load_checkpoint(
    path: str | Path,
    config: str | Path | Mapping[str, Any] | None = None,
    **options: Any,
) -> GraphModel:
    """Loads a checkpoint as a model.

    Args:
        path: as in `read_checkpoint`.
        config: as in `read_checkpoint`.
        options: further arguments of `read_checkpoint`.

    Returns:
        The model in evaluation mode, float32, with the levels it has: `image_encoder(pixel_values)`,
        `text_encoder(input_ids, level="simple")`, `detector(fpn_4x, fpn_2x, fpn_1x, prompt, prompt_mask,
        level)`.

    Raises:
        ArtifactError: as `read_checkpoint`.
    """
    checkpoint = read_checkpoint(path, config=config, **options)
    tensors = {name: value.float().contiguous() for name, value in checkpoint.tensors.items()}
    return GraphModel(build_model(checkpoint.config, tensors)).eval()


def _cut(
    tensors: dict[str, torch.Tensor], sizes: dict[str, Any], path: Path, remarks: list[str], *, resize: bool
) -> dict[str, torch.Tensor]:
    """Brings a student's position table to the context: as told, else all rows, of a long table 32."""
    context = sizes.get("text_context")
    cut, rows = cut_positions(tensors, context, resize=resize)
    if context is None and rows >= _CLIP_ROWS:
        named = re.search(r"ctx(\d+)", path.name)
        context = int(named[1]) if named else SAM3I_OFFICIAL.text_context
        why = f"as the name {path.name} says" if named else "as SAM3 has; --context says otherwise"
        remarks.append(f"the position table has {rows} rows, which do not tell the context: {context}, {why}")
        cut, _ = cut_positions(tensors, context, resize=resize)
    return cut


def _join(
    base: Mapping[str, torch.Tensor], second: Converted, path: Path, dropped: dict[str, list[str]]
) -> dict[str, torch.Tensor]:
    taken = {name: value for name, value in second.tensors.items() if adapter_of(name)}
    if not taken:
        raise ArtifactError(f"{path} holds no adapters")
    if any(adapter_of(name) for name in base):
        raise ArtifactError(f"both files hold adapters: leave {path} out, or give a base without them")
    left = [name for name in second.tensors if name not in taken]
    if left:
        dropped["base weights of the adapters' file; the base comes from the other"] = left
    return {**base, **taken}


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
