"""Texts of many kinds, and what `text_lines` of native/tests makes of them."""

from __future__ import annotations

import json
import random
import subprocess
import unicodedata
from pathlib import Path
from typing import Any

_SENTENCE = (
    "the a every all red blue striped large small star ring square circle left right of to below above "
    "with without that is are one ones thing shape tallest biggest dog's it's they're we'll i'd 3 10 42 "
    "2,000 used for cutting what which who where find show me please segment polka-dot star-shaped tool "
    "piece cake next nearest "
    "than touching not"
)
_WORDS = tuple(_SENTENCE.split())
_ODD = [
    "&amp;",
    "&lt",
    "&notit;",
    "&#x2019;",
    "&NTILDE;",
    "<b>",
    "\u2014",
    "\u2019",
    "\u201cquoted\u201d",
    "(red)",
    "...",
    "--",
]
_RANGES = (
    (0x20, 0x7E), (0x20, 0x7E), (0xA1, 0x17F), (0x370, 0x3FF), (0x400, 0x52F), (0x590, 0x6FF), (0x900, 0xDFF),
    (0x1E00, 0x1FFF), (0x2000, 0x206F), (0x2070, 0x2BFF), (0x3000, 0x30FF), (0x4E00, 0x4FFF),
    (0xAC00, 0xACFF),
    (0xFB00, 0xFB06), (0xFF01, 0xFFEF), (0x1F300, 0x1F6FF), (0x1, 0x1F), (0x300, 0x36F), (0x10000, 0x10FFF),
)  # fmt: skip


def texts(count: int, seed: int) -> list[str]:
    """Sentences of known words, of odd pieces, of any characters, and of all of these."""
    rng = random.Random(seed)
    found = [
        "",
        " ",
        "  a  b ",
        "'",
        "x's",
        "\u0130stanbul",
        "\u039f\u03a3",
        "\u0391\u03a3\u0392",
        "a" * 3000,
    ]
    while len(found) < count:
        pieces = []
        kind = rng.randrange(4)
        for _ in range(rng.randrange(1, 12)):
            odd = kind == 3 and rng.random() < 0.5
            if kind == 0 or (kind == 3 and not odd):
                pieces.append(rng.choice(_WORDS))
            elif kind == 1 or odd:
                pieces.append(rng.choice(_ODD) if rng.random() < 0.4 else rng.choice(_WORDS).upper())
            else:
                low, high = rng.choice(_RANGES)
                pieces.append("".join(_character(rng, low, high) for _ in range(rng.randrange(1, 6))))
        found.append(rng.choice((" ", " ", "", "  ")).join(pieces))
    return found


def _character(rng: random.Random, low: int, high: int) -> str:
    """One that Unicode knows: libraries of different age agree on these alone."""
    while True:
        character = chr(rng.randint(low, high))
        if unicodedata.category(character) != "Cn":
            return character


def answers(program: list[Path | str], kind: str, given: list[str], *arguments: Path) -> list[Any]:
    """What the program says of each text."""
    lines = "".join(json.dumps(text) + "\n" for text in given)
    done = subprocess.run(
        [*program, kind, *arguments],
        input=lines,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.split("\n")[:-1]]
