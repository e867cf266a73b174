"""Prints the table of docs/results/speed.md from what a benchmark found.

sam3i-edge benchmark -m BUNDLE --level simple --threads 2 --out benchmark
python scripts/speed_table.py benchmark/results.json
"""

from __future__ import annotations

import argparse
from pathlib import Path

from sam3i_edge.measure.schema import END_TO_END, INSTRUCTION, Row, read_results

STEPS = {
    "image": "encode_image",
    "text": "encode_text",
    "detector": "detect",
    "instruction": INSTRUCTION,
    "end to end": END_TO_END,
}
HEADER = (
    "runtime", "precision", "IoU mean", "gIoU", *STEPS, "x float", "cold ms", "peak MiB", "MB",
)  # fmt: skip


def cells(row: Row) -> tuple[str, ...]:
    """Cells under `HEADER`; empty where there is no figure."""
    times = [row.latency.get(step) for step in STEPS.values()]
    peak = row.peak_memory_bytes
    return (
        row.runtime,
        ("slowed, " if row.slowed else "") + f"`{row.precision}`",
        f"{row.agreement['mean_iou']:.4f}" if row.agreement else "",
        f"{row.accuracy.giou:.3f}" if row.accuracy and row.accuracy.giou is not None else "",
        *(f"{time.p50:.1f} / {time.p90:.1f}" if time else "" for time in times),
        f"{row.speedup.value:.2f}" if row.speedup else "",
        ", ".join(f"{ms:,.0f}" for ms in row.cold_start_ms),
        "" if peak is None else f"{peak / 2**20:.0f}",
        f"{row.size_bytes / 1e6:.1f}",
    )


def main() -> None:
    """Reads the results and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("results", type=Path)
    rows = read_results(parser.parse_args().results).rows
    for line in (HEADER, ("---",) * len(HEADER), *map(cells, rows)):
        print(f"| {' | '.join(line)} |")


if __name__ == "__main__":
    main()
