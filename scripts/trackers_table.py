"""Prints how well each tracker keeps ids: the table of docs/tracking.md.

    python scripts/trackers_table.py

Eight drawn sequences of 4 s: equal circles that cross and hide each other, leave the picture and come back.
The bundled model segments every frame of 30 a second ("circles"); lower rates take every second or sixth of
them. HOTA (Luiten et al. 2021, arXiv:2009.07736), IDF1 and id switches are computed by the library
`trackers`, whose code follows TrackEval, on boxes; an instance without an id counts as a thing of its own.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm
from trackers.eval import compute_clear_metrics, compute_hota_metrics, compute_identity_metrics

from sam3i_edge import Result, Segmenter
from sam3i_edge.masks.iou import box_iou
from sam3i_edge.tracking import TRACKERS, open_tracker

_HEIGHT, _WIDTH, _RATE, _SECONDS = 240, 320, 30, 4
_RADIUS = 24
_LEAST = 0.3  # share of a circle that must show for it to be there
_COLORS = ((220, 30, 30), (30, 60, 220), (30, 160, 40), (230, 200, 20))


@dataclass(frozen=True)
class Frame:
    """What is in a frame, and what was found."""

    numbers: NDArray[np.int64]
    boxes: NDArray[np.float32]
    found: Result


def main() -> None:
    """Draws, segments, tracks and prints."""
    segmenter = Segmenter("sam3i-nano")
    sequences = [_sequence(number, segmenter) for number in tqdm(range(8), unit="sequence")]
    print("| tracker | frames a second | HOTA | AssA | IDF1 | id switches | ms a frame |")
    print("|---|---|---|---|---|---|---|")
    for name in TRACKERS:
        for every in (1, 2, 6):
            rows = [_measured(name, frames[::every]) for frames in sequences]
            hota, assa, idf1, switches, ms = np.array(rows).T
            print(
                f"| {name} | {_RATE // every} | {hota.mean():.3f} | {assa.mean():.3f} | {idf1.mean():.3f} | "
                f"{int(switches.sum())} | {np.median(ms):.2f} |"
            )


def _sequence(number: int, segmenter: Segmenter) -> list[Frame]:
    rng = np.random.default_rng((20261128, number))
    if number < 2:  # head on, and at a right angle
        place = (
            np.array([[40.0, 120.0], [280.0, 120.0]])
            if number == 0
            else np.array([[60.0, 60.0], [60.0, 200.0]])
        )
        speed = (
            np.array([[70.0, 0.0], [-70.0, 0.0]]) if number == 0 else np.array([[60.0, 40.0], [60.0, -40.0]])
        )
    else:
        count = int(rng.integers(2, 5))
        place = rng.uniform((0, 0), (_WIDTH, _HEIGHT), (count, 2))
        angle, pace = rng.uniform(0, 2 * np.pi, count), rng.uniform(60, 160, count)
        speed = np.stack([np.cos(angle), np.sin(angle)], axis=1) * pace[:, None]
    color = _COLORS[int(rng.integers(len(_COLORS)))]
    frames = []
    for _ in range(_RATE * _SECONDS):
        frames.append(_frame(place, color, segmenter))
        place = place + speed / _RATE
        # They turn back one diameter outside of the picture: gone for a while.
        low, high = np.array([-2 * _RADIUS] * 2), np.array([_WIDTH, _HEIGHT]) + 2 * _RADIUS
        speed = np.where((place < low) & (speed < 0) | (place > high) & (speed > 0), -speed, speed)
    return frames


def _frame(place: NDArray[np.float64], color: tuple[int, int, int], segmenter: Segmenter) -> Frame:
    image = np.full((_HEIGHT, _WIDTH, 3), 225, np.uint8)
    owner = np.zeros((_HEIGHT, _WIDTH), np.uint8)
    for index, (x, y) in enumerate(place):
        center = (round(float(x) * 16), round(float(y) * 16))
        cv2.circle(image, center, _RADIUS * 16, color, -1, cv2.LINE_AA, 4)
        cv2.circle(image, center, _RADIUS * 16, (40, 40, 40), 1, cv2.LINE_AA, 4)
        cv2.circle(owner, center, _RADIUS * 16, index + 1, -1, cv2.LINE_8, 4)
    numbers, boxes = [], []
    for index in range(len(place)):
        mask = owner == index + 1
        if np.count_nonzero(mask) >= _LEAST * np.pi * _RADIUS**2:
            x, y, w, h = cv2.boundingRect(mask.view(np.uint8))
            numbers.append(index)
            boxes.append((x, y, x + w, y + h))
    found = segmenter.segment(image, "circles", level="concept")
    return Frame(np.array(numbers, np.int64), np.array(boxes, np.float32).reshape(-1, 4), found)


def _measured(name: str, frames: list[Frame]) -> tuple[float, float, float, int, float]:
    tracker = open_tracker(name)  # type: ignore[arg-type]
    truth, given, overlaps, spent = [], [], [], []
    alone = 10_000
    for frame in frames:
        began = time.perf_counter()
        numbers = tracker.update(frame.found)
        spent.append(1e3 * (time.perf_counter() - began))
        alone += len(numbers)
        given.append(np.where(numbers > 0, numbers, alone - np.arange(len(numbers))))
        truth.append(frame.numbers)
        overlaps.append(box_iou(frame.boxes, frame.found.boxes))
    hota = compute_hota_metrics(truth, given, overlaps)
    identity = compute_identity_metrics(truth, given, overlaps)
    clear = compute_clear_metrics(truth, given, overlaps)
    return hota["HOTA"], hota["AssA"], identity["IDF1"], clear["IDSW"], float(np.median(spent))


if __name__ == "__main__":
    main()
