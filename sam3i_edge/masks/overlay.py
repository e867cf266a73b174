"""A result as a picture that one can look at: masks, outlines, boxes, scores and the instruction.

What was not found is darkened where the caller does not say otherwise, so that masks stand out for every
eye; the colours are those of Okabe and Ito, which stay apart under the usual kinds of colour blindness. All
sizes follow the picture's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from sam3i_edge.files import write_whole
from sam3i_edge.masks.caption import BACKDROP, FONT, NARROWEST, WHITE, Color, add_caption

Rectangle: TypeAlias = tuple[int, int, int, int]  # x0, y0, x1, y1

SUFFIXES = (".png", ".jpg", ".jpeg")
# Okabe and Ito 2008, "Color Universal Design", without black.
PALETTE: tuple[Color, ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (213, 94, 0),
    (204, 121, 167),
    (0, 114, 178),
)

_SMALLEST_SIDE = 480  # a picture whose longer side is shorter is enlarged, by a whole number
_JPEG_SIDE = 65_500  # libjpeg's limit


@dataclass(frozen=True, slots=True)
class _Style:
    """Sizes in pixels of the finished picture, all from its longer side."""

    line: int
    text: float  # OpenCV's font scale; 1 is capitals of about 22 pixels
    weight: int
    margin: int

    @classmethod
    def of(cls, height: int, width: int) -> _Style:
        unit = max(height, width) / 640
        # A long thin picture would get letters larger than itself.
        unit = max(0.9, min(unit, 3 * max(min(height, width), NARROWEST) / 640))
        return cls(
            line=max(1, round(2 * unit)),
            text=0.55 * unit,
            weight=max(1, round(1.2 * unit)),
            margin=max(3, round(5 * unit)),
        )


def draw(
    image: NDArray[np.uint8],
    masks: Iterable[NDArray[np.bool_]],
    boxes: NDArray[np.float32],
    scores: NDArray[np.float32],
    *,
    title: str,
    note: str = "",
    dim: bool = True,
    numbers: Sequence[int] | None = None,
) -> NDArray[np.uint8]:
    """Draws instances over an image, with a caption below.

    Args:
        image: uint8 [H, W, 3] RGB; it is not changed.
        masks: N masks [H, W] bool; taken one by one, so a generator keeps memory low.
        boxes: [N, 4], (x0, y0, x1, y1), pixels.
        scores: [N], 0..1, shown on the boxes.
        title: first line of the caption, as a rule the instruction; cut after three lines. Scripts beside
            ASCII are drawn in a font of this machine; what none has is left out, and a line says so.
        note: last line of the caption, smaller.
        dim: darken what no mask covers; False leaves its colours as they are and tints masks less.
        numbers: N, what decides each instance's colour, such as its track; None takes its place.

    Returns:
        uint8 RGB, larger than the image: a caption is added below, images under 480 pixels are enlarged
        by a whole number, and narrow ones get a margin. Without instances it says "nothing found".

    Raises:
        ValueError: the numbers of masks, boxes and scores differ, or a shape is wrong.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"image must be uint8 [H, W, 3], got {image.dtype} {list(image.shape)}")
    if boxes.shape != (len(scores), 4):
        raise ValueError(f"{len(scores)} scores want boxes [{len(scores)}, 4], got {list(boxes.shape)}")
    zoom = max(1, -(-_SMALLEST_SIDE // max(image.shape[:2])))
    picture = image.copy()
    if zoom > 1:
        picture = _uint8(cv2.resize(image, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_CUBIC))
    style = _Style.of(*picture.shape[:2])
    if len(scores):
        colors = [PALETTE[n % len(PALETTE)] for n in (range(len(scores)) if numbers is None else numbers)]
        _draw_masks(picture, masks, colors, style, dim)
        _draw_boxes(picture, boxes * zoom, scores, colors, style)
    else:
        if dim:
            _darken(picture, np.ones(picture.shape[:2], dtype=np.bool_))
        _draw_banner(picture, "nothing found", style)
    return add_caption(picture, title, note, scale=style.text, weight=style.weight, margin=style.margin)


def check_path(path: str | Path) -> Path:
    """Gives `path` when a picture can be written there.

    Raises:
        ValueError: it does not end in .png, .jpg or .jpeg.
        OSError: its folder does not exist, or it is a folder itself.
    """
    target = Path(path)
    if target.suffix.lower() not in SUFFIXES:
        raise ValueError(f"cannot write {str(path)!r}: the name must end in {', '.join(SUFFIXES)}")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"cannot write {str(path)!r}: make the folder {str(target.parent)!r} first")
    if target.is_dir():
        raise IsADirectoryError(f"cannot write {str(path)!r}: it is a folder")
    return target


def write(picture: NDArray[np.uint8], path: str | Path) -> Path:
    """Writes uint8 [H, W, 3] RGB as PNG or JPEG, after the ending; the file appears when it is whole.

    Raises:
        ValueError: another ending, or a JPEG of more than 65,500 pixels a side.
        OSError: it cannot be written.
    """
    target = check_path(path)
    png = target.suffix.lower() == ".png"
    side = max(picture.shape[:2])
    if not png and side > _JPEG_SIDE:
        raise ValueError(f"a JPEG holds at most {_JPEG_SIDE:,} pixels a side, got {side:,}: use .png")
    options = [] if png else [cv2.IMWRITE_JPEG_QUALITY, 92]
    done, data = cv2.imencode(".png" if png else ".jpg", picture[:, :, ::-1], options)
    if not done:
        raise OSError(f"OpenCV cannot encode {str(path)!r}: its build lacks the format")
    write_whole(target, data.tobytes())
    return target


def _draw_masks(
    picture: NDArray[np.uint8],
    masks: Iterable[NDArray[np.bool_]],
    colors: Sequence[Color],
    style: _Style,
    dim: bool,
) -> None:
    """Tints the masks and outlines them; `dim` darkens everything outside."""
    height, width = picture.shape[:2]
    union = np.zeros((height, width), dtype=np.uint8)
    outlines = []
    tint = 9 if dim else 4  # of 20; beside undimmed colours a mask's own shall be seen too
    number = 0
    for number, mask in enumerate(masks, start=1):
        color = colors[(number - 1) % len(colors)]
        full = mask.view(np.uint8) * np.uint8(255)
        if full.shape != (height, width):  # enlarged with the image: smooth edges instead of stairs
            full = _uint8(cv2.resize(full, (width, height), interpolation=cv2.INTER_LINEAR))
            full = (full > 127).view(np.uint8) * np.uint8(255)
        contours, _ = cv2.findContours(full, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        x, y, w, h = cv2.boundingRect(full)
        part = (slice(y, y + h), slice(x, x + w))
        inside = full[part] > 0
        tinted = picture[part].astype(np.uint16) * (20 - tint) + np.array(color, dtype=np.uint16) * tint
        picture[part][inside] = (tinted[inside] // 20).astype(np.uint8)
        union[part] |= full[part]
        # A thick outline would hide a small object.
        outlines.append((contours, color, max(1, min(style.line, min(w, h) // 12))))
    if number != len(colors):
        raise ValueError(f"{len(colors)} scores, but {number} masks")
    if dim:
        _darken(picture, union == 0)
    for contours, color, line in reversed(outlines):
        cv2.drawContours(picture, contours, -1, (0, 0, 0), line + 2, cv2.LINE_AA)
        cv2.drawContours(picture, contours, -1, color, line, cv2.LINE_AA)


def _darken(picture: NDArray[np.uint8], where: NDArray[np.bool_]) -> None:
    picture[where] = (picture[where].astype(np.uint16) * 11 // 20).astype(np.uint8)


def _draw_boxes(
    picture: NDArray[np.uint8],
    boxes: NDArray[np.float32],
    scores: NDArray[np.float32],
    colors: Sequence[Color],
    style: _Style,
) -> None:
    height, width = picture.shape[:2]
    corners = np.clip(np.rint(boxes), 0, [width - 1, height - 1, width - 1, height - 1]).astype(int).tolist()
    thin = max(1, style.line // 2)
    for number in reversed(range(len(corners))):
        x0, y0, x1, y1 = corners[number]
        cv2.rectangle(picture, (x0, y0), (x1, y1), (0, 0, 0), thin + 2)
        cv2.rectangle(picture, (x0, y0), (x1, y1), colors[number], thin)
    taken: list[Rectangle] = []
    for number, (score, corner) in enumerate(zip(scores.tolist(), corners, strict=True)):
        text = f"{score:.2f}"
        (w, h), base = cv2.getTextSize(text, FONT, style.text, style.weight)
        w, h = w + 2 * style.margin, h + base + style.margin
        x, y = _free_place(corner, (w, h), (height, width), taken)
        taken.append((x, y, x + w, y + h))
        color = colors[number]
        cv2.rectangle(picture, (x, y), (x + w - 1, y + h - 1), color, cv2.FILLED)
        origin = (x + style.margin, y + h - base - style.margin // 2)
        cv2.putText(picture, text, origin, FONT, style.text, _ink_on(color), style.weight, cv2.LINE_AA)


def _free_place(
    box: Sequence[int], size: tuple[int, int], bounds: tuple[int, int], taken: Sequence[Rectangle]
) -> tuple[int, int]:
    """Where a label of (w, h) goes: at a corner of its box, within the picture, over no other label."""
    (x0, y0, x1, y1), (w, h), (height, width) = box, size, bounds
    wanted = [(x0, y0 - h), (x0, y0), (x0, y1), (x1 - w, y0 - h), (x1 - w, y1), (x0, y1 - h), (x1, y0)]
    places = [(max(0, min(x, width - w)), max(0, min(y, height - h))) for x, y in wanted]
    for x, y in places:
        if not any(_overlap((x, y, x + w, y + h), other) for other in taken):
            return x, y
    return places[0]


def _overlap(a: Rectangle, b: Rectangle) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _draw_banner(picture: NDArray[np.uint8], text: str, style: _Style) -> None:
    height, width = picture.shape[:2]
    scale = style.text * 1.6
    (w, h), base = cv2.getTextSize(text, FONT, scale, style.weight)
    scale *= min(1.0, 0.9 * width / w, 0.8 * height / (h + base))
    (w, h), base = cv2.getTextSize(text, FONT, scale, style.weight)
    middle, half = height // 2, (h + base) // 2 + 2 * style.margin
    picture[max(0, middle - half) : middle + half] = BACKDROP
    origin = ((width - w) // 2, middle + (h - base) // 2 + base // 2)
    cv2.putText(picture, text, origin, FONT, scale, WHITE, style.weight, cv2.LINE_AA)


def _ink_on(color: Color) -> Color:
    luma = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2]
    return (0, 0, 0) if luma > 110 else WHITE


def _uint8(array: object) -> NDArray[np.uint8]:
    return np.asarray(array, dtype=np.uint8)
