"""Prints gIoU by what an instruction asks: the table of docs/nano.md.

    sam3i-edge scenes val --count 600 --seed 20261121
    sam3i-edge evaluate sam3i-nano --data val --outcomes outcomes.jsonl
    python scripts/instruction_families.py outcomes.jsonl

Families are told by the words that drawn instructions use (`sam3i_edge/data/wording.py`); the first that
fits counts. Pairs with nothing to find are left out.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import defaultdict
from pathlib import Path

from sam3i_edge.levels import LEVELS

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
    "second from the left": r"\bfrom the (left|right|top|bottom)\b",
}
OTHERS = {"all but": r"\b(except|but|apart from)\b", "no relation": ""}


def family(instruction: str) -> str:
    """The first family whose words stand in an instruction."""
    text = instruction.lower()
    return next(name for name, words in (RELATIONS | OTHERS).items() if re.search(words, text))


def main() -> None:
    """Reads the outcomes and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("outcomes", type=Path)
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for line in parser.parse_args().outcomes.read_text().splitlines():
        outcome = json.loads(line)
        if outcome["match"]["num_targets"]:
            found[outcome["level"], family(outcome["instruction"])].append(outcome["iou"])
    print("| level | asks for | pairs | gIoU | P@0.5 |\n|---|---|---|---|---|")
    for level in LEVELS[1:]:
        related = [iou for name in RELATIONS for iou in found[level, name]]
        rows = {name: found[level, name] for name in RELATIONS} | {"**any relation**": related}
        for name, ious in (rows | {name: found[level, name] for name in OTHERS}).items():
            if ious:
                giou, hits = sum(ious) / len(ious), sum(iou > 0.5 for iou in ious) / len(ious)
                print(f"| {level} | {name} | {len(ious)} | {giou:.2f} | {hits:.2f} |")


if __name__ == "__main__":
    main()
