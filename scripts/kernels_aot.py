"""Compiles every kernel for GPUs that are not here, and checks registers, spills and shared memory.

    python scripts/kernels_aot.py [--capability 87 ...] [--operator adapter_mlp ...] [--case bfloat16]

Each module of kernels/ gives its kernels in `aot_cases(capability)`; see kernels/_triton.py. Prints one row a
kernel and a chip. Exits with 1 when a configuration that is chosen for a chip spills or does not fit on it,
or does not compile. One process a chip: a capability that this Triton does not know takes the process down.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

KERNELS = Path(__file__).resolve().parents[1] / "kernels"

# Shared memory that one block may have, KiB: CUDA C++ Programming Guide, technical specifications.
SHARED_KIB = {80: 163, 86: 99, 87: 163, 89: 99, 90: 227, 100: 227, 103: 227, 120: 99, 121: 99}
NAMES = {
    80: "A100",
    86: "RTX 30",
    87: "Orin",
    89: "RTX 40",
    90: "H100",
    100: "B200",
    120: "RTX 50",
    121: "GB10",
}
DEFAULT = (80, 87, 89, 90, 100, 120)
REGISTERS = 65536  # of one multiprocessor; a block has to fit


def compile_case(case: Any, capability: int) -> dict[str, Any]:
    """Compiles one `AotCase` and reads what it takes from the binary."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    types = {name: case.signature.get(name, "constexpr") for name in case.kernel.arg_names}
    if missing := [n for n, t in types.items() if t == "constexpr" and n not in case.constexprs]:
        raise ValueError(f"{case.name}: no type and no value for {', '.join(missing)}")
    aligned = {}
    for place, kind in enumerate(types.values()):
        leaves = {(place, i): k for i, k in enumerate(kind)} if isinstance(kind, tuple) else {(place,): kind}
        aligned |= {path: [["tt.divisibility", 16]] for path, leaf in leaves.items() if leaf.endswith(":16")}
    source = ASTSource(
        case.kernel,
        signature={name: _without_alignment(kind) for name, kind in types.items()},
        constexprs=case.constexprs,
        attrs=aligned,
    )
    options = {"num_warps": case.num_warps, "num_stages": case.num_stages}
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    registers, spilled = _resources(compiled.asm["cubin"])
    products = re.findall(
        r"\b(wgmma|mma|tcgen05\.mma)\b[\w.:]*?\.(bf16|f16|tf32|s8|f64|kind::\w+)", compiled.asm["ptx"]
    )
    shared = compiled.metadata.shared
    threads = 32 * compiled.metadata.num_warps
    problems = []
    if spilled:
        problems.append(f"{spilled} bytes a thread in local memory")
    if shared > 1024 * SHARED_KIB[capability]:
        problems.append(f"{shared} bytes of shared memory, the chip has {SHARED_KIB[capability]} KiB")
    if registers * threads > REGISTERS:
        problems.append(f"{registers} registers x {threads} threads, the chip has {REGISTERS}")
    return {
        "capability": capability,
        "case": case.name,
        "chosen": case.chosen,
        "warps": case.num_warps,
        "stages": case.num_stages,
        "registers": registers,
        "spilled": spilled,
        "shared": shared,
        "products": sorted({" ".join(found) for found in products}),
        "problems": problems,
    }


def _without_alignment(kind: Any) -> Any:
    """The type as Triton knows it; a tuple of types is one argument."""
    return tuple(map(_without_alignment, kind)) if isinstance(kind, tuple) else kind.removesuffix(":16")


def _resources(cubin: bytes) -> tuple[int, int]:
    """Registers, and bytes of local memory (stack and spills), of a thread."""
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [str(tool), "--dump-resource-usage", file.name]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.findall(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", text)
    if len(found) != 1:
        raise ValueError(f"cuobjdump listed {len(found)} functions, want 1:\n{text}")
    registers, stack, local = map(int, found[0])
    return registers, stack + local


def compile_all(capability: int, operators: list[str], name: str) -> list[dict[str, Any]]:
    """The cases of these operators whose names hold `name`, on one chip."""
    rows = []
    for operator in operators:
        module = importlib.import_module(f"sam3i_edge.kernels.{operator}")
        cases = [case for case in module.aot_cases(capability) if name in case.name]
        rows += [{"operator": operator, **compile_case(case, capability)} for case in cases]
    return rows


def compile_apart(capability: int, operators: list[str], name: str) -> list[dict[str, Any]]:
    """As `compile_all`, in a process of its own."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    root = str(KERNELS.parent)
    environment.setdefault("TRITON_DEFAULT_FP_FUSION", "1")  # as in Triton up to 3.9, which warns when unset
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    command = [sys.executable, __file__, "--child", str(capability), f"--case={name}"]
    command += [f"--operator={operator}" for operator in operators]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        sys.exit(f"sm_{capability}: compiling ended with exit code {done.returncode}\n{done.stderr[-4000:]}")
    rows: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as a Markdown table."""
    lines = [
        "| chip | kernel | warps, stages | registers | spilled, B | shared, KiB | of | products |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        capability = row["capability"]
        chip = f"sm_{capability} {NAMES.get(capability, '')}".strip()
        name = row["case"] if row["chosen"] else f"({row['case']})"
        lines.append(
            f"| {chip} | {name} | {row['warps']}, {row['stages']} | {row['registers']} | {row['spilled']} "
            f"| {row['shared'] / 1024:.1f} | {SHARED_KIB[capability]} | {', '.join(row['products']) or '-'} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Compiles, prints and judges."""
    operators = sorted(path.stem for path in KERNELS.glob("*.py") if not path.stem.startswith("_"))
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--capability", type=int, action="append", choices=sorted(SHARED_KIB))
    parser.add_argument("--operator", action="append", choices=operators)
    parser.add_argument("--case", default="", help="only cases whose names hold this")
    parser.add_argument("--json", action="store_true", help="rows as JSON")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    chosen = given.operator or operators
    if given.child:
        print(json.dumps(compile_all(given.child, chosen, given.case)))
        return
    rows = [row for chip in given.capability or DEFAULT for row in compile_apart(chip, chosen, given.case)]
    print(json.dumps(rows, indent=1) if given.json else table(rows))
    bad = [row for row in rows if row["chosen"] and row["problems"]]
    for row in bad:
        print(f"sm_{row['capability']}: {row['case']}: {'; '.join(row['problems'])}", file=sys.stderr)
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
