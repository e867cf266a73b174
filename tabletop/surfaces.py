"""Colours with names, fixed paints, and pictures of tables, walls and floors: all made here, from seeds."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Rgb = tuple[float, float, float]

# Ranges of hue (degrees), saturation and value that nobody calls by another name; sRGB.
_NAMED: dict[str, tuple[tuple[float, float], tuple[float, float], tuple[float, float]]] = {
    "red": ((352, 366), (0.82, 0.95), (0.65, 0.85)),
    "orange": ((22, 30), (0.88, 1.0), (0.9, 1.0)),
    "yellow": ((48, 56), (0.8, 0.95), (0.9, 1.0)),
    "green": ((105, 145), (0.6, 0.9), (0.4, 0.7)),
    "blue": ((212, 232), (0.7, 0.9), (0.55, 0.85)),
    "purple": ((268, 288), (0.55, 0.8), (0.45, 0.7)),
    "pink": ((328, 344), (0.35, 0.55), (0.9, 1.0)),
    "brown": ((18, 28), (0.6, 0.75), (0.28, 0.42)),
    "black": ((0, 360), (0.0, 0.15), (0.03, 0.1)),
    "white": ((0, 360), (0.0, 0.05), (0.93, 1.0)),
    "grey": ((0, 360), (0.0, 0.06), (0.42, 0.58)),
}


@dataclass(frozen=True, slots=True)
class Paint:
    """How a surface looks: sRGB 0..1, opacity, gloss 0..1, and whether it is metal or shines by itself."""

    rgb: Rgb
    alpha: float = 1.0
    gloss: float = 0.4
    metal: bool = False
    glows: bool = False


PAINTS: dict[str, Paint] = {
    "metal": Paint((0.72, 0.72, 0.74), gloss=0.9, metal=True),
    "iron": Paint((0.33, 0.34, 0.36), gloss=0.7, metal=True),
    "dark": Paint((0.07, 0.07, 0.08)),
    "white": Paint((0.93, 0.93, 0.92)),
    "keys": Paint((0.55, 0.56, 0.6)),
    "redkey": Paint((0.75, 0.1, 0.1)),
    "wood": Paint((0.6, 0.42, 0.25), gloss=0.25),
    "clay": Paint((0.72, 0.36, 0.22), gloss=0.15),
    "bark": Paint((0.3, 0.2, 0.1), gloss=0.1),
    "paper": Paint((0.92, 0.9, 0.84), gloss=0.1),
    "tape": Paint((0.8, 0.68, 0.45), gloss=0.5),
    "glass": Paint((0.85, 0.92, 0.95), alpha=0.35, gloss=1.0),
    "water": Paint((0.75, 0.86, 0.92), alpha=0.5, gloss=0.9),
    "juice": Paint((0.95, 0.6, 0.1), gloss=0.6),
    "milk": Paint((0.95, 0.94, 0.9), gloss=0.4),
    "screen": Paint((0.04, 0.05, 0.08), gloss=1.0),
    "lens": Paint((0.1, 0.1, 0.2), gloss=1.0),
    "leaf": Paint((0.2, 0.45, 0.16), gloss=0.3),
    "soil": Paint((0.2, 0.14, 0.1), gloss=0.05),
    "crust": Paint((0.72, 0.46, 0.2), gloss=0.15),
    "crumb": Paint((0.9, 0.75, 0.52), gloss=0.1),
    "flame": Paint((1.0, 0.9, 0.6), glows=True),
}

MAIN = Paint((0.7, 0.7, 0.7))  # a thing's own colour, before it has one


def shade(color: str, rng: Generator) -> Rgb:
    """One shade of a named colour."""
    hue, saturation, value = (float(rng.uniform(*span)) for span in _NAMED[color])
    pixel = np.array([[[hue % 360, saturation, value]]], np.float32)
    r, g, b = cv2.cvtColor(pixel, cv2.COLOR_HSV2RGB)[0, 0]
    return float(r), float(g), float(b)


def noise(rng: Generator, size: int, cells: int, octaves: int = 4) -> NDArray[np.float32]:
    """Smooth noise [size, size] in 0..1 that meets itself at the borders."""
    total, weight = np.zeros((size, size), np.float32), 0.0
    for octave in range(octaves):
        n = cells * 2**octave
        grid = rng.random((n, n), dtype=np.float32)
        grid = np.pad(grid, 2, mode="wrap")
        large = cv2.resize(grid, None, fx=size / n, fy=size / n, interpolation=cv2.INTER_CUBIC)
        edge = 2 * size // n
        total += large[edge : edge + size, edge : edge + size] / 2**octave
        weight += 1 / 2**octave
    return np.clip(total / weight, 0, 1)


def _mix(low: Rgb, high: Rgb, share: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(low, np.float32) + share[..., None] * (
        np.asarray(high, np.float32) - np.asarray(low, np.float32)
    )


def _tone(rng: Generator, saturation: tuple[float, float], value: tuple[float, float]) -> Rgb:
    pixel = np.array([[[rng.uniform(0, 360), rng.uniform(*saturation), rng.uniform(*value)]]], np.float32)
    r, g, b = cv2.cvtColor(pixel, cv2.COLOR_HSV2RGB)[0, 0]
    return float(r), float(g), float(b)


def wood(rng: Generator, size: int = 512) -> NDArray[np.uint8]:
    """Boards with grain."""
    tint = np.array(_tone(rng, (0.0, 0.1), (0.9, 1.0)))
    base = (
        np.array(
            [[0.55, 0.38, 0.22], [0.72, 0.55, 0.36], [0.33, 0.22, 0.14], [0.8, 0.68, 0.5]][rng.integers(4)]
        )
        * tint
    )
    boards = int(rng.integers(1, 6))
    y = np.linspace(0, 1, size, endpoint=False, dtype=np.float32)[:, None]
    warp = noise(rng, size, 3) * 0.5
    rings = 0.5 + 0.5 * np.sin(2 * np.pi * (y * rng.uniform(18, 60) + 9 * cv2.blur(warp, (size // 3, 1))))
    fine = cv2.blur(rng.random((size, size), dtype=np.float32), (41, 1))
    share = np.clip(rng.uniform(0.2, 0.5) * rings + 1.6 * (fine - 0.5) + 0.3, 0, 1).astype(np.float32)
    tone = rng.uniform(0.85, 1.1, boards)[(y[:, 0] * boards).astype(int)][:, None, None]
    picture = _mix(tuple(base * 0.72), tuple(np.minimum(base * 1.1, 1)), share) * tone
    if boards > 1:
        picture[np.abs((y[:, 0] * boards) % 1 - 0.5) > 0.492] *= 0.55
    return _bytes(picture)


def cloth(rng: Generator, size: int = 512) -> NDArray[np.uint8]:
    """A table cloth: one tone, checks or stripes, with a weave."""
    a, b = _tone(rng, (0.05, 0.5), (0.45, 0.95)), _tone(rng, (0.0, 0.25), (0.8, 1.0))
    kind, n = rng.integers(3), int(rng.integers(4, 12))
    at = (np.arange(size) * n // size % 2).astype(np.float32)
    share = {
        0: np.zeros((size, size), np.float32),
        1: (at[:, None] + at[None]) / 2,
        2: np.broadcast_to(at, (size, size)),
    }[int(kind)]
    weave = 0.94 + 0.06 * ((np.indices((size, size)).sum(0) // 2) % 2)
    return _bytes(
        _mix(a, b, share.astype(np.float32)) * weave[..., None] * (0.9 + 0.2 * noise(rng, size, 4)[..., None])
    )


def stone(rng: Generator, size: int = 512) -> NDArray[np.uint8]:
    """Marble, granite or plain plaster."""
    a, b = _tone(rng, (0.0, 0.15), (0.25, 0.95)), _tone(rng, (0.0, 0.12), (0.5, 1.0))
    field = noise(rng, size, 3, 5)
    if rng.random() < 0.5:
        field = np.abs(np.sin(2 * np.pi * (field * rng.uniform(1.5, 4)))) ** rng.uniform(0.3, 1.2)
    grain = (rng.random((size, size), dtype=np.float32) - 0.5) * rng.uniform(0, 0.25)
    return _bytes(_mix(a, b, np.clip(field + grain, 0, 1).astype(np.float32)))


def tiles(rng: Generator, size: int = 512) -> NDArray[np.uint8]:
    """Tiles with joints."""
    n = int(rng.integers(2, 7))
    rows = np.arange(size) * n // size
    tone = rng.uniform(0.88, 1.05, (n, n))[rows[:, None], rows[None]]
    picture = (
        np.asarray(_tone(rng, (0.0, 0.35), (0.4, 0.95)))
        * tone[..., None]
        * (0.93 + 0.14 * noise(rng, size, 6)[..., None])
    )
    joint = (np.arange(size) * n % size) < size * n // 160
    picture[joint] = picture[:, joint] = np.asarray(_tone(rng, (0.0, 0.1), (0.3, 0.8)))
    return _bytes(picture)


def plain(rng: Generator, size: int = 512) -> NDArray[np.uint8]:
    """Paint on a wall, a little uneven."""
    tone = np.asarray(_tone(rng, (0.0, 0.35), (0.35, 0.98)))
    return _bytes(tone * (0.94 + 0.1 * noise(rng, size, 2)[..., None]))


_KINDS = {
    "table": (wood, wood, cloth, stone, plain, wood),
    "wall": (plain, plain, tiles, stone, wood),
    "floor": (wood, tiles, stone, plain),
}


def surface(kind: str, number: int) -> NDArray[np.uint8]:
    """The picture of a number, [512, 512, 3] uint8 RGB, for "table", "wall" or "floor"; always the same."""
    rng = np.random.default_rng((0x5F4C, *kind.encode(), number))
    makers = _KINDS[kind]
    return makers[number % len(makers)](rng)


def _bytes(picture: NDArray[np.floating]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(np.clip(picture * 255 + 0.5, 0, 255).astype(np.uint8))
