"""Prints gIoU by what an instruction asks, and by noun: the tables of docs/nano.md and docs/table.md.

    sam3i-edge evaluate sam3i-nano --data DIR --outcomes outcomes.jsonl
    python scripts/instruction_families.py outcomes.jsonl [--nouns tabletop]

Families are told by the words that made-up instructions use; the first that fits counts. Nouns are those of
a vocabulary at level concept, the worst first, with the shares in which more or fewer things were found than
are there. Pairs with nothing to find are left out.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any, TypeAlias

from sam3i_edge.data.vocabulary import Vocabulary, load_vocabulary
from sam3i_edge.levels import LEVELS

Outcome: TypeAlias = dict[str, Any]  # a line of outcomes.jsonl

RELATIONS = {
    "nearest to, farthest from": (
        r"(nearest to|closest to|(farthest|furthest) (away )?from) "
        r"(?!the (left|right) edge|the (top|bottom)\b)"
    ),
    "between two others": r"\bbetween\b",
    "left, right, above, below": (
        r"\b(left of|right of|above|below|higher (up )?than|under|beneath|underneath|lower than)\b"
    ),
    "bigger, smaller, taller than": r"\b(bigger|larger|smaller|taller|wider) than\b",
    "the same colour, shape or fill": r"\bsame (colou?r|shape|fill|pattern)|\bshare\b",
    "in, on, behind, beside": (
        r"\b(inside|behind|in front of|next to|beside|on top of)\b|\bin (the|what|the one) "
        r"(?!(image|picture|photo|scene|upper|lower|left|right|top|bottom|middle|cent|colou?r|night))"
    ),
    "second from the left": r"\bfrom the (left|right|top|bottom)\b",
}
OTHERS = {"all but": r"\b(except|but|apart from)\b", "no relation": ""}


def family(instruction: str) -> str:
    """The first family whose words stand in an instruction."""
    text = instruction.lower()
    return next(name for name, words in (RELATIONS | OTHERS).items() if re.search(words, text))


def share(numbers: Sequence[float], least: float) -> float:
    """The part of them above a least one."""
    return sum(number > least for number in numbers) / len(numbers)


def print_families(outcomes: list[Outcome]) -> None:
    """GIoU by level and family."""
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for outcome in outcomes:
        found[outcome["level"], family(outcome["instruction"])].append(outcome["iou"])
    print("| level | asks for | pairs | gIoU | P@0.5 |\n|---|---|---|---|---|")
    for level in LEVELS[1:]:
        related = [iou for name in RELATIONS for iou in found[level, name]]
        rows = {name: found[level, name] for name in RELATIONS} | {"**any relation**": related}
        for name, ious in (rows | {name: found[level, name] for name in OTHERS}).items():
            if ious:
                print(f"| {level} | {name} | {len(ious)} | {mean(ious):.2f} | {share(ious, 0.5):.2f} |")


def print_nouns(outcomes: list[Outcome], vocabulary: Vocabulary) -> None:
    """By category, the worst first: gIoU of noun phrases, and how often too many or too few were found."""
    words = {
        word: name
        for name in vocabulary.categories
        for noun in vocabulary.nouns(name)
        for word in (noun.one, noun.many)
    }
    found: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        named = [word for word in words if word in outcome["instruction"].lower()]
        if outcome["level"] == "concept" and named:
            found[words[max(named, key=len)]].append(outcome)
    print("| noun | pairs | gIoU | more found than there | fewer |\n|---|---|---|---|---|")
    rows = {name: found[name] for name in sorted(found, key=lambda name: mean(_ious(found[name])))}
    for name, asked in (rows | {"**all**": [one for some in found.values() for one in some]}).items():
        extra = [one["match"]["num_predictions"] - one["match"]["num_targets"] for one in asked]
        more, fewer = share(extra, 0), share([-number for number in extra], 0)
        print(f"| {name} | {len(asked)} | {mean(_ious(asked)):.2f} | {more:.2f} | {fewer:.2f} |")


def _ious(outcomes: list[Outcome]) -> list[float]:
    return [outcome["iou"] for outcome in outcomes]


def main() -> None:
    """Reads the outcomes and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("outcomes", type=Path)
    parser.add_argument("--nouns", metavar="VOCABULARY", help="by noun, at level concept")
    given = parser.parse_args()
    lines = given.outcomes.read_text().splitlines()
    asked = [outcome for outcome in map(json.loads, lines) if outcome["match"]["num_targets"]]
    if given.nouns:
        print_nouns(asked, load_vocabulary(given.nouns))
    else:
        print_families(asked)


if __name__ == "__main__":
    main()
