"""Slips of the fingers, as noise for training."""

from __future__ import annotations

import re
from random import Random
from typing import Final

_ROWS: Final = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_WORD: Final = re.compile(r"[a-z]{4,}")


def one_letter(text: str, random: Random) -> str | None:
    """The text with one letter wrong in a word of at least four, never its first; None without such a word.

    A letter is left out, doubled, exchanged with the next, or replaced by its neighbour on the keyboard.
    """
    words = list(_WORD.finditer(text))
    if not words:
        return None
    word = random.choice(words)
    at = random.randrange(word.start() + 1, word.end())
    letter = text[at]
    kind = random.randrange(4)
    if kind == 0:
        return text[:at] + text[at + 1 :]
    if kind == 1:
        return text[:at] + letter + text[at:]
    if kind == 2 and at + 1 < word.end() and text[at + 1] != letter:
        return text[:at] + text[at + 1] + letter + text[at + 2 :]
    row = next(row for row in _ROWS if letter in row)
    near = row[max(0, row.index(letter) - 1) : row.index(letter) + 2].replace(letter, "")
    return text[:at] + random.choice(near) + text[at + 1 :]
