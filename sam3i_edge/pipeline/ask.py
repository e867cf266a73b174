"""One question to a model, step by step: what each graph is given, and what its outputs mean.

Whoever asks brings a `Run` and keeps what the steps give where it likes: `Segmenter` behind locks and in
caches, the comparison of an export in files, calibration and measurements in memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sam3i_edge.levels import LEVELS, Level
from sam3i_edge.pipeline.postprocess import Detections, select
from sam3i_edge.pipeline.prompt import BoxPrompt, join_prompt

Arrays: TypeAlias = Mapping[str, NDArray[Any]]

_MAPS = ("fpn_4x", "fpn_2x", "fpn_1x")


class Run(Protocol):
    """Runs a graph by name."""

    def __call__(self, graph: str, inputs: Arrays, wanted: Sequence[str], /) -> Arrays:
        """Gives the wanted outputs; others beside them do no harm."""


@dataclass(frozen=True, slots=True)
class Text:
    """An encoded instruction.

    Attributes:
        features: [1, T, C] float32.
        mask: [1, T], True for real tokens.
        level: at which it was encoded, and is answered.
    """

    features: NDArray[np.float32]
    mask: NDArray[np.bool_]
    level: Level


def encode_image(run: Run, pixel_values: NDArray[np.float32]) -> Arrays:
    """The features of an image.

    Args:
        run: runs `image_encoder`.
        pixel_values: [1, 3, S, S], of `to_pixel_values`.

    Returns:
        fpn_4x, fpn_2x, fpn_1x: [1, C, h, w]; cls_token: [1, 1, C].
    """
    return run("image_encoder", {"pixel_values": pixel_values}, (*_MAPS, "cls_token"))


def encode_text(run: Run, ids: NDArray[np.int64], level: Level) -> Text:
    """The features of an instruction of token ids [T], padded with 0, at a level."""
    outputs = run(f"text_encoder.{level}", {"input_ids": ids[None]}, ("text_features",))
    return Text(outputs["text_features"], (ids != 0)[None], level)


def encode_boxes(
    run: Run, image: Arrays, boxes: BoxPrompt, image_size: tuple[int, int], slots: int
) -> Arrays:
    """The tokens of boxes on an image.

    Args:
        run: runs `box_encoder`.
        image: of `encode_image`.
        boxes: up to `slots` of them.
        image_size: (H, W) of the image, pixels.
        slots: box slots of the prompt.

    Returns:
        geometry_tokens: [1, slots + 1, C]; geometry_mask: [1, slots + 1].
    """
    inputs = {**boxes.inputs(image_size, slots), "fpn_1x": image["fpn_1x"]}
    return run("box_encoder", inputs, ("geometry_tokens", "geometry_mask"))


def detect(run: Run, image: Arrays, text: Text, boxes: Arrays | None = None, *, slots: int = 0) -> Arrays:
    """What the detector gives for a text on an image.

    Args:
        run: runs `detector`.
        image: of `encode_image`.
        text: of `encode_text`.
        boxes: of `encode_boxes`, or None.
        slots: box slots of the prompt.

    Returns:
        scores [1, K], boxes [1, K, 4], mask_logits [1, K, M, M], presence [1, 1]; see `find`.
    """
    if boxes is None:
        geometry, mask = image["cls_token"], None
    else:  # their CLS token attended to the boxes, and takes the place of the image's
        geometry, mask = boxes["geometry_tokens"], boxes["geometry_mask"]
    inputs = {
        **{name: image[name] for name in _MAPS},
        **join_prompt(text.features, text.mask, geometry, mask, boxes=slots),
        "level": np.array([LEVELS.index(text.level)], np.int64),
    }
    return run("detector", inputs, ("scores", "boxes", "mask_logits", "presence"))


def find(
    outputs: Arrays,
    image_size: tuple[int, int],
    *,
    threshold: float,
    mask_threshold: float = 0.0,
    suppress: float | None = None,
) -> Detections:
    """The instances in what `detect` gave; arguments and errors as in `select`."""
    return select(
        outputs["scores"][0],
        outputs["boxes"][0],
        outputs["mask_logits"][0],
        float(outputs["presence"][0, 0]),
        image_size,
        threshold=threshold,
        mask_threshold=mask_threshold,
        suppress=suppress,
    )
