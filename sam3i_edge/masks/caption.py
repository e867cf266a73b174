"""The lines below a picture: what was asked, and what was found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from sam3i_edge.masks.fonts import drawable

Color: TypeAlias = tuple[int, int, int]

NARROWEST = 320  # narrower pictures get a margin, so that the caption has room
FONT = cv2.FONT_HERSHEY_SIMPLEX
WHITE: Color = (255, 255, 255)
BACKDROP: Color = (24, 24, 24)

_GREY: Color = (170, 170, 170)
_MOST_LINES = 3
_SIZE = 29  # pixels of a font whose capitals are as tall as OpenCV's at scale 1


@dataclass(frozen=True, slots=True)
class _Pen:
    """Draws lines in OpenCV's letters, or in a font's.

    Attributes:
        scale: OpenCV's; 1 is capitals of about 22 pixels.
        weight: thickness of OpenCV's letters, pixels.
        font: None for OpenCV's.
        color: of the letters.
    """

    scale: float
    weight: int
    font: ImageFont.FreeTypeFont | None
    color: Color

    @classmethod
    def of(cls, font: str | None, scale: float, weight: int, color: Color) -> _Pen:
        size = round(_SIZE * scale)
        return cls(scale, weight, None if font is None else ImageFont.truetype(font, size), color)

    def width(self, line: str) -> int:
        if self.font is None:
            return int(cv2.getTextSize(line, FONT, self.scale, self.weight)[0][0])
        return round(self.font.getlength(line))

    @property
    def heights(self) -> tuple[int, int]:
        """Pixels above the base line and below it."""
        if self.font is None:
            (_, height), base = cv2.getTextSize("Ag", FONT, self.scale, self.weight)
            return height, base
        ascent, descent = self.font.getmetrics()
        return ascent, descent

    def draw(self, canvas: NDArray[np.uint8], line: str, origin: tuple[int, int]) -> None:
        """Draws a line into uint8 [H, W, 3] from the left end of its base line, (x, y)."""
        if self.font is None:
            cv2.putText(canvas, line, origin, FONT, self.scale, self.color, self.weight, cv2.LINE_AA)
            return
        picture = Image.fromarray(canvas)
        ImageDraw.Draw(picture).text(origin, line, font=self.font, fill=self.color, anchor="ls")
        canvas[:] = np.asarray(picture)

    def wrap(self, text: str, room: int) -> list[str]:
        """The text in at most three lines of `room` pixels, the rest cut and the cut shown."""
        lines: list[str] = []
        words = text.split()
        while words and len(lines) < _MOST_LINES:
            line = words.pop(0)
            while self.width(line) > room and len(line) > 1:  # one word longer than the line is broken
                words[:0] = [line[len(line) // 2 :]]
                line = line[: len(line) // 2]
            while words and self.width(f"{line} {words[0]}") <= room:
                line = f"{line} {words.pop(0)}"
            lines.append(line)
        if words:
            last = lines[-1]
            while last and self.width(last + "...") > room:
                last = last[:-1]
            lines[-1] = last + "..."
        return lines


def add_caption(
    picture: NDArray[np.uint8], title: str, note: str, *, scale: float, weight: int, margin: int
) -> NDArray[np.uint8]:
    """Puts lines below a picture. What no font here can draw is left out, and the last line says so.

    Args:
        picture: uint8 [H, W, 3].
        title: cut after three lines.
        note: the same, smaller.
        scale: of the title's letters, OpenCV's.
        weight: their thickness, pixels.
        margin: around the lines, pixels.

    Returns:
        uint8 [H + the lines, at least 320, 3].
    """
    height, width = picture.shape[:2]
    full = max(width, NARROWEST)
    lines, left_out = [], 0
    for text, factor, color in ((title, 1.0, WHITE), (note, 0.8, _GREY)):
        text, font, missing = drawable(text)
        pen = _Pen.of(font, factor * scale, weight, color)
        lines += [(pen, line) for line in pen.wrap(text, full - 2 * margin)]
        left_out += missing
    if left_out:
        pen = _Pen.of(None, 0.8 * scale, weight, _GREY)
        told = f"left out: {left_out} characters that no font here has"
        lines += [(pen, line) for line in pen.wrap(told, full - 2 * margin)]
    steps = [sum(pen.heights) + margin for pen, _ in lines]
    canvas = np.empty((height + sum(steps) + 2 * margin, full, 3), dtype=np.uint8)
    canvas[:] = BACKDROP
    left = (full - width) // 2
    canvas[:height, left : left + width] = picture
    y = height + margin
    for (pen, line), step in zip(lines, steps, strict=True):
        pen.draw(canvas[y : y + step], line, (margin, pen.heights[0] + margin // 2))
        y += step
    return canvas
