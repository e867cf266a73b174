"""A quick look at how good a model is while it trains: mask IoU at the model's own mask resolution."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sam3i_edge.data.batch import Batch
from sam3i_edge.levels import LEVELS
from sam3i_edge.model.sam3i import SAM3I

_THRESHOLD = 0.5


@torch.no_grad()
def validate(
    model: SAM3I, batches: Sequence[Batch], *, adapted: bool, truth: SAM3I | None = None
) -> dict[str, float]:
    """Mean IoU of merged masks by level, and how often "nothing there" is told rightly.

    The masks of all queries with a score above 0.5 are merged and compared with the union of the targets, on
    the grid of the mask logits. The final figures are computed at image resolution elsewhere; these are for
    comparison between steps.

    Args:
        model: in any mode; left in evaluation mode.
        batches: on the CPU.
        adapted: each instruction through its own level, or all through the concept path.
        truth: on the same device; what it finds is what should be found. None takes the targets.

    Returns:
        For every level that occurs, its mean IoU over instructions with targets; "presence", the share of
        instructions for which an object was found exactly if there is one; "none", that share of those
        without.
    """
    model.eval()
    device = next(model.parameters()).device
    overlaps: dict[str, list[float]] = {level: [] for level in LEVELS}
    right: list[bool] = []
    right_none: list[bool] = []
    for batch in batches:
        here = batch.to(device)
        level = here.level if adapted else None
        found, any_kept = _found(model, here, level)
        if truth is not None:
            wanted, present = _found(truth, here, level)
        else:
            wanted = here.union_masks(torch.arange(len(here.level), device=device)).flatten(1) > 0.5
            present = torch.zeros(len(here.level), dtype=torch.bool, device=device)
            present[here.target_pair] = True
        inter = (found & wanted).sum(1)
        overlap = (inter / (found | wanted).sum(1).clamp(min=1)).tolist()
        for index, there, kept, value in zip(
            here.level.tolist(), present.tolist(), any_kept.tolist(), overlap, strict=True
        ):
            right.append(there == kept)
            if there:
                overlaps[LEVELS[index]].append(value)
            else:
                right_none.append(not kept)
    figures = {level: sum(values) / len(values) for level, values in overlaps.items() if values}
    figures["presence"] = sum(right) / max(len(right), 1)
    if right_none:
        figures["none"] = sum(right_none) / len(right_none)
    return figures


def _found(model: SAM3I, batch: Batch, level: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """The merged masks of what a model finds, bool [P, M M], and whether it finds anything, bool [P]."""
    out = model(batch.pixel_values, batch.input_ids, level, batch.image_index, None)
    kept = out.logits[-1].sigmoid() * out.presence[-1].sigmoid()[:, None] > _THRESHOLD
    return ((out.mask_logits > 0) & kept[..., None, None]).any(1).flatten(1), kept.any(1)
