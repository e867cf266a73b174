"""Slips of the fingers and words that say nothing, as noise for training."""

from __future__ import annotations

import re
from random import Random
from typing import Final

_ROWS: Final = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_WORD: Final = re.compile(r"[a-z]{4,}")
_STARTS: Final = (
    *"bcdfghjklmnprstvwz", "br", "cl", "dr", "fl", "gr", "pl", "qu", "sk", "sp", "st", "th", "tr", "",
)  # fmt: skip
_VOWELS: Final = (*"aeiou", "ai", "ea", "ee", "ou")
_ENDS: Final = (*"lmnrst", "ck", "ct", "ld", "nd", "ng", "nt", "rm", "sh", "", "", "", "")
_VERBS_END: Final = ("ate", "ify", "ize", "ing", "ed", "er", "ish", "ect", "ide", "ure", "ain", "ow")
_SMALL: Final = (
    "i", "you", "we", "they", "it", "he", "she", "this", "that", "is", "are", "was", "am", "be", "do", "can",
    "will", "would", "should", "my", "your", "our", "to", "for", "as", "what", "who", "how", "now", "then",
    "so", "well", "just", "here", "if", "on", "of", "at", "with", "by", "over", "after", "up", "out", "from",
    "into", "about", "like", "and", "or", "a", "the", "its", "has", "have", "need", "see", "make", "take",
    "keep", "come",
)  # fmt: skip


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


def words_that_say_nothing(random: Random, most: int) -> str:
    """One to `most` words: made up, some with the end of a verb, or small words of English in no order."""
    return " ".join(
        random.choice(_SMALL) if random.random() < 0.4 else _made_up(random)
        for _ in range(random.randint(1, most))
    )


def _made_up(random: Random) -> str:
    syllables = (
        random.choice(_STARTS) + random.choice(_VOWELS) + random.choice(_ENDS)
        for _ in range(random.choice((1, 1, 2)))
    )
    return "".join(syllables) + (random.choice(_VERBS_END) if random.random() < 0.4 else "")
