"""Colours by name: what may be called red, how far apart two are, the shades of stripes and dots."""

from __future__ import annotations

import colorsys
import math
from typing import Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

Color = Literal["red", "green", "blue", "yellow", "purple", "orange", "white", "black"]
Fill = Literal["plain", "striped", "dotted"]
COLORS: Final[tuple[Color, ...]] = get_args(Color)
FILLS: Final[tuple[Fill, ...]] = get_args(Fill)

RGB = NDArray[np.float32]  # [3], 0..255

_HSV: Final[dict[Color, tuple[tuple[float, float], tuple[float, float], tuple[float, float]]]] = {
    # hue in degrees, saturation, value. Gaps between neighbours keep every name beyond dispute.
    "red": ((350, 368), (0.68, 1.0), (0.56, 1.0)),
    "orange": ((22, 40), (0.78, 1.0), (0.88, 1.0)),
    "yellow": ((48, 61), (0.65, 1.0), (0.86, 1.0)),
    "green": ((95, 145), (0.5, 1.0), (0.38, 1.0)),
    "blue": ((205, 243), (0.62, 1.0), (0.5, 1.0)),
    "purple": ((266, 291), (0.45, 1.0), (0.42, 0.94)),
    "white": ((0, 360), (0.0, 0.035), (0.91, 1.0)),
    "black": ((0, 360), (0.0, 0.3), (0.0, 0.15)),
}
_USUAL: Final[
    dict[Color, tuple[str, ...]]
] = {  # what drawing programs and other people's code call by the name
    "red": ("ff0000", "e41a1c", "dc1e1e", "d62728", "c82828"),
    "orange": ("ffa500", "ff8c00", "ff7f0e", "ff7f00", "f58c1e"),
    "yellow": ("ffff00", "ffd700", "f5dc28", "ffe119", "ffeb3b"),
    "green": ("008000", "00ff00", "2ca02c", "28a03c", "4daf4a", "00c800"),
    "blue": ("0000ff", "1f77b4", "2850dc", "1e5ae6", "377eb8"),
    "purple": ("800080", "9467bd", "8228b4", "a020f0", "984ea3"),
    "white": ("ffffff", "f5f5f5", "fafafa"),
    "black": ("000000", "141414", "1e1e1e"),
}


def named_color(name: Color, rng: np.random.Generator) -> RGB:
    """A colour inside the range of its name, float32 [3], 0..255."""
    if rng.random() < 0.3:
        usual = _USUAL[name]
        code = usual[int(rng.integers(len(usual)))]
        return np.array([int(code[i : i + 2], 16) for i in (0, 2, 4)], dtype=np.float32)
    hue, saturation, value = _HSV[name]
    return hsv(rng.uniform(*hue), rng.uniform(*saturation), rng.uniform(*value))


def hsv(hue: float, saturation: float, value: float) -> RGB:
    """Hue in degrees, saturation and value 0..1, as RGB float32 [3], 0..255."""
    return np.array(colorsys.hsv_to_rgb(hue / 360 % 1, saturation, value), dtype=np.float32) * 255


def distance(a: RGB, b: RGB) -> float:
    """How different two colours look, 0 (equal) to 255 (black and white).

    Euclidean with weights 2, 4, 3 for red, green and blue, the usual stand-in for a perceptual distance.
    """
    (r1, g1, b1), (r2, g2, b2) = a.tolist(), b.tolist()
    red, green, blue = r1 - r2, g1 - g2, b1 - b2
    return math.sqrt((2 * red * red + 4 * green * green + 3 * blue * blue) / 9)


def luma(color: RGB) -> float:
    """Brightness 0..255 (ITU-R BT.601 weights)."""
    return 0.299 * float(color[0]) + 0.587 * float(color[1]) + 0.114 * float(color[2])


def mark_color(base: RGB, behind: RGB, strong: bool, rng: np.random.Generator) -> RGB:
    """The colour of stripes or dots on `base`: black, white or a shade of it, never another colour's name.

    Args:
        base: RGB 0..255 of the shape.
        behind: RGB of the background there, avoided where the choice allows it.
        strong: whether to keep to the strongest contrasts, for shapes of few pixels.
        rng: decides.
    """
    dark, light = np.full(3, rng.uniform(0, 40), np.float32), np.full(3, rng.uniform(225, 255), np.float32)
    if luma(base) > 215:
        shades = [dark, dark if strong else base * np.float32(rng.uniform(0.4, 0.62))]
    elif luma(base) < 40:
        shades = [light, light if strong else np.full(3, rng.uniform(115, 190), np.float32)]
    else:
        shades = [
            dark,
            light,
            base * np.float32(rng.uniform(0.3, 0.5)),
            base + (255 - base) * np.float32(0.65),
        ]
        visible = [shade for shade in shades if distance(shade, base) >= (100 if strong else 62)]
        shades = visible or [max(shades, key=lambda shade: distance(shade, base))]
    apart = [shade for shade in shades if distance(shade, behind) >= 45] or shades
    return apart[int(rng.integers(len(apart)))]
