"""From the detector's queries to run lengths: SAM3's own way beside ours, in turn, on equal inputs.

SAM3's own way is a dense bilinear resize by torch to the picture's size, a threshold, and pycocotools. "All"
resizes all 200 masks before the scores choose; "kept" resizes only the 64 that pass, as transformers does.
Both work in parts of 20 masks: 200 at 4K would be 6.6 GB.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask as coco
from torch.nn import functional as F

from sam3i_edge.masks import native, rle
from sam3i_edge.measure.statistics import speedup
from sam3i_edge.pipeline.postprocess import select
from studies.curves import disks
from studies.findings import Peer
from studies.turns import in_turn

QUERIES, INSTANCES, PART = 200, 64, 20
SIZES = {"1080p": (1080, 1920), "4K": (2160, 3840)}


@pytest.fixture(scope="module")
def queries() -> tuple[Any, Any, Any]:
    scores = np.where(np.arange(QUERIES) < INSTANCES, 0.9, 0.1).astype(np.float32)
    boxes = np.tile(np.array([0.1, 0.1, 0.9, 0.9], np.float32), (QUERIES, 1))
    return scores, boxes, disks(QUERIES)


def dense(scores: Any, logits: Any, size: tuple[int, int], every: bool) -> list[dict[str, Any]]:
    keep = torch.from_numpy(scores) > 0.5
    masks = torch.from_numpy(logits)
    if not every:
        masks, keep = masks[keep], keep[keep]
    found = []
    for start in range(0, len(masks), PART):
        part = F.interpolate(masks[start : start + PART, None], size, mode="bilinear", align_corners=False)
        binary = (part[:, 0] > 0)[keep[start : start + PART]]
        found += [coco.encode(np.asfortranarray(mask.numpy().astype(np.uint8))) for mask in binary]
    return found


def ours(scores: Any, boxes: Any, logits: Any, size: tuple[int, int]) -> list[str]:
    kept = select(scores, boxes, logits, 3.0, size)
    return [rle.compress(native.mask_rle(one, size)["counts"]) for one in kept.mask_logits]


@pytest.mark.parametrize("every", [True, False], ids=["all", "kept"])
@pytest.mark.parametrize("size", SIZES)
def test_post_processing(size: str, every: bool, queries: Any, rows: Any, settings: Any) -> None:
    torch.set_num_threads(settings.threads)
    scores, boxes, logits = queries
    sides = SIZES[size]
    theirs, own = dense(scores, logits, sides, every), ours(scores, boxes, logits, sides)
    assert len(theirs) == len(own) == INSTANCES
    packed = [{"size": list(sides), "counts": counts.encode()} for counts in own]
    ious = np.diag(coco.iou(theirs, packed, [0] * len(packed)))
    assert ious.min() > 0.999
    peer_ms, ours_ms = in_turn(
        lambda: dense(scores, logits, sides, every), lambda: ours(scores, boxes, logits, sides), 5
    )
    what = f"all {QUERIES}" if every else f"the {INSTANCES} kept"
    rows.find(
        peers=(
            *rows.findings.peers,
            Peer(
                task=f"{INSTANCES} instances of {QUERIES} queries to run lengths at {size}",
                peer=f"dense resize of {what} by torch, threshold, pycocotools",
                ours=f"resize and run lengths of the kept in one pass ({native.implementation()})",
                peer_ms=float(np.median(peer_ms)),
                ours_ms=float(np.median(ours_ms)),
                speedup=speedup(peer_ms, ours_ms),
                agreement=f"mask IoU at least {ious.min():.5f}",
            ),
        )
    )
