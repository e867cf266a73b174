"""Prints the table of docs/targets.md: every target at every precision beside the float model.

    python scripts/targets_table.py BUNDLE [EXPORT.json ...]

BUNDLE tells of the variants that passed the agreement gate; the files are what `sam3i-edge export --json`
printed, and tell of those that missed it too.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from sam3i_edge.agreement import Agreement, check
from sam3i_edge.bundle.folder import Bundle
from sam3i_edge.errors import ParityError

PRECISIONS = ("fp32", "fp16", "int8", "int8-bf16", "int8w", "int4")
TITLES = {
    "onnx": "ONNX Runtime",
    "openvino": "OpenVINO",
    "coreml": "Core ML, evaluated",
    "litert": "LiteRT",
    "eager": "torch (`eager`)",
}
HEADER = (
    "target", "precision", "same count", "mask IoU, mean / least", "score, 99 % / most",
    "box px, 99 % / most", "MB", "integers and scales", "gate",
)  # fmt: skip
FIELDS = tuple(Agreement.__dataclass_fields__)


def rows_of(bundle: Bundle, reports: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    """(target, precision) -> agreement, bytes, equal layers; what the bundle holds counts before reports."""
    rows = {
        (row["target"], row["precision"]): row | {"equal": None}
        for report in reports
        for row in report["variants"]
        if row["agreement"]
    }
    for name, variant in bundle.manifest.variants.items():
        target = name.split("-")[0]
        rows[target, variant.precision] = {
            "agreement": variant.agreement,
            "bytes": sum(file.stat().st_size for file in (bundle.root / name).rglob("*") if file.is_file()),
            "equal": variant.agreement.get("equal_layers"),
        }
    return rows


def cells(target: str, precision: str, row: dict[str, Any]) -> list[str]:
    """One row of the table; a variant is compared only when its integers were found to be the spec's."""
    figures = row["agreement"]
    # Early bundles recorded the greatest differences alone.
    a = Agreement(**{name: figures.get(name, float("nan")) for name in FIELDS})
    try:
        check(a, precision)
        verdict = "passes"
    except ParityError as error:
        verdict = f"**misses**: {error.output.partition(': ')[2]}"
    equal = ""
    if precision not in ("fp32", "fp16"):
        equal = f"equal, {row['equal']:.0f} layers" if row["equal"] else "equal"
    if target == "eager" and equal:
        equal = "read from the spec's file"
    return [
        TITLES[target],
        f"`{precision}`",
        f"{100 * a.same_count:.1f} %",
        f"{a.mean_iou:.4f} / {a.min_iou:.3f}",
        f"{a.score_p99:.3f} / {a.score:.3f}".replace("nan", "-"),
        f"{a.box_px_p99:.2f} / {a.box_px:.1f}".replace("nan", "-"),
        "" if target == "eager" else f"{row['bytes'] / 1e6:.1f}",
        equal,
        verdict,
    ]


def main() -> None:
    """Prints the table."""
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    bundle = Bundle.open(sys.argv[1])
    found = rows_of(bundle, [json.loads(Path(name).read_text()) for name in sys.argv[2:]])
    lines = [HEADER, tuple("---" for _ in HEADER)]
    for target in TITLES:
        for precision in (*PRECISIONS, "mixed", "mixed-bf16"):
            if (target, precision) in found:
                lines.append(tuple(cells(target, precision, found[target, precision])))
    print("\n".join(f"| {' | '.join(line)} |" for line in lines))


if __name__ == "__main__":
    main()
