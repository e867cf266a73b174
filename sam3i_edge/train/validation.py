"""A quick look at how good a model is while it trains: mask IoU at the model's own mask resolution."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sam3i_edge.data.batch import Batch
from sam3i_edge.levels import LEVELS
from sam3i_edge.model.sam3i import SAM3I

_THRESHOLD = 0.5


@torch.no_grad()
def validate(model: SAM3I, batches: Sequence[Batch], *, adapted: bool) -> dict[str, float]:
    """Mean IoU of merged masks by level, and how often "nothing there" is told rightly.

    The masks of all queries with a score above 0.5 are merged and compared with the union of the targets, on
    the grid of the mask logits. The final figures are computed at image resolution elsewhere; these are for
    comparison between steps.

    Args:
        model: in any mode; left in evaluation mode.
        batches: on the CPU.
        adapted: each instruction through its own level, or all through the concept path.

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
        out = model(here.pixel_values, here.input_ids, level, here.image_index, None)
        kept = out.logits[-1].sigmoid() * out.presence[-1].sigmoid()[:, None] > _THRESHOLD
        found = ((out.mask_logits > 0) & kept[..., None, None]).any(1).flatten(1)
        wanted = here.union_masks(torch.arange(len(here.level), device=device)).flatten(1) > 0.5
        inter = (found & wanted).sum(1)
        overlap = (inter / (found | wanted).sum(1).clamp(min=1)).tolist()
        present = torch.zeros(len(here.level), dtype=torch.bool, device=device)
        present[here.target_pair] = True
        for index, there, any_kept, value in zip(
            here.level.tolist(), present.tolist(), kept.any(1).tolist(), overlap, strict=True
        ):
            right.append(there == any_kept)
            if there:
                overlaps[LEVELS[index]].append(value)
            else:
                right_none.append(not any_kept)
    figures = {level: sum(values) / len(values) for level, values in overlaps.items() if values}
    figures["presence"] = sum(right) / max(len(right), 1)
    if right_none:
        figures["none"] = sum(right_none) / len(right_none)
    return figures
