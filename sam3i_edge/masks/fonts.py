"""The fonts of this machine, asked for what OpenCV cannot draw: it has the characters of ASCII alone."""

from __future__ import annotations

import functools
import os
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from PIL import ImageFont, features

_FOLDERS = (
    "/usr/share/fonts",
    "/usr/local/share/fonts",
    "~/.local/share/fonts",
    "~/.fonts",
    "/System/Library/Fonts",
    "/Library/Fonts",
    "~/Library/Fonts",
    "C:/Windows/Fonts",
)
_ENDINGS = (".ttf", ".otf", ".ttc")
_MOST_FONTS = 400
_STYLES = (
    "bold",
    "italic",
    "oblique",
    "mono",
    "serif",
    "black",
    "light",
    "thin",
    "condensed",
    "symbol",
    "math",
)
_SHOWS_BOXES = ("lastresort", "adobeblank")  # they have a sign for every character, and it says nothing
_NOT_A_CHARACTER = "\U0010ffff"
# Letters that change with their neighbours, or run from right to left: without shaping nobody can read them.
_SHAPED = ((0x0590, 0x109F), (0x1780, 0x17FF), (0xFB1D, 0xFDFF), (0xFE70, 0xFEFF))


def drawable(text: str) -> tuple[str, str | None, int]:
    """A text as it can be drawn on this machine.

    Returns:
        The text on one line, without what nothing here can draw; the font's file that draws it, or None for
        OpenCV's own letters; and how many characters were left out.
    """
    text = " ".join("".join(one if one.isprintable() else " " for one in text).split())
    if text.isascii():
        return text, None, 0
    font, known = _best_font(frozenset(one for one in text if not one.isspace()))
    kept, left_out = [], 0
    for one in text:
        if one in known or one == " " or (font is None and one.isascii()):
            kept.append(one)
        elif (plain := _without_accents(one)) and (font is None or set(plain) <= known):
            kept.append(plain)
        else:
            left_out += unicodedata.category(one)[0] not in "MC"  # what has no width is not missed
    return " ".join("".join(kept).split()), font, left_out


def _without_accents(character: str) -> str:
    """The ASCII letters of a letter with accents or of a ligature; "" where there are none."""
    letters = [one for one in unicodedata.normalize("NFKD", character) if not unicodedata.combining(one)]
    return "".join(letters) if all(one.isascii() and one.isprintable() for one in letters) else ""


@functools.lru_cache(maxsize=64)
def _best_font(characters: frozenset[str]) -> tuple[str | None, frozenset[str]]:
    """The font that has most of the characters, and which it has. None when it has ASCII alone."""
    wanted = {one for one in characters if features.check("raqm") or not _is_shaped(one)}
    best: tuple[str | None, frozenset[str]] = (None, frozenset())
    for path in _fonts():
        known = _has(path, wanted)
        if len(known) > len(best[1]) and not all(one.isascii() for one in known):
            best = path, known
        if len(known) == len(wanted):
            break
    return best


def _is_shaped(character: str) -> bool:
    return any(first <= ord(character) <= last for first, last in _SHAPED)


def _has(path: str, characters: Iterable[str]) -> frozenset[str]:
    try:
        font = ImageFont.truetype(path, 16, layout_engine=ImageFont.Layout.BASIC)
        missing = _glyph(font, _NOT_A_CHARACTER)
        return frozenset(one for one in characters if _glyph(font, one) != missing)
    except OSError:  # damaged, or pictures of one size, as of emoji
        return frozenset()


def _glyph(font: ImageFont.FreeTypeFont, character: str) -> tuple[object, float, bytes]:
    mask = font.getmask(character)
    return mask.size, font.getlength(character), bytes(mask)


@functools.cache
def _fonts() -> tuple[str, ...]:
    """The files of fonts, upright ones without serifs first."""
    found = []
    for folder in _FOLDERS:
        for root, _, names in os.walk(os.path.expanduser(folder)):
            found += [Path(root) / name for name in names if name.lower().endswith(_ENDINGS)]
    usable = [path for path in found if not any(name in path.stem.lower() for name in _SHOWS_BOXES)]

    def order(path: Path) -> tuple[int, int, str]:
        stem = path.stem.lower().replace("sansserif", "sans")
        styled = sum(style in stem for style in _STYLES)
        return styled, not any(kind in stem for kind in ("sans", "arial", "gothic", "unicode")), str(path)

    return tuple(str(path) for path in sorted(usable, key=order)[:_MOST_FONTS])
