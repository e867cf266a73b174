"""The steps of `scripts/gpu_day.py`, one a process. Rows are lines of JSON: a cut leaves what was done.

python scripts/gpu_steps.py STEP ROWS SECONDS [--dry-run]
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from torch import nn  # noqa: E402

from benchmarks import kernel_cases  # noqa: E402
from sam3i_edge.kernels import _dispatch, adapter_cross_attention, adapter_mlp, box_attention  # noqa: E402
from sam3i_edge.kernels._triton import tl, triton  # noqa: E402
from sam3i_edge.model import adapters, decoder, fusion_encoder  # noqa: E402
from sam3i_edge.model.config import SAM3I_NANO, SAM3I_OFFICIAL, ModelConfig  # noqa: E402
from sam3i_edge.model.graph_specs import graph_specs  # noqa: E402
from sam3i_edge.model.sam3i import SAM3I, adapter_of  # noqa: E402

DTYPES = (torch.float16, torch.bfloat16)
# What one contender may raise while the others go on.
FAILURES: tuple[type[Exception], ...] = (
    *(RuntimeError, ValueError, TypeError, AttributeError, ImportError, AssertionError, LookupError),
)
if triton is not None:
    FAILURES += (triton.errors.TritonError,)
TINY = replace(
    SAM3I_NANO,
    image_size=64,
    conv_widths=(8, 8, 16, 16),
    text_width=32,
    text_layers=1,
    text_heads=2,
    text_mlp_dim=32,
    d_model=32,
    n_heads=2,
    ffn_dim=64,
    encoder_layers=1,
    decoder_layers=1,
    num_queries=8,
    adapter_dim=16,
    adapter_heads=2,
)


class Run:
    """One step: where its rows go, what it runs on, and when it has to end."""

    def __init__(self, rows: Path, seconds: float, *, dry_run: bool) -> None:
        self.dry_run, self.end = dry_run, time.monotonic() + seconds
        self.device = "cpu" if dry_run else "cuda"
        self.sizes = kernel_cases.TINY if dry_run else kernel_cases.OFFICIAL
        self.config: ModelConfig = TINY if dry_run else SAM3I_OFFICIAL
        self.rows = rows

    def row(self, **values: Any) -> None:
        """Keeps a row."""
        with self.rows.open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")

    def until(self, parts: int) -> float:
        """When the first of so many equal parts of the time that is left ends."""
        return time.monotonic() + (self.end - time.monotonic()) / parts

    def has_time(self, until: float | None = None, **row: Any) -> bool:
        """Whether there is time for one more; a row says so where there is not."""
        if time.monotonic() < (self.end if until is None else until):
            return True
        self.row(**row, problem="skipped, the step's time is spent")
        return False

    def times(self, work: Callable[[], object], milliseconds: int = 150) -> dict[str, float]:
        """Median and p90, ms, after a warm-up; the L2 cache is flushed before each run."""
        if self.dry_run:
            start = time.perf_counter()
            work()
            median = p90 = 1e3 * (time.perf_counter() - start)
        else:
            median, p90 = triton.testing.do_bench(
                work, warmup=30, rep=milliseconds, quantiles=[0.5, 0.9], return_mode="mean"
            )
        return {"median_ms": round(median, 4), "p90_ms": round(p90, 4)}

    def extra_mib(self, work: Callable[[], object]) -> float | None:
        """Peak of GPU memory beside what was there before."""
        if self.dry_run:
            return None
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        work()
        torch.cuda.synchronize()
        return round((torch.cuda.max_memory_allocated() - before) / 2**20, 1)


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


def tests(run: Run) -> None:
    """The kernel tests, forward and backward in all dtypes, against the definitions in float64.

    Nearly all their time is Triton's compiler, so they are dealt out to as many processes as there are cores.
    """
    folder, place = ROOT / "tests" / "kernels", run.rows.parent
    # Settings of its own: the project's name plugins and a version that a bare machine lacks.
    settings = place / "pytest.ini"
    settings.write_text("[pytest]\naddopts = --import-mode=importlib\nmarkers = slow\nxfail_strict = true\n")
    command = [sys.executable, "-m", "pytest", "-q", "-c", str(settings), "--rootdir", str(ROOT)]
    command += ["--confcutdir", str(folder), "-p", "no:cacheprovider"]
    names = ("box_attention", "adapter_cross_attention", "adapter_mlp", "int8_linear", "int4_linear")
    names = ("adapter_mlp",) if run.dry_run else (*names, "compile", "dispatch")
    files = [str(folder / f"test_{name}.py") for name in names]
    some = ["-k", "closed_gates"] if run.dry_run else []
    listed = subprocess.run(
        [*command, "--collect-only", *files, *some], capture_output=True, text=True, check=False
    )
    ids = [line for line in listed.stdout.splitlines() if "::" in line]
    if listed.returncode or not ids:
        sys.exit(f"pytest found no tests: {(listed.stdout + listed.stderr).strip()[-300:]}")
    cores = min(os.cpu_count() or 1, len(ids))
    reports = [place / f"{number}.xml" for number in range(cores)]
    started = [
        subprocess.Popen([*command, f"--junitxml={report}", *ids[number::cores]])
        for number, report in enumerate(reports)
    ]
    # What runs too long is interrupted, and pytest reports what it ran; or killed, before the day kills all.
    for last, ends in ((run.end, signal.SIGINT), (run.end + 8, signal.SIGKILL)):
        for process in started:
            try:
                process.wait(max(0.0, last - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.send_signal(ends)
    rows: dict[str, dict[str, Any]] = {}
    for name in names:
        rows[name] = {"file": name, "passed": 0, "skipped": 0, "failed": 0, "failures": {}}
    unknown = Counter(Path(one.split("::")[0]).stem.removeprefix("test_") for one in ids)
    for process, report in zip(started, reports, strict=True):
        process.wait()
        for case in ET.parse(report).getroot().iter("testcase") if report.exists() else ():
            name = case.get("classname", "").rpartition(".test_")[2]
            if name not in rows:  # of a process that was stopped while it read the tests
                continue
            bad = [one for one in case if one.tag in ("failure", "error")]
            skipped = any(one.tag == "skipped" for one in case)
            rows[name]["failed" if bad else "skipped" if skipped else "passed"] += 1
            unknown[name] -= 1
            if bad:
                rows[name]["failures"][case.get("name")] = (bad[0].get("message") or "").strip()[:300]
    for name, row in rows.items():
        run.row(**row, **({"problem": f"{unknown[name]} did not run"} if unknown[name] else {}))
    failed, left = sum(row["failed"] for row in rows.values()), sum(unknown.values())
    if failed or left:
        sys.exit(f"{failed} kernel tests failed, {left} did not run")


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
                    row["problem"] = _line(error)
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
                        row["problem"] = _line(error)
                    run.row(**row)


@contextmanager
def implementation(name: str) -> Iterator[None]:
    """The model's operators run as kernels, "triton", or as their definitions, "reference"; or raise."""
    sites = (
        (adapters, "adapter_mlp", adapter_mlp.adapter_mlp),
        (fusion_encoder, "adapter_cross_attention", adapter_cross_attention.adapter_cross_attention),
        (decoder, "box_attention", box_attention.box_attention),
    )
    for module, attribute, operator in sites:
        setattr(module, attribute, partial(operator, implementation=name))
    try:
        yield
    finally:
        for module, attribute, operator in sites:
            setattr(module, attribute, operator)


