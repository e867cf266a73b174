"""The numbers of EfficientSAM3's released code, and our models on the same inputs.

Made at reduced sizes with random weights, one set a family of image trunks. They are 15 MB and lie beside
the project, not in it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from sam3i_edge.checkpoints import load_checkpoint
from sam3i_edge.checkpoints.source import open_source
from sam3i_edge.model.sam3i import GraphModel, join_prompt

FOLDER = Path(__file__).parents[3] / "shared" / "fixtures" / "efficientsam3"
if not FOLDER.is_dir():
    pytest.skip(f"needs the released code's numbers in {FOLDER}", allow_module_level=True)
FAMILIES = ("repvit", "efficientvit", "tinyvit")
CASES = ("p0", "p1", "p2", "box")

RELATIVE = 1e-4
ENCODERS = 1e-5  # of what the encoders give, which tells right from wrong
PIXELS = 0.1  # on a processor that sums otherwise one corner of 80 is 0.053 px from the released number
FLIPS = 2e-4


def checkpoint(family: str) -> Path:
    return FOLDER / family / "efficientsam3.pt"


def config(family: str) -> Path:
    return FOLDER / family / "config.json"


@cache
def arrays(family: str, name: str) -> dict[str, NDArray[np.float32]]:
    with np.load(FOLDER / family / f"{name}.npz") as file:
        return dict(file)


def state(family: str) -> dict[str, torch.Tensor]:
    """The checkpoint's tensors by their keys."""
    return dict(open_source(checkpoint(family)).state)


def build(family: str) -> GraphModel:
    return load_checkpoint(checkpoint(family), config(family))


def prompt_of(family: str, case: str) -> torch.Tensor:
    """Token ids int64 [1, T] of a case."""
    given = arrays(family, "inputs")
    row = int(given["box_prompt_index"] if case == "box" else case[1])
    return torch.from_numpy(given["token_ids"][row : row + 1])


def relative(got: torch.Tensor | NDArray[np.float32], want: NDArray[np.float32]) -> float:
    """Largest difference over the largest magnitude."""
    a = np.asarray(got.detach() if isinstance(got, torch.Tensor) else got, dtype=np.float64)
    return float(np.abs(a.reshape(want.shape) - want).max() / np.abs(want).max())


@torch.no_grad()
def encoder_errors(model: GraphModel, family: str) -> dict[str, float]:
    """What the encoders give, against the released code."""
    want = arrays(family, "outputs")
    encoder = model.image_encoder.image_encoder
    trunk = encoder.backbone(torch.from_numpy(arrays(family, "inputs")["pixel_values"]))
    found = {
        "trunk": relative(trunk, want["trunk"]),
        "trunk_projected": relative(encoder.head(trunk), want["trunk_projected"]),
    }
    for case in CASES[:3]:
        text = model.text_encoder(prompt_of(family, case), "concept")
        found[f"{case}.text_features"] = relative(text, want[f"concept.{case}.text_features"])
    return found


def assert_encoders(found: dict[str, float], limit: float = ENCODERS) -> None:
    wrong = {name: f"{value:.1e}" for name, value in found.items() if not value <= limit}
    assert not wrong, f"relative error above {limit}: {wrong}"


Answer = Callable[[str], dict[str, NDArray[np.float32]]]


@torch.no_grad()
def answer(model: GraphModel, family: str, case: str) -> dict[str, NDArray[np.float32]]:
    """All queries of a case: maps, text_features, logits, boxes, presence, masks."""
    given = arrays(family, "inputs")
    ids = prompt_of(family, case)
    *maps, geometry = model.image_encoder(torch.from_numpy(given["pixel_values"]))
    if case == "box":
        assert model.box_encoder is not None
        boxes, labels = (torch.from_numpy(given[f"box_prompt_{n}"])[None] for n in ("cxcywh", "labels"))
        geometry, _ = model.box_encoder(boxes, labels, maps[-1])
    prompt, mask = join_prompt(model.text_encoder(ids, "concept"), ids, geometry)
    out = model.detector.predict(*maps, prompt, mask, None)
    return {
        **{f"vision.fpn{n}": level[0].numpy() for n, level in enumerate(maps)},
        "pred_logits": out.logits[-1, 0].numpy(),
        "pred_boxes_cxcywh": out.boxes[-1, 0].numpy(),
        "presence_logit": out.presence[-1].numpy(),
        "pred_masks": out.mask_logits[0].numpy(),
    }
