"""The official code's numbers, and our model on the same inputs.

Made by the released SAM3-I code at reduced sizes with random weights; limits from the fixture's own README.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch

from official_files import FOLDER
from sam3i_edge.checkpoints.completion import LAYOUTS
from sam3i_edge.checkpoints.keys import Converted, convert_keys
from sam3i_edge.checkpoints.sizes import read_sizes
from sam3i_edge.levels import LEVELS
from sam3i_edge.model.config import ModelConfig
from sam3i_edge.model.detector import Prediction
from sam3i_edge.model.sam3i import SAM3I, join_prompt

PROMPTS = 3
BOX_PROMPT = 1  # the text prompt that goes with the boxes

RELATIVE = 5e-6
BOXES = 1e-5
SCORES = 2e-5


@cache
def config() -> ModelConfig:
    return ModelConfig.from_dict(read_sizes(FOLDER / "config.json"))


@cache
def arrays(name: str) -> dict[str, np.ndarray]:
    with np.load(FOLDER / f"{name}.npz") as file:
        return dict(file)


def load(name: str) -> Converted:
    container = torch.load(FOLDER / name, weights_only=True, mmap=True)
    return convert_keys(container.get("model", container), LAYOUTS)


def build() -> SAM3I:
    """The stage-3 checkpoint in a model."""
    model = SAM3I(config()).eval()
    model.load_state_dict(load("sam3i_stage3.pt").tensors)
    return model


def inputs() -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(value) for name, value in arrays("inputs").items() if value.ndim}


@torch.no_grad()
def predict(model: SAM3I, level: str, *, boxes: bool = False) -> tuple[dict[str, torch.Tensor], Prediction]:
    """Encoder outputs and the prediction for the three prompts, or for the box case alone."""
    given = inputs()
    ids = given["token_ids"][BOX_PROMPT : BOX_PROMPT + 1] if boxes else given["token_ids"]
    index = torch.full((len(ids),), LEVELS.index(level))
    maps = model.image_encoder(given["pixel_values"])
    if boxes:
        geometry = model.geometry_encoder(
            maps[-1], given["box_prompt_cxcywh"][None], given["box_prompt_labels"][None]
        )
    else:
        geometry = model.geometry_encoder(maps[-1]).expand(len(ids), -1, -1)
    text = model.encode_text(ids, index)
    prompt, mask = join_prompt(text, ids, geometry)
    same = torch.zeros(len(ids), dtype=torch.int64)
    encoded = dict(zip(("fpn0", "fpn1", "fpn2"), maps, strict=True)) | {"text": text, "geometry": geometry}
    return encoded, model.detector.predict(*maps, prompt, mask, index, same)


def relative(got: torch.Tensor, want: np.ndarray) -> float:
    a, b = got.detach().double().numpy().reshape(want.shape), want.astype(np.float64)
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def errors(model: SAM3I, level: str, *, boxes: bool = False) -> dict[str, float]:
    """Worst relative error of each array over the cases of one level."""
    encoded, out = predict(model, level, boxes=boxes)
    return compare(encoded, out, level, boxes=boxes)


def compare(
    encoded: dict[str, torch.Tensor], out: Prediction, level: str, *, boxes: bool = False
) -> dict[str, float]:
    want = arrays("outputs")
    worst: dict[str, float] = {}
    for row, case in enumerate(("box",) if boxes else ("p0", "p1", "p2")):
        found = {
            "geometry_tokens": encoded["geometry"][row],
            "fusion_output": out.fused[row],
            "queries": out.queries[row],
            "pred_logits": out.logits[-1, row],
            "pred_boxes_cxcywh": out.boxes[-1, row],
            "presence_logit": out.presence[-1, row],
            "pred_masks": out.mask_logits[row][want[f"{level}.{case}.mask_query_index"]],
            "semantic_seg": out.semantic_logits[row],
        }
        if not boxes:
            found["text_features"] = encoded["text"][row]
        for name, value in found.items():
            worst[name] = max(worst.get(name, 0.0), relative(value, want[f"{level}.{case}.{name}"]))
    for name in ("fpn0", "fpn1", "fpn2"):
        worst[name] = relative(encoded[name], want[f"vision.{name}"])
    return worst


def assert_parity(found: dict[str, float], limit: float = RELATIVE) -> None:
    wrong = {name: f"{value:.1e}" for name, value in found.items() if not value <= limit}
    assert not wrong, f"relative error above {limit}: {wrong}"
