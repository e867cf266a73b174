"""Checks exported packages on a Mac: predictions against `reference/`, and which unit runs what.

Run it in the folder that holds it, with the packages in the folder above or in the one given:

    pip install '.[coreml]'  # in the source tree of sam3i-edge
    python check_coreml.py [FOLDER] [--device apple|neural-engine|gpu|cpu]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from sam3i_edge.errors import Sam3iError
from sam3i_edge.runtimes import open_runtime

HERE = Path(__file__).resolve().parent
RUNS = 10
UNITS = {"apple": "ALL", "neural-engine": "CPU_AND_NE", "gpu": "CPU_AND_GPU", "cpu": "CPU_ONLY"}


def check(package: Path, reference: Path, device: str) -> float:
    """Largest difference to the reference, as a share of the output's largest magnitude."""
    with np.load(reference) as file:
        inputs = {key[3:]: file[key] for key in file.files if key.startswith("in.")}
        wanted = {key[4:]: file[key] for key in file.files if key.startswith("out.")}
    start = time.perf_counter()
    runtime = open_runtime("coreml", package, device)
    load = time.perf_counter() - start
    found = runtime.run(inputs)
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        runtime.run(inputs)
        times.append(time.perf_counter() - start)
    print(f"{package.name}: loaded in {load:.2f} s, {1e3 * float(np.median(times)):.1f} ms")
    worst = 0.0
    for name, want in wanted.items():
        difference = np.abs(found[name].astype(np.float64) - want.astype(np.float64)).max()
        share = float(difference / max(np.abs(want).max(), 1e-6))
        print(f"  {name}: differs by {difference:.3g} at most, {share:.2e} of its largest value")
        worst = max(worst, share)
    return worst


def placement(package: Path, device: str) -> None:
    """Prints how many operations run on which unit."""
    import coremltools as ct
    from coremltools.models.compute_plan import MLComputePlan

    compiled = ct.models.utils.compile_model(str(package))
    plan = MLComputePlan.load_from_path(compiled, compute_units=getattr(ct.ComputeUnit, UNITS[device]))
    units: Counter[str] = Counter()
    elsewhere: Counter[str] = Counter()
    for function in plan.model_structure.program.functions.values():
        for operation in function.block.operations:
            usage: Any = plan.get_compute_device_usage_for_mlprogram_operation(operation)
            if usage is None:
                continue  # a constant
            unit = type(usage.preferred_compute_device).__name__
            units[unit] += 1
            if "NeuralEngine" not in unit:
                elsewhere[operation.operator_name.split(".")[-1]] += 1
    print("  operations by unit:", dict(units))
    print("  not on the Neural Engine:", dict(elsewhere.most_common(8)))


def main() -> int:
    """0 when every package is within the tolerance."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=HERE.parent)
    parser.add_argument("--device", default="apple", choices=UNITS)
    parser.add_argument("--tolerance", type=float, default=0.05, help="share of an output's largest value")
    options = parser.parse_args()
    content = json.loads((HERE / "Sources/SAM3I/Resources/sam3i.json").read_text(encoding="utf-8"))
    failed = []
    for graph, name in content["models"].items():
        package = options.folder / f"{name}.mlpackage"
        try:
            worst = check(package, HERE / "reference" / f"{graph}.npz", options.device)
            placement(package, options.device)
        except Sam3iError as error:
            print(f"{package.name}: {error}", file=sys.stderr)
            failed.append(graph)
            continue
        if not worst <= options.tolerance:
            failed.append(graph)
    print("failed: " + ", ".join(failed) if failed else "all packages agree with their references")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
