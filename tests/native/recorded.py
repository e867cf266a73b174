"""What Python's Segmenter answers about pictures in every format, for the programs of native/tests to repeat.

record(folder, name, bundle, runtime="openvino", precision="int8")     writes folder/NAME.json
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sam3i_edge import Segmenter
from sam3i_edge.data.scenes import draw_scene
from sam3i_edge.result import Result

FORMATS = ("rgb", "bgr", "rgba", "bgra", "gray8", "nv12")  # in the order of sam3i.h
INSTRUCTIONS = (
    "star", "every circle", "the red shape", "the largest square", "Where is the ring?",
    "the one with three corners",
    "blue triangle", "all striped shapes", "the shape left of the circle", "what has no corners",
    "squares &amp; stars",
    "the \u201csmallest\u201d shape \u2014 at the top", "star star star " * 20,
)  # fmt: skip
LEVELS = (None, None, "concept", "simple", "complex")

Pixels = NDArray[np.uint8]


def record(
    folder: Path,
    name: str,
    bundle: Path,
    *,
    runtime: str,
    precision: str,
    threshold: float | None = None,
    pictures: int = 60,
    boxes: int = 0,
) -> None:
    """Asks `pictures` pictures five questions each, some with up to `boxes` boxes."""
    rng = np.random.default_rng(7)
    asked = []
    with Segmenter(bundle, runtime=runtime, precision=precision, device="cpu", threads=1) as segmenter:
        for number in range(pictures):
            size = tuple(int(side) for side in rng.integers(64, 420, 2) // 2 * 2)
            rgb, picture = disguise(draw_scene(rng, size).image, number, rng)
            file = f"{name}-{number}.raw"
            (folder / file).write_bytes(picture.pop("bytes"))
            scene = segmenter.encode(rgb)
            questions = []
            for turn, level in enumerate(LEVELS):
                question: dict[str, Any] = {
                    "instruction": INSTRUCTIONS[(5 * number + turn) % len(INSTRUCTIONS)]
                }
                if level is not None:
                    question["level"] = level
                if threshold is not None:
                    question["threshold"] = threshold
                if turn == 1:
                    question["suppress"] = 0.3
                if boxes and turn in (2, 3):
                    question |= some_boxes(rng, rgb, boxes)
                    if turn == 2:
                        question["instruction"] = None
                questions.append({"question": question, "answer": answer(scene.segment(**question))})
            asked.append({"file": file, **picture, "questions": questions})
    content = {"bundle": str(bundle), "runtime": runtime, "precision": precision, "pictures": asked}
    (folder / f"{name}.json").write_text(json.dumps(content))


def disguise(image: Pixels, number: int, rng: np.random.Generator) -> tuple[Pixels, dict[str, Any]]:
    """A picture as Python sees it, and the same in one of the formats, turned and with wider rows."""
    kind, rotation = FORMATS[number % len(FORMATS)], 90 * (number // len(FORMATS) % 4)
    lying = np.ascontiguousarray(np.rot90(image, rotation // 90))  # turned clockwise it stands
    height, width = lying.shape[:2]
    spare = int(number % 3) * 8
    alpha = rng.integers(0, 256, (height, width, 1), np.uint8)
    if kind == "gray8":
        grey = cv2.cvtColor(lying, cv2.COLOR_RGB2GRAY)
        seen, planes = np.repeat(grey[:, :, None], 3, 2), [grey]
    elif kind == "nv12":
        yuv = cv2.cvtColor(lying, cv2.COLOR_RGB2YUV_I420)
        chroma = yuv[height:].reshape(2, height // 2, width // 2)
        nv12 = np.concatenate([yuv[:height], chroma.transpose(1, 2, 0).reshape(height // 2, width)])
        seen, planes = cv2.cvtColor(nv12, cv2.COLOR_YUV2RGB_NV12), [nv12[:height], nv12[height:]]
    elif len(kind) == 4:
        wide = np.concatenate([lying, alpha], 2)
        planes = [wide if kind == "rgba" else wide[:, :, [2, 1, 0, 3]]]
        over = alpha.astype(np.int64)
        seen = ((lying * over + 255 * (255 - over) + 127) // 255).astype(np.uint8)
    else:
        seen, planes = lying, [lying if kind == "rgb" else lying[:, :, ::-1]]
    rows = [plane.reshape(len(plane), -1) for plane in planes]
    padded = [np.pad(plane, ((0, 0), (0, spare)), constant_values=99) for plane in rows]
    upright = np.ascontiguousarray(np.rot90(seen, -rotation // 90))
    return upright, {
        "bytes": b"".join(plane.tobytes() for plane in padded),
        "format": FORMATS.index(kind),
        "width": width,
        "height": height,
        "stride": padded[0].shape[1] if spare else 0,
        "rotation": rotation,
    }


def some_boxes(rng: np.random.Generator, image: Pixels, most: int) -> dict[str, Any]:
    """Some boxes within a picture."""
    height, width = image.shape[:2]
    count = int(rng.integers(1, most + 1))
    low = rng.uniform(0, 0.5, (count, 2)) * [width, height]
    high = low + rng.uniform(0.1, 0.5, (count, 2)) * [width, height]
    return {
        "boxes": np.concatenate([low, high], 1).tolist(),
        "box_labels": [1, *rng.integers(0, 2, count - 1).tolist()],
    }


def answer(result: Result) -> dict[str, Any]:
    """What the C library has to say too."""
    return {
        "width": result.image_size[1],
        "height": result.image_size[0],
        "level": result.level,
        "level_auto": result.level_chosen_by == "auto",
        "presence": result.presence,
        "tokens_cut": result.tokens_cut,
        "truncated": result.truncated,
        "instances": [
            {"score": float(score), "box": [float(side) for side in box], **mask, "polygons": rings(polygons)}
            for score, box, mask, polygons in zip(
                result.scores, result.boxes, masks(result), result.polygons, strict=True
            )
        ],
    }


def masks(result: Result) -> Sequence[dict[str, Any]]:
    """Run lengths, area and box of each mask."""
    return [
        {"counts": runs["counts"].tolist(), "area": runs["area"], "bbox": runs["bbox"]}
        for runs in result._lazy.runs
    ]


def rings(polygons: Any) -> list[list[list[list[float]]]]:
    """The outer ring of each part and then its holes."""
    return [[ring.tolist() for ring in (part.exterior, *part.holes)] for part in polygons]
