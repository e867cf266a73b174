"""The steps of `scripts/gpu_day.py`, one a process. Rows are lines of JSON: a cut leaves what was done.

python scripts/gpu_steps.py STEP ROWS SECONDS [--dry-run]
"""

from __future__ import annotations

from gpu_run import DTYPES, FAILURES, ROOT, Run, one_line

# isort: split
# What follows is found where gpu_run looks, too.
import re
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks import kernel_cases
from gpu_model import model, train
from gpu_tests import tests
from sam3i_edge.kernels import _dispatch, adapter_cross_attention, adapter_mlp
from sam3i_edge.kernels._triton import tl, triton


def machine(run: Run) -> None:
    """What this is, in one row. Raises SystemExit without a GPU."""
    import importlib.metadata

    notes = []
    found: dict[str, Any] = {"torch": torch.__version__, "triton": getattr(triton, "__version__", None)}
    for name in ("numpy", "safetensors", "onnxruntime-gpu"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    if triton is None:
        sys.exit("triton is not installed (pip install triton): there are no kernels to measure")
    if not run.dry_run:
        if not torch.cuda.is_available():
            sys.exit(f"torch {torch.__version__} finds no CUDA device: --dry-run walks the same way on a CPU")
        device = torch.device("cuda")
        chip = _dispatch.capability(device)
        free, total = torch.cuda.mem_get_info()
        numbers = torch.empty(2**28, dtype=torch.uint8, device=device)
        target = torch.empty_like(numbers)
        copied = run.times(lambda: target.copy_(numbers), 300)["median_ms"]
        found |= {
            "gpu": torch.cuda.get_device_name(),
            "capability": chip,
            "cuda": torch.version.cuda,
            "free_gib": round(free / 2**30, 1),
            "total_gib": round(total / 2**30, 1),
            "copy_gbs": round(2 * numbers.numel() / copied / 1e6, 1),
        }
        tables = adapter_mlp.TILES.keys() | adapter_cross_attention.TILES.keys()
        if chip < _dispatch.LEAST_CAPABILITY:
            notes.append(f"compute capability {chip / 10}: the kernels want 8.0, references are measured")
        elif chip not in tables:
            nearest = max(known for known in tables if known <= chip)
            notes.append(f"compute capability {chip / 10} has no tiles of its own: those of {nearest / 10}")
    for path in sorted((ROOT / "kernels").glob("*.py")):
        wanted = set(re.findall(r"\btl\.(\w+)", path.read_text(encoding="utf-8")))
        if lacking := sorted(name for name in wanted if not hasattr(tl, name)):
            notes.append(f"triton {triton.__version__} lacks {', '.join(lacking)}, which {path.stem} needs")
    run.row(**found, notes=notes)


def table(run: Run, operator: str) -> None:
    """An operator at the official sizes beside what it could be replaced by, equal first."""
    if operator == "linear":
        _linear(run)
        return
    wrong = []
    for batch in (1,) if run.dry_run else (1, 8):
        for dtype in DTYPES[:1] if run.dry_run else DTYPES:
            torch.manual_seed(0)
            torch._dynamo.reset()
            case = kernel_cases.CASES[operator](batch, dtype, run.device, run.sizes)
            for name, function in case.contenders().items():
                row = {"operator": operator, "batch": batch, "dtype": str(dtype)[6:], "contender": name}
                if not run.has_time(**row):
                    continue
                try:
                    row |= _contender(run, function, case, dtype)
                except FAILURES as error:
                    row["problem"] = one_line(error)
                run.row(**row)
                if name == "Triton" and "problem" in row:
                    wrong.append(f"batch {batch}, {dtype}: {row['problem']}")
    if wrong:
        sys.exit(f"{operator}: {wrong[0]}")


def _contender(run: Run, function: Any, case: kernel_cases.Case, dtype: torch.dtype) -> dict[str, Any]:
    error = kernel_cases.worst_error(function, case)
    if not error < kernel_cases.TOLERANCE[dtype]:
        return {"error": error, "problem": f"off by {error:.1e}"}
    grads = [torch.randn_like(output) for output in kernel_cases.outputs_of(function(*case.operands))]
    forward = torch.no_grad()(lambda: function(*case.operands))

    def train() -> object:
        outputs = kernel_cases.outputs_of(function(*case.operands))
        return torch.autograd.grad(outputs, case.operands, grads, allow_unused=True)

    once = run.times(forward)
    return {
        "error": error,
        "forward": once,
        "training": run.times(train),
        "forward_mib": run.extra_mib(forward),
        "training_mib": run.extra_mib(train),
        "gbs": round(case.floor / once["median_ms"] / 1e6, 1),
    }


@torch.no_grad()
def _linear(run: Run) -> None:
    for sizes in run.sizes.linear:
        for dtype in DTYPES:
            torch.manual_seed(0)
            torch._dynamo.reset()
            for operator, (kernel, layer) in kernel_cases.linear_contenders(
                *sizes, dtype, run.device
            ).items():
                expected = layer().float()
                contenders = {"Triton": kernel, "eager, float weights": layer}
                contenders["torch.compile, float weights"] = run.sizes.compiled(layer)
                for name, function in contenders.items():
                    row = {"operator": operator, "sizes": sizes, "dtype": str(dtype)[6:], "contender": name}
                    if not run.has_time(**row):
                        continue
                    try:
                        row["error"] = ((function().float() - expected).norm() / expected.norm()).item()
                        if row["error"] < kernel_cases.QUANTIZED_TOLERANCE:
                            row |= {"forward": run.times(function), "forward_mib": run.extra_mib(function)}
                        else:
                            row["problem"] = f"off by {row['error']:.1e}"
                    except FAILURES as error:
                        row["problem"] = one_line(error)
                    run.row(**row)


def tune(run: Run, operator: str) -> None:
    """Other tiles than the table's, equal first: what each takes, and the winners."""
    from benchmarks.tile_search import search

    if operator == "linear":
        work = []
        for sizes in run.sizes.linear:
            contenders = kernel_cases.linear_contenders(*sizes, torch.float16, run.device)
            work += [lambda kernel=kernel: (kernel(),) for kernel, _ in contenders.values()]
    else:
        case = kernel_cases.CASES[operator](1, torch.float16, run.device, run.sizes)
        work = [partial(_trained, case)]
    for one in work:
        for row in search(run, one, FAILURES):
            run.row(operator=operator, **row)


def _trained(case: kernel_cases.Case) -> tuple[torch.Tensor, ...]:
    """Outputs of the kernel, and gradients of their sum."""
    outputs = kernel_cases.outputs_of(case.kernel(*case.operands))
    grads = [torch.ones_like(output) for output in outputs]
    return (*(o.detach() for o in outputs), *torch.autograd.grad(outputs, case.operands, grads))


def onnxruntime(run: Run) -> None:
    """The bundled detector on ONNX Runtime's CUDA provider, beside its CPU."""
    try:
        import numpy as np
        import onnxruntime as ort
    except ImportError as error:
        run.row(problem=f"{error}: pip install onnxruntime-gpu")
        return
    available = ort.get_available_providers()
    if not run.dry_run and "CUDAExecutionProvider" not in available:
        run.row(problem=f"this ONNX Runtime has {', '.join(available)}: pip install onnxruntime-gpu")
        return
    folder = ROOT / "sam3i_edge" / "assets" / "sam3i-nano" / "onnx-fp32"
    for provider in ("CPUExecutionProvider", *(["CUDAExecutionProvider"] if not run.dry_run else [])):
        session = ort.InferenceSession(str(folder / "detector.onnx"), providers=[provider])
        kinds = {"tensor(float)": np.float32, "tensor(bool)": np.bool_, "tensor(int64)": np.int64}
        feed = {given.name: np.zeros(given.shape, kinds[given.type]) for given in session.get_inputs()}
        for value in feed.values():
            if value.dtype == np.bool_:
                value[:] = True
        session.run(None, feed)
        taken = []
        for _ in range(2 if run.dry_run else 50):
            start = time.perf_counter()
            session.run(None, feed)
            taken.append(1e3 * (time.perf_counter() - start))
        taken.sort()
        times = {"median_ms": taken[len(taken) // 2], "p90_ms": taken[int(0.9 * len(taken))]}
        run.row(part="detector of sam3i-nano", contender=session.get_providers()[0], forward=times)


STEPS = {one.__name__: one for one in (machine, tests, table, model, train, tune, onnxruntime)}

if __name__ == "__main__":
    step, rows, seconds, *rest = sys.argv[1:]
    function, _, argument = step.partition(".")
    STEPS[function](
        Run(Path(rows), float(seconds), dry_run="--dry-run" in rest), *([argument] if argument else [])
    )
