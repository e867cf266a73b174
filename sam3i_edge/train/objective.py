"""From a batch to the number that a stage lowers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from sam3i_edge.data.batch import Batch
from sam3i_edge.data.dataset import drawn_classes
from sam3i_edge.levels import LEVELS, Level
from sam3i_edge.model.detector import Prediction
from sam3i_edge.model.sam3i import SAM3I
from sam3i_edge.train.alignment import AlignmentWeights, alignment_loss
from sam3i_edge.train.attributes import AttributeHeads
from sam3i_edge.train.distillation import Distillation
from sam3i_edge.train.distributed import Ranks
from sam3i_edge.train.losses import LossWeights, enlarge, segmentation_loss
from sam3i_edge.train.projector import Projector, concept_numbers
from sam3i_edge.train.run_config import StageConfig
from sam3i_edge.train.validation import validate


class Objective:
    """Loss and validation of a stage, with the heads and the projector that only training needs.

    Args:
        model: on `device`; its image encoder gets a forward hook, which hands the pyramid to the heads, and
            its text encoder one for the projector.
        weights: of the terms.
        device: CUDA runs the model in bfloat16; losses are float32 everywhere.
        alignment: weights of the terms between the two instructions of a pair.
        ranks: their samples are compared with each other.
        classes: attribute -> classes, what the heads tell apart; None for those of drawn shapes.
    """

    def __init__(
        self,
        model: SAM3I,
        weights: LossWeights,
        device: torch.device,
        alignment: AlignmentWeights = AlignmentWeights(),  # noqa: B008  (frozen)
        ranks: Ranks = Ranks(),  # noqa: B008  (frozen)
        *,
        classes: Mapping[str, tuple[str, ...]] | None = None,
    ) -> None:
        self.model, self.weights, self.device = model, weights, device
        self.alignment, self.ranks = alignment, ranks
        self.heads = AttributeHeads(model.config.d_model, classes or drawn_classes()).to(device)
        self.projector = Projector(model.config.d_model).to(device)
        self.teacher: Distillation | None = None
        self.supervision = 1.0
        self._maps: tuple[Tensor, ...] = ()
        self._texts: dict[Level, Tensor] = {}
        model.image_encoder.register_forward_hook(self._keep_maps)
        model.text_encoder.register_forward_hook(self._keep_text)

    def learn_from(self, teacher: Distillation, supervision: float) -> None:
        """Adds a teacher's terms to the loss, and weighs the ordinary ones."""
        self.teacher, self.supervision = teacher, supervision

    def parameters(self, stage: StageConfig) -> dict[str, nn.Parameter]:
        """What learns beside the model: heads where the image encoder does, the projector where pairs do."""
        used: dict[str, nn.Module] = {"heads": self.heads} if self._uses_heads(stage) else {}
        if self._aligns(stage) and self.alignment.contrastive:
            used["projector"] = self.projector
        return {f"{head}.{name}": p for head, module in used.items() for name, p in module.named_parameters()}

    def loss(self, batch: Batch, stage: StageConfig) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum, float32 [], and every unweighted term, float32 [], detached.

        Args:
            batch: on the device.
            stage: "image" pays for attributes alone; the others for the segmentation too.
        """
        autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda")
        terms: dict[str, Tensor] = {}
        if stage.name == "image":
            with autocast:
                self.model.image_encoder(batch.pixel_values)
            total = batch.pixel_values.new_zeros(())
        else:
            adapted = stage.route == "adapted"
            trims = not adapted and self.model.config.text_causal
            ids = _trim(batch.input_ids) if trims else batch.input_ids
            with autocast:
                prediction = self.model(
                    batch.pixel_values,
                    ids,
                    batch.level if adapted else None,
                    batch.image_index,
                    batch.mask_index,
                )
            total = batch.pixel_values.new_zeros(())
            if self.supervision and stage.name != "distill":
                total, terms = segmentation_loss(prediction, batch, self.weights)
            if self.teacher is not None:
                texts: dict[Level, Tensor] = {
                    level: self._texts[level] for level in (self._texts if adapted else LEVELS[:1])
                }
                with autocast:
                    taught, named = self.teacher.loss(
                        prediction, self._maps, texts, batch, ids, adapted=adapted
                    )
                total, terms = self.supervision * total + taught, terms | named
            if self._aligns(stage):
                with autocast:
                    self.model.text_encoder(batch.concept_ids, "concept")
                aligned, named = self._alignment(prediction, batch)
                total, terms = total + aligned, terms | named
        maps, self._maps, self._texts = self._maps, (), {}
        if self._uses_heads(stage):
            attributes = self.heads(maps, batch)
            total = total + self.weights.attributes * attributes
            terms["attributes"] = attributes.detach()
        return total, terms

    def validate(self, batches: Sequence[Batch], stage: StageConfig) -> dict[str, float]:
        """The figures of `validate`, or in stage "image" how often each known attribute is read rightly.

        Args:
            batches: on the CPU. The model is left in evaluation mode.
            stage: decides the route of the instructions; "distill" has no annotations, so the teacher's
                answers stand for them.
        """
        if stage.name == "image":
            figures = self._accuracy(batches)
        else:
            truth = self.teacher.teacher if self.teacher and stage.name == "distill" else None
            figures = validate(self.model, batches, adapted=stage.route == "adapted", truth=truth)
        self._maps, self._texts = (), {}
        return figures

    @torch.no_grad()
    def _accuracy(self, batches: Sequence[Batch]) -> dict[str, float]:
        self.model.eval()
        found = []
        for batch in batches:
            here = batch.to(self.device)
            self.model.image_encoder(here.pixel_values)
            found.append(self.heads.accuracy(self._maps, here))
        means = zip(self.heads.attributes, torch.stack(found).nanmean(0).tolist(), strict=True)
        return {name: mean for name, mean in means if not math.isnan(mean)}

    def _alignment(self, prediction: Prediction, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """`alignment_loss` of the batch's pairs, with the concepts' features just computed."""
        texts = (
            self._text_features(batch, "simple", 0),
            self._text_features(batch, "complex", 1),
            self._texts["concept"],
        )
        features = torch.stack([self.projector(text) for text in texts], 1)  # [A, 3, C]
        rows = torch.searchsorted(batch.mask_index, batch.aligned)
        wanted = batch.union_masks(batch.aligned[:, 0].contiguous())
        logits = [enlarge(prediction.semantic_logits[row].float(), wanted) for row in rows.unbind(1)]
        return alignment_loss(
            torch.stack(logits, 1),
            wanted,
            self.ranks.gather(features),
            concept_numbers(self.ranks.gather(batch.concept_ids)),
            self.alignment,
        )

    def _text_features(self, batch: Batch, level: Level, column: int) -> Tensor:
        """Text features of the pairs' instructions of a level; the encoder saw its level's rows in order."""
        place = (batch.level == LEVELS.index(level)).cumsum(0) - 1
        return self._texts[level].index_select(0, place[batch.aligned[:, column]])

    def _aligns(self, stage: StageConfig) -> bool:
        return self.alignment.on and stage.pairs > 0

    def _uses_heads(self, stage: StageConfig) -> bool:
        return self.weights.attributes > 0 and bool({"image", "base"} & set(stage.trainable))

    def _keep_maps(self, module: nn.Module, inputs: object, maps: tuple[Tensor, ...]) -> None:
        del module, inputs
        self._maps = maps

    def _keep_text(self, module: nn.Module, inputs: tuple[Tensor, Level], features: Tensor) -> None:
        del module
        self._texts[inputs[1]] = features


def _trim(input_ids: Tensor) -> Tensor:
    """Without the slots that are padding in every row: exact on the unadapted path, whose text is causal."""
    return input_ids[:, : int((input_ids != 0).any(0).nonzero().max()) + 1]
