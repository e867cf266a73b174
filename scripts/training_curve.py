"""Prints the validation figures of training runs as a table: those of docs/results/table-model.md.

    python scripts/training_curve.py runs/image runs/table [--every 2]

Figures are those of `metrics.jsonl`: the averaged weights, on batches that no step saw.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def rows(run: Path) -> list[tuple[str, int, dict[str, float]]]:
    """Stage, step and figures of every validation of a run."""
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    found = (json.loads(line) for line in lines)
    return [(row["stage"], row["step"], row["validation"]) for row in found if "validation" in row]


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--every", type=int, default=1, help="validations a line; a stage's last is shown")
    given = parser.parse_args()
    names: list[str] = []
    for run in given.runs:
        found = rows(run)
        for number, (stage, step, figures) in enumerate(found):
            last = number + 1 == len(found) or found[number + 1][0] != stage
            if (number + 1) % given.every and not last:
                continue
            if names != list(figures):
                names = list(figures)
                print(f"\n| stage | step | {' | '.join(names)} |\n|{'---|' * (len(names) + 2)}")
            print(f"| {stage} | {step:,} | {' | '.join(f'{figures[name]:.3f}' for name in names)} |")


if __name__ == "__main__":
    main()