@torch.inference_mode()
def model(run: Run, what: str = "eager") -> None:
    """Parts of the model in float16 at its own size, random weights: kernels on and off, integers.

    With "compiled" the detector alone, compiled and replayed as a CUDA graph: what `Segmenter(compile=True)`
    runs.
    """
    torch.manual_seed(0)
    with torch.device(run.device):
        whole = SAM3I(run.config).eval().requires_grad_(False)
    dtype = torch.float16 if run.device == "cuda" else torch.bfloat16  # of autocast on a CPU
    for part in whole.modules():
        if isinstance(part, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            part.to(dtype)
    specs = {spec.name: spec for spec in graph_specs(whole, 8)}  # 33 tokens of the prompt and 8 boxes
    inputs = {name: _inputs(run, spec.inputs.values()) for name, spec in specs.items()}

    def calls() -> dict[str, Callable[[], Any]]:
        names = ("image_encoder", "text_encoder.simple", "detector")
        parts = {name: partial(specs[name].module, *inputs[name]) for name in names}
        instruction = (parts["text_encoder.simple"], parts["detector"])
        together = {"one more instruction": instruction, "everything": tuple(parts.values())}
        return parts | {name: lambda work=work: [part() for part in work] for name, work in together.items()}

    def measure(contender: str, expected: Any) -> Any:
        with torch.autocast(run.device, dtype):
            found = calls()["detector"]()
            error = None if expected is None else _difference(found, expected)
            for name, work in calls().items():
                row = {"part": name, "contender": contender}
                if run.has_time(**row):
                    times = run.times(work, 600)
                    run.row(**row, forward=times, forward_mib=run.extra_mib(work), scores_differ=error)
        return found

    if what == "compiled":
        work = partial(specs["detector"].module, *inputs["detector"])
        with implementation("reference"), torch.autocast(run.device, dtype):
            expected = work()
        for name, said in (("triton", "kernels"), ("reference", "references")):
            row: dict[str, Any] = {"part": "detector", "contender": f"{said}, compiled, CUDA graph"}
            if not run.has_time(**row):
                continue
            torch._dynamo.reset()
            options: Any = {"backend": "eager"} if run.dry_run else {"mode": "reduce-overhead"}
            compiled = torch.compile(specs["detector"].module, fullgraph=True, dynamic=False, **options)
            work = partial(compiled, *inputs["detector"])
            with implementation(name), torch.autocast(run.device, dtype):
                row["scores_differ"] = _difference(work(), expected)
                run.row(**row, forward=run.times(work, 600), forward_mib=run.extra_mib(work))
        return
    with implementation("reference"):
        expected = measure("references", None)
    with implementation("triton"):
        measure("kernels", expected)
        for bits in (8, 4):
            _quantize(whole, bits)
            measure(f"kernels, int{bits} linear layers", expected)


def _inputs(run: Run, examples: Any) -> list[torch.Tensor]:
    made = []
    for example in examples:
        value = torch.randn_like(example) if example.is_floating_point() else example
        made.append(value.to(run.device))
    return made


def _difference(found: Any, expected: Any) -> float:
    """Largest difference of scores, best first: queries may change places."""
    return (found[0].float() - expected[0].float()).abs().max().item()


def _quantize(whole: SAM3I, bits: int) -> None:
    """Gives the linear layers of the recipe integers: at 8 bits of the float model, at 4 of that one."""
    from sam3i_edge.quantize.modules import QuantizedLayer
    from sam3i_edge.quantize.recipes import RECIPES

    kind = nn.Linear if bits == 8 else QuantizedLayer
    found = RECIPES["int8"].modules(whole) if bits == 8 else dict(whole.named_modules())
    for name, layer in found.items():
        if not isinstance(layer, kind) or (bits == 4 and layer.weight.shape[1] % 32):
            continue
        weight = layer.weight.float() if bits == 8 else layer.dequantized_weight()
        grouped = weight.unflatten(1, (-1, 32)) if bits == 4 else weight
        scale = (grouped.abs().amax(-1) / (2 ** (bits - 1) - 1)).clamp(min=2.0**-14)
        integers = torch.round(grouped / scale[..., None]).to(torch.int8).flatten(1)
        bias = None if layer.bias is None else layer.bias.float()
        parent, _, leaf = name.rpartition(".")
        new = QuantizedLayer("linear", integers, scale, bias, 0.05 if bits == 8 else None)
        setattr(whole.get_submodule(parent), leaf, new)


def _targets(run: Run, config: ModelConfig) -> Any:
    """A batch by its sizes: random images and words, one object for each instruction."""
    pairs, masks = 2, config.mask_size
    share = torch.zeros(pairs, masks, masks, dtype=torch.uint8)
    share[:, masks // 4 : masks // 2, masks // 4 : masks // 2] = 255
    ids = torch.randint(3, config.vocab_size, (pairs, 32))
    values = {
        "pixel_values": torch.rand(1, 3, config.image_size, config.image_size) * 2 - 1,
        "input_ids": ids,
        "level": torch.tensor([1, 2]),
        "image_index": torch.zeros(pairs, dtype=torch.int64),
        "mask_index": torch.arange(pairs),
        "object_image": torch.zeros(pairs, dtype=torch.int64),
        "object_masks": share,
        "target_pair": torch.arange(pairs),
        "target_object": torch.arange(pairs),
        "target_boxes": torch.tensor([[0.375, 0.375, 0.25, 0.25]]).expand(pairs, 4).clone(),
    }
    batch = SimpleNamespace(**{name: value.to(run.device) for name, value in values.items()})
    batch.union_masks = lambda pairs: batch.object_masks[pairs].float() / 255
    return batch


def _trainer(run: Run, whole: SAM3I, config: ModelConfig) -> Callable[[], torch.Tensor]:
    """A step of stage 3 on one batch: both paths' adapters learn, the losses are SAM3's."""
    from sam3i_edge.train.losses import SAM3_LOSSES, segmentation_loss

    batch = _targets(run, config)
    whole.eval()  # as the frozen base is in training: its batch statistics stay
    for name, parameter in whole.named_parameters():
        parameter.requires_grad_(adapter_of(name) is not None)
    learning = [parameter for parameter in whole.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=1e-4)

    def step() -> torch.Tensor:
        with torch.autocast(run.device, torch.bfloat16):
            prediction = whole(
                batch.pixel_values, batch.input_ids, batch.level, batch.image_index, batch.mask_index
            )
        loss, _ = segmentation_loss(prediction, batch, SAM3_LOSSES)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def train(run: Run, what: str) -> None:
    """A training step of stage 3 at the official size, or the loss of 30 steps of the bundled model."""
    if what == "step":
        for name in ("reference", "triton"):
            torch.manual_seed(0)
            with torch.device(run.device):
                whole = SAM3I(run.config)
            with implementation(name):
                step = _trainer(run, whole, run.config)
                loss = step().item()
                run.row(contender=name, loss=loss, training=run.times(step, 1500), mib=run.extra_mib(step))
            del whole, step
        return
    from sam3i_edge.model.weights import load_weights, read_config

    folder = ROOT / "sam3i_edge" / "assets" / "sam3i-nano" / "weights"
    config = replace(read_config(folder), image_size=64) if run.dry_run else read_config(folder)
    curves = {}
    for name in ("reference", "triton"):
        torch.manual_seed(0)
        whole = SAM3I(config)
        load_weights(whole, folder)
        whole.to(run.device)
        with implementation(name):
            step = _trainer(run, whole, config)
            curves[name] = [step().item() for _ in range(2 if run.dry_run else 30)]
    pairs = list(zip(*curves.values(), strict=True))
    worst = max(abs(a - b) / abs(a) for a, b in pairs)
    run.row(curves=curves, worst=worst)
    if not worst < 0.05:
        sys.exit(f"the loss with kernels is off by {worst:.1%} of the loss without")


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


def _line(error: Exception) -> str:
    """An error in one line."""
    words = " ".join(str(error).split()) or "no message"
    return f"{type(error).__name__}: {words}"[:300]


if __name__ == "__main__":
    step, rows, seconds, *rest = sys.argv[1:]
    function, _, argument = step.partition(".")
    globals()[function](
        Run(Path(rows), float(seconds), dry_run="--dry-run" in rest), *([argument] if argument else [])
    )
