"""Prints what `sam3i-edge evaluate --json` found as tables for the docs.

    sam3i-edge evaluate sam3i-nano --data val --json > drawn.json
    python scripts/accuracy_table.py drawn.json tables.json

Figures are those of `sam3i_edge.evaluate.report.Cell`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

HEADER = "| level | granularity | pairs | gIoU | cIoU | P@0.5 | presence right | nothing found, rightly |"
FIGURES = ("giou", "ciou", "p_at_50", "presence_accuracy", "none_accuracy")


def row(cell: dict[str, Any]) -> str:
    """A line of the table; a dash where a figure is not defined, or where nothing was there to find."""
    undefined = {"ciou"} if not cell["pairs_with_target"] else set[str]()
    figures = ["-" if cell[name] is None or name in undefined else f"{cell[name]:.3f}" for name in FIGURES]
    level = "all" if cell["level"] == "overall" else cell["level"]
    return "| " + " | ".join((level, cell["granularity"], f"{cell['pairs']:,}", *figures)) + " |"


def main() -> None:
    """A table a file."""
    for name in sys.argv[1:]:
        report = json.loads(Path(name).read_text(encoding="utf-8"))
        print(f"\n{Path(name).stem}: {report['images']:,} pictures, threshold {report['threshold']}\n")
        print(f"{HEADER}\n|{'---|' * (HEADER.count('|') - 1)}")
        for cell in report["cells"]:
            if cell["level"] != "overall" or cell["granularity"] == "overall":
                print(row(cell))


if __name__ == "__main__":
    main()
