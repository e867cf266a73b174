"""A checkpoint in our names, and what completes one that holds a part of a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from sam3i_edge.checkpoints.huggingface import HUGGINGFACE
from sam3i_edge.checkpoints.keys import Converted, convert_keys
from sam3i_edge.checkpoints.official import OFFICIAL
from sam3i_edge.checkpoints.source import Source, open_source
from sam3i_edge.checkpoints.student_keys import STUDENT, generation, prepare_student
from sam3i_edge.errors import ArtifactError
from sam3i_edge.model.sam3i import adapter_of

LAYOUTS = (STUDENT, OFFICIAL, HUGGINGFACE)
_STUDENT_TEXT = "language_backbone.encoder.embedding_layer."
# What must come from one file.
_ENCODERS = ("image_encoder.backbone.", "image_encoder.head.", "text_encoder.")


@dataclass(frozen=True, slots=True)
class Opened:
    """A file in our names.

    Attributes:
        source, converted: as opened, and renamed.
        text_student: whether its text encoder is a student's; None where it has none.
        generation: "SAM 3" or "SAM 3.1", by its neck; None where it has none.
    """

    source: Source
    converted: Converted
    text_student: bool | None
    generation: str | None


def open_checkpoint(path: Path) -> Opened:
    """Opens a file or folder, folds a student's layers and renames all tensors.

    Raises:
        ArtifactError: it cannot be opened, a key is unknown, or encoders of several kinds are mixed.
    """
    source = open_source(path)
    state, dropped = prepare_student(source.state)
    converted = convert_keys(state, LAYOUTS)
    converted.dropped.update(dropped)
    student = any(_STUDENT_TEXT in key for key in state)
    has_text = any(name.startswith("text_encoder.") for name in converted.tensors)
    return Opened(source, converted, student if has_text else None, generation(source.state))


def complete(
    tensors: dict[str, torch.Tensor], base: Opened, own: Opened, remarks: list[str]
) -> dict[str, torch.Tensor]:
    """Adds what is missing from another file; an encoder is taken whole or not at all.

    Args:
        tensors: our name -> tensor.
        base: where from.
        own: what `tensors` were opened from.
        remarks: gets a sentence on what was taken.

    Raises:
        ArtifactError: the two were made of different generations of SAM3.
    """
    if own.generation and base.generation and own.generation != base.generation:
        raise ArtifactError(
            f"the checkpoint was made of {own.generation}, its --base of {base.generation}, whose values are "
            "others: give a base of the same"
        )
    theirs = base.converted.tensors
    whole = [place for place in _ENCODERS if any(name.startswith(place) for name in tensors)]
    taken = {
        name: value
        for name, value in theirs.items()
        if name not in tensors and not adapter_of(name) and not name.startswith(tuple(whole))
    }
    if taken:
        remarks.append(f"{len(taken)} tensors come from the base: {part_names(taken)}")
    else:
        remarks.append("the checkpoint is whole: nothing comes from the base")
    return {**tensors, **taken}


def part_names(tensors: Mapping[str, torch.Tensor]) -> str:
    """Names of the parts of a model that tensors belong to."""
    found = {name.split(".")[0] for name in tensors}
    known = ("image_encoder", "geometry_encoder", "text_encoder", "detector")
    return " and ".join(part.replace("_", " ") for part in known if part in found)
