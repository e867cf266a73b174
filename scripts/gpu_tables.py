"""The documentation's tables from a result of `scripts/gpu_day.py`; nothing is written by hand.

    python3 scripts/gpu_tables.py result.json            # prints the page
    python3 scripts/gpu_tables.py result.json --write    # docs/results/gpu.md and kernels/measured.json

`kernels/measured.json` gets, for the chip's capability, the tiles that won, and the operators that lose to
torch.compile at the model's own sizes: there the rule "auto" takes the reference.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE, MEASURED = ROOT / "docs" / "results" / "gpu.md", ROOT / "kernels" / "measured.json"
_COMPILED = ("torch.compile", "torch.compile, float weights")


def markdown(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table, or a line that says there is none."""
    cells = [list(map(str, row)) for row in rows]
    if not cells:
        return "Nothing was measured.\n"
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, ["---"] * len(header), *cells)) + "\n"


def rows_of(result: dict[str, Any], prefix: str) -> list[dict[str, Any]]:
    """The rows of the steps whose names begin so."""
    return [row for name, step in result["steps"].items() if name.startswith(prefix) for row in step["rows"]]


def _times(times: dict[str, float] | None) -> str:
    return "-" if times is None else f"{times['median_ms']:.3f} ({times['p90_ms']:.3f})"


def _problem(row: dict[str, Any]) -> str:
    """In a cell: a bar would end it."""
    return str(row.get("problem", "")).replace("|", "/")


def _mib(row: dict[str, Any], key: str) -> str:
    return "-" if row.get(key) is None else f"{row[key]:.1f}"


def page(result: dict[str, Any]) -> str:
    """The whole page."""
    machine = result["machine"]
    copy = machine.get("copy_gbs")
    about = ", ".join(
        f"{key} {value}" for key, value in machine.items() if key != "notes" and value is not None
    )
    dry = "**A dry run on a CPU: its figures mean nothing.**\n\n" if result["dry_run"] else ""
    parts = [
        f"# Kernels, measured\n\n{dry}Written by `scripts/gpu_tables.py`.",
        f"Commit {result['commit']}; {about}.",
        *machine.get("notes", []),
        "Times are medians (p90) in ms after a warm-up, the L2 cache flushed before each run.",
        "## How each step ended\n",
        markdown(
            ("step", "ended", "s", "problem", "clocks: SM, memory, power, °C"),
            (
                (
                    name, step["status"], step.get("seconds", "-"), _problem(step) or "-",
                    "; ".join(step.get("clocks", ["-"])),
                )
                for name, step in result["steps"].items()
            ),
        ),
        "## Tests\n",
        markdown(
            ("file", "passed", "failed", "skipped", "what failed"),
            (
                (
                    row["file"], row.get("passed", "-"), row.get("failed", "-"), row.get("skipped", "-"),
                    ", ".join(filter(None, (*row["failures"], _problem(row)))).replace("|", "/") or "-",
                )
                for row in rows_of(result, "tests")
            ),
        ),
        "## Operators\n\nEach was compared with the definition in float32 before it was timed.\n",
        markdown(
            (
                "operator", "batch", "dtype", "contender", "largest error", "forward ms",
                "forward + backward ms", "extra MiB", "of a copy",
            ),
            (
                (
                    row["operator"], row.get("batch", " x ".join(map(str, row.get("sizes", [])))),
                    row["dtype"], row["contender"], f"{row['error']:.1e}" if "error" in row else "-",
                    _problem(row) or _times(row.get("forward")),
                    _times(row.get("training")),
                    _mib(row, "training_mib" if row.get("training_mib") is not None else "forward_mib"),
                    f"{row['gbs'] / copy:.0%}" if copy and "gbs" in row else "-",
                )
                for row in rows_of(result, "table")
            ),
        ),
        "## The model at its own size\n\nFloat16, batch 1, random weights; eager where no other is named.\n",
        markdown(
            ("part", "contender", "ms", "extra MiB", "scores differ by"),
            (
                (
                    row["part"], row["contender"], row.get("problem") or _times(row.get("forward")),
                    _mib(row, "forward_mib"),
                    "-" if row.get("scores_differ") is None else f"{row['scores_differ']:.1e}",
                )
                for row in rows_of(result, "model")
            ),
        ),
        "## Training\n",
        markdown(
            ("contender", "step ms", "extra MiB", "loss of the first step"),
            (
                (row["contender"], _times(row["training"]), _mib(row, "mib"), f"{row['loss']:.4f}")
                for row in rows_of(result, "train.step")
            ),
        ),
    ]  # fmt: skip
    for row in rows_of(result, "train.curve"):
        steps = len(row["curves"]["triton"])
        parts.append(
            f"The loss of {steps} steps of sam3i-nano with and without kernels differs by {row['worst']:.2%} "
            "at most."
        )
    parts += [
        "## ONNX Runtime\n",
        markdown(
            ("part", "provider", "ms"),
            (
                (
                    row.get("part", "-"),
                    row.get("contender", "-"),
                    row.get("problem") or _times(row["forward"]),
                )
                for row in rows_of(result, "onnxruntime")
            ),
        ),
        "## Tiles\n",
        markdown(
            ("kernel", "table", "fastest"),
            (
                (row["kernel"], row["table"], row["winner"])
                for row in rows_of(result, "tune")
                if "winner" in row
            ),
        ),
    ]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def slower(result: dict[str, Any]) -> list[str]:
    """Operators that take longer than torch.compile, by the geometric mean of all that both were timed at.

    And those that failed or were off: they, too, are not what "auto" may run.
    """
    taken: dict[str, list[float]] = {}
    failed = set()
    rows = rows_of(result, "table")
    for row in rows:
        if row["contender"] != "Triton":
            continue
        if "problem" in row and not row["problem"].startswith("skipped"):
            failed.add(row["operator"])
        same = [
            other
            for other in rows
            if other["contender"] in _COMPILED
            and all(other.get(key) == row.get(key) for key in ("operator", "batch", "sizes", "dtype"))
        ]
        for other in same:
            for work in ("forward", "training"):
                if row.get(work) and other.get(work):
                    ratio = row[work]["median_ms"] / other[work]["median_ms"]
                    taken.setdefault(row["operator"], []).append(math.log(ratio))
    return sorted(failed | {operator for operator, logs in taken.items() if sum(logs) > 0})


def measured(result: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    """What is known of every chip, with this result's chip anew."""
    tiles = {
        row["kernel"]: row["winner"]
        for row in rows_of(result, "tune")
        if "winner" in row and row["winner"] != row["table"]
    }
    return {**known, str(result["machine"]["capability"]): {"tiles": tiles, "slower": slower(result)}}


def main() -> int:
    """Prints the page, or writes it and what the dispatch reads."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("result", type=Path)
    parser.add_argument("--write", action="store_true", help="docs/results/gpu.md and kernels/measured.json")
    given = parser.parse_args()
    try:
        result = json.loads(given.result.read_text(encoding="utf-8"))
        text = page(result)
    except OSError as error:
        parser.error(f"{given.result} cannot be read: {error.strerror}")
    except (ValueError, KeyError, TypeError) as error:
        parser.error(f"{given.result} is no result of gpu_day.py ({type(error).__name__}: {error})")
    if not given.write:
        print(text)
        return 0
    if result["dry_run"]:
        parser.error("figures of a dry run mean nothing: run gpu_day.py on a GPU, without --dry-run")
    PAGE.write_text(text, encoding="utf-8")
    known = measured(result, json.loads(MEASURED.read_text(encoding="utf-8")))
    MEASURED.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
