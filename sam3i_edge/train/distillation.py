"""A teacher: the same model before its weights were rounded, or one with a larger image or text encoder.

Student and teacher have the same queries in the same order, so outputs are compared one by one.
Source: knowledge distillation (Hinton et al. 2015, arXiv:1503.02531), here of features and of outputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional as F

from sam3i_edge.data.batch import Batch
from sam3i_edge.errors import TrainingError
from sam3i_edge.levels import LEVELS, Level
from sam3i_edge.model.config import ModelConfig
from sam3i_edge.model.detector import Prediction
from sam3i_edge.model.sam3i import SAM3I


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillationWeights:
    """Weights of the terms.

    Attributes:
        maps: what the image encoder gives, the mean over the pyramid. text: text features. fusion: image
            tokens after the fusion encoder. All three mean square error over the teacher's mean square.
        scores: cross-entropy of scores and presence against the teacher's probabilities.
        boxes: L1 of cxcywh, of queries that the teacher believes in.
        masks: cross-entropy of mask pixels against the teacher's probabilities, of the same queries.
    """

    maps: float = 0.0
    text: float = 10.0
    fusion: float = 20.0
    scores: float = 4.0
    boxes: float = 10.0
    masks: float = 10.0

    def __post_init__(self) -> None:
        for item in fields(self):
            if getattr(self, item.name) < 0:
                raise ValueError(f"{item.name} must be at least 0, got {getattr(self, item.name)}")


def check_teacher(teacher: ModelConfig, student: ModelConfig, levels: Iterable[Level]) -> None:
    """Whether the outputs of two models can be compared one by one.

    Args:
        teacher: its sizes.
        student: its sizes.
        levels: what is asked, each at its own level.

    Raises:
        TrainingError: a size that must be the same is not, or the teacher lacks a level.
    """
    for name in ("d_model", "num_queries", "grid"):
        its, own = getattr(teacher, name), getattr(student, name)
        if its != own:
            raise TrainingError(
                f"the teacher's {name} is {its}, the student's {own}: a teacher has the student's detector, "
                "take one that its checkpoint came from"
            )
    if teacher.text_context < student.text_context:
        raise TrainingError(
            f"the teacher reads {teacher.text_context} tokens and the student {student.text_context}: take a "
            "teacher that reads as many"
        )
    if not teacher.adapter_dim and set(levels) - {LEVELS[0]}:
        raise TrainingError(
            "the teacher has no adapters, so it knows level concept alone: take a SAM3-I model as teacher"
        )


class Distillation:
    """What a teacher says of a batch, and how far a student is from it.

    Args:
        teacher: float, frozen here.
        weights: of the terms.
    """

    def __init__(self, teacher: SAM3I, weights: DistillationWeights) -> None:
        self.teacher, self.weights = teacher.requires_grad_(False).eval(), weights
        self._texts: dict[Level, Tensor] = {}
        self._maps: Sequence[Tensor] = ()
        teacher.image_encoder.register_forward_hook(self._keep_maps)
        teacher.text_encoder.register_forward_hook(self._keep_text)

    def loss(
        self,
        student: Prediction,
        maps: Sequence[Tensor],
        texts: Mapping[Level, Tensor],
        batch: Batch,
        ids: Tensor,
        *,
        adapted: bool,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum, float32 [], and every unweighted term, detached.

        Args:
            student: of the batch.
            maps: the student's pyramid.
            texts: its text features by level.
            batch: on the device.
            ids: the token ids that it saw; a teacher with more slots sees them padded.
            adapted: whether each instruction went through its own level.
        """
        sizes = self.teacher.config
        # Trailing padding changes nothing at level concept of a causal text encoder.
        slots = sizes.text_context if adapted or not sizes.text_causal else ids.shape[1]
        with torch.no_grad():
            teacher = self.teacher(
                batch.pixel_values,
                F.pad(ids, (0, slots - ids.shape[1])),
                batch.level if adapted else None,
                batch.image_index,
                batch.mask_index,
            )
        taught, self._texts = self._texts, {}
        seen, self._maps = self._maps, ()
        believed = (teacher.logits[-1].sigmoid() * teacher.presence[-1].sigmoid()[:, None]).float()
        weight = believed / believed.sum().clamp(min=1e-6)  # [P, Q]
        boxes = (student.boxes[-1] - teacher.boxes[-1]).abs().sum(-1)
        own = believed[batch.mask_index]
        pixels = F.binary_cross_entropy_with_logits(
            student.mask_logits.float(), teacher.mask_logits.float().sigmoid(), reduction="none"
        ).mean((-1, -2))
        terms = {
            "maps": torch.stack([_relative(*pair) for pair in zip(maps, seen, strict=True)]).mean(),
            "text": sum(
                (_relative(texts[level], taught[level][:, : ids.shape[1]]) for level in taught),
                torch.zeros(()),
            )
            / max(len(taught), 1),
            "fusion": _relative(student.fused, teacher.fused),
            "scores": _soft(student.logits[-1], teacher.logits[-1])
            + _soft(student.presence[-1], teacher.presence[-1]),
            "boxes": (weight * boxes).sum(),
            "masks": (own * pixels).sum() / own.sum().clamp(min=1e-6),
        }
        total = torch.stack([getattr(self.weights, name) * value for name, value in terms.items()]).sum()
        return total, {f"teacher_{name}": value.detach() for name, value in terms.items()}

    def _keep_maps(self, module: object, inputs: object, maps: tuple[Tensor, ...]) -> None:
        del module, inputs
        self._maps = maps

    def _keep_text(self, module: object, inputs: tuple[Tensor, Level], features: Tensor) -> None:
        del module
        self._texts[inputs[1]] = features


def _relative(student: Tensor, teacher: Tensor) -> Tensor:
    return (student - teacher).float().square().mean() / teacher.float().square().mean().clamp(min=1e-12)


def _soft(student: Tensor, teacher: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(student.float(), teacher.float().sigmoid())
