"""From a batch to the number that a stage lowers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sam3i_edge.data.dataset import Batch
from sam3i_edge.model.sam3i import SAM3I
from sam3i_edge.train.attributes import ATTRIBUTES, AttributeHeads
from sam3i_edge.train.config import StageConfig
from sam3i_edge.train.losses import LossWeights, segmentation_loss
from sam3i_edge.train.validation import validate


class Objective:
    """Loss and validation of a stage, with the heads that only training needs.

    Args:
        model: on `device`; its image encoder gets a forward hook, which hands the pyramid to the heads.
        weights: of the terms.
        device: CUDA runs the model in bfloat16; losses are float32 everywhere.
    """

    def __init__(self, model: SAM3I, weights: LossWeights, device: torch.device) -> None:
        self.model, self.weights, self.device = model, weights, device
        self.heads = AttributeHeads(model.config.d_model).to(device)
        self._maps: tuple[Tensor, ...] = ()
        model.image_encoder.register_forward_hook(self._keep_maps)

    def parameters(self, stage: StageConfig) -> dict[str, nn.Parameter]:
        """What learns beside the model: nothing where the image encoder, which the heads teach, is frozen."""
        if not self._uses_heads(stage):
            return {}
        return {f"heads.{name}": parameter for name, parameter in self.heads.named_parameters()}

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
            with autocast:
                prediction = self.model(
                    batch.pixel_values,
                    batch.input_ids if adapted else _trim(batch.input_ids),
                    batch.level if adapted else None,
                    batch.image_index,
                    batch.mask_index,
                )
            total, terms = segmentation_loss(prediction, batch, self.weights)
        maps, self._maps = self._maps, ()
        if self._uses_heads(stage):
            attributes = self.heads(maps, batch)
            total = total + self.weights.attributes * attributes
            terms["attributes"] = attributes.detach()
        return total, terms

    def validate(self, batches: Sequence[Batch], stage: StageConfig) -> dict[str, float]:
        """The figures of `validate`, or in stage "image" how often each attribute is read rightly.

        Args:
            batches: on the CPU. The model is left in evaluation mode.
            stage: decides the route of the instructions.
        """
        if stage.name == "image":
            figures = self._accuracy(batches)
        else:
            figures = validate(self.model, batches, adapted=stage.route == "adapted")
        self._maps = ()
        return figures

    @torch.no_grad()
    def _accuracy(self, batches: Sequence[Batch]) -> dict[str, float]:
        self.model.eval()
        found = []
        for batch in batches:
            here = batch.to(self.device)
            self.model.image_encoder(here.pixel_values)
            found.append(self.heads.accuracy(self._maps, here))
        return dict(zip(ATTRIBUTES, torch.stack(found).mean(0).tolist(), strict=True))

    def _uses_heads(self, stage: StageConfig) -> bool:
        return self.weights.attributes > 0 and bool({"image", "base"} & set(stage.trainable))

    def _keep_maps(self, module: nn.Module, inputs: object, maps: tuple[Tensor, ...]) -> None:
        del module, inputs
        self._maps = maps


def _trim(input_ids: Tensor) -> Tensor:
    """Without the slots that are padding in every row: exact on the unadapted path, whose text is causal."""
    return input_ids[:, : int((input_ids != 0).any(0).nonzero().max()) + 1]
