"""The colour that an object's pixels show, where one name is beyond dispute; else nothing.

The names are basic colour terms (Berlin and Kay, 1969), told apart in CIELAB as parametric colour naming
does (Benavente, Vanrell and Baldrich, 2008), but with gaps between the names in place of fuzzy borders, and
by two measures that shading leaves alone. When light falls off by a factor, L* + 16, a* and b* all change by
its cube root: the hue angle and the *purity* sqrt(a*^2 + b*^2) / (L* + 16) stay. Lightness itself only
decides among names that differ in little else: brown and orange, black and white.

A pixel has a name or none. An object has one where nearly all of its coloured pixels agree and are most of
it; what is left may be highlights and small parts. Without colour it is black where most of it is very dark
and nothing bright, white where even the darker quarter is bright and something as bright as can be. Grey is
never answered: in the shadow white looks the same. The numbers were chosen on 2,400 pictures of
`tabletop/`'s training side; docs/data-sources.md has what they give on the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from sam3i_edge.data.scene import Scene, SceneObject
from sam3i_edge.data.vocabulary import Vocabulary

COLOR: Final = "color"

_LEAST: Final = 64  # pixels, the border left out
_LEAST_WHITE: Final = 250  # metal shines white in small places
_GREY: Final = 0.14  # purity below which a pixel has no colour
_COLORED: Final = 0.22  # purity from which it has one
_DARK: Final = 4.0  # L* below which a hue is noise
_MOST: Final = 0.6  # of the pixels must be coloured, for a colour
_AGREE: Final = 0.9  # of the coloured ones must have the name
_COLORLESS: Final = 0.97  # of the pixels must be without colour, for black and white


@dataclass(frozen=True, slots=True)
class _Range:
    """What pixels of a name have: hue angle in degrees and purity, from and to; L*, from and to.

    `bright` and `dim` are what the lightness of a quarter of them must reach, or not: the rest is shaded.
    """

    name: str
    hue: tuple[float, float]
    purity: tuple[float, float]
    bright: float = 0
    dim: float = 100


_RANGES: Final = (
    _Range("red", (18, 44), (0.75, 9)),
    _Range("orange", (48, 72), (0.7, 9), bright=48),  # darker, it is brown
    _Range("yellow", (82, 108), (0.45, 9), bright=58),  # darker, it is olive
    _Range("green", (119, 170), (0.3, 9)),
    _Range("blue", (256, 300), (0.35, 9)),
    _Range("blue", (300, 307.5), (2, 9)),  # in CIELAB the purest blue turns to purple
    _Range("purple", (309, 332), (0.35, 9)),
    _Range("pink", (335, 375), (0.25, 0.75), bright=45),
    _Range("brown", (42, 72), (0.3, 0.66), dim=42),
)


def pixel_color(image: NDArray[np.uint8], mask: NDArray[np.bool_]) -> str | None:
    """The one colour's name of an object, or None where its pixels are not clear.

    Args:
        image: uint8 [H, W, 3] RGB.
        mask: bool [H, W], the object; its border pixels, which mix with what is behind, are left out.
    """
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    window = np.s_[y : y + height, x : x + width]
    inner = cv2.erode(
        np.pad(mask[window], 1).view(np.uint8), np.ones((3, 3), np.uint8), borderType=cv2.BORDER_CONSTANT
    )[1:-1, 1:-1].astype(np.bool_)
    if np.count_nonzero(inner) < _LEAST:
        return None
    # Against noise, the mean of a pixel and those around it, which all belong to the object.
    pixels = cv2.blur(image[window].astype(np.float32) / 255, (3, 3))[inner]
    lab = cv2.cvtColor(pixels[None], cv2.COLOR_RGB2LAB)[0]
    lightness = lab[:, 0]
    purity = np.hypot(lab[:, 1], lab[:, 2]) / (lightness + 16)
    colored = (purity >= _COLORED) & (lightness >= _DARK)
    if colored.mean() >= _MOST:
        hue = np.degrees(np.arctan2(lab[:, 2], lab[:, 1]))
        return _chromatic(lightness[colored], purity[colored], hue[colored])
    colorless = (purity < _GREY) | (lightness < _DARK)
    return _achromatic(lightness) if colorless.mean() >= _COLORLESS else None


def _chromatic(
    lightness: NDArray[np.float32], purity: NDArray[np.float32], hue: NDArray[np.float32]
) -> str | None:
    upper = np.percentile(lightness, 75)
    for span in _RANGES:
        turned = (hue - span.hue[0]) % 360 <= span.hue[1] - span.hue[0]
        pure = (span.purity[0] <= purity) & (purity <= span.purity[1])
        if span.bright <= upper <= span.dim and (turned & pure).mean() >= _AGREE:
            return span.name
    return None


def _achromatic(lightness: NDArray[np.float32]) -> str | None:
    darkest, quarter, middle, brightest = np.percentile(lightness, (10, 25, 50, 98))
    if quarter <= 6 and middle <= 9 and brightest <= 60:
        return "black"
    bright = darkest >= 40 and quarter >= 60 and brightest >= 96
    return "white" if bright and len(lightness) >= _LEAST_WHITE else None


def with_pixel_colors(scene: Scene, vocabulary: Vocabulary) -> Scene:
    """The scene with the colours of objects of which the source says nothing; an unknown one (None) stays.

    A colour that the vocabulary does not have is None: it is certainly no other, but cannot be said.

    Raises:
        ImageError: the picture cannot be read.
    """
    if COLOR not in vocabulary.attributes or all(COLOR in thing.attributes for thing in scene.objects):
        return scene
    image = scene.pixels()
    return replace(scene, objects=tuple(_colored(image, thing, vocabulary) for thing in scene.objects))


def _colored(image: NDArray[np.uint8], thing: SceneObject, vocabulary: Vocabulary) -> SceneObject:
    if COLOR in thing.attributes:
        return thing
    name = pixel_color(image, thing.mask)
    value = None if name is None else vocabulary.value_of(COLOR, name)
    attributes: Mapping[str, str | None] = {**thing.attributes, COLOR: value}
    return replace(thing, attributes=attributes)
