"""`pytest benchmarks/test_kernels.py`: the fused kernels on a GPU, beside what they replace, in the same run.

Every contender is checked against the definition before it is timed. Prints a Markdown table; with
`--save-results` also writes it to benchmarks/results/kernels-<gpu>.md, with what it was measured on.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from sam3i_edge.kernels import adapter_cross_attention as cross_module
from sam3i_edge.kernels import adapter_mlp as mlp_module
from sam3i_edge.kernels import box_attention as box_module
from sam3i_edge.kernels._triton import INTERPRETED, triton
from sam3i_edge.kernels.adapter_cross_attention import (
    adapter_cross_attention,
    adapter_cross_attention_reference,
)
from sam3i_edge.kernels.adapter_mlp import adapter_mlp, adapter_mlp_reference
from sam3i_edge.kernels.box_attention import box_attention, box_attention_reference
from sam3i_edge.kernels.int4_linear import GROUP, int4_linear, pack_int4
from sam3i_edge.kernels.int8_linear import int8_linear
from sam3i_edge.model.config import SAM3I_OFFICIAL
from sam3i_edge.model.detector import Detector

REASON = "needs an NVIDIA GPU, and TRITON_INTERPRET unset"
pytestmark = pytest.mark.skipif(not torch.cuda.is_available() or INTERPRETED or triton is None, reason=REASON)

TOKENS, CHANNELS, HEADS, PROMPT, WIDTH = 5184, 256, 8, 33, 64
QUERIES = 200
# Rows, inputs and outputs of linear layers: a ViT MLP, a fusion layer, the decoder's queries, an instruction.
LINEAR_SIZES = ((5184, 1024, 4736), (5184, 256, 2048), (201, 256, 2048), (32, 1024, 4096))
TOLERANCE = {torch.float16: 4e-3, torch.bfloat16: 2e-2}  # relative, in the norm
QUANTIZED_TOLERANCE = 2e-2  # the float layer does not round its input to 8 bits
HEADER = (
    "operator", "batch", "dtype", "contender", "forward ms (p90)", "forward + backward ms (p90)",
    "extra memory MiB", "GB/s", "of a copy",
)  # fmt: skip

Outputs = torch.Tensor | tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class Case:
    """One operator on one set of operands.

    Attributes:
        operands: what gets a gradient.
        kernel: the fused operator, of these operands.
        reference: its definition.
        floor: bytes that a forward has to move.
        rivals: other implementations by name, beside the eager reference and torch.compile of it.
    """

    operands: list[torch.Tensor]
    kernel: Callable[..., Outputs]
    reference: Callable[..., Outputs]
    floor: int
    rivals: dict[str, Callable[..., Outputs]] = field(default_factory=dict)


def _normal(*shape: int, scale: float = 1.0, shift: float = 0.0) -> torch.Tensor:
    return torch.randn(*shape) * scale + shift


def _adapter(channels: int, width: int, *batch: int) -> list[torch.Tensor]:
    return [
        _normal(*batch, width, channels, scale=channels**-0.5),
        _normal(*batch, width, scale=0.1),
        _normal(*batch, width, scale=0.1, shift=1),
        _normal(*batch, width, scale=0.1),
        _normal(*batch, channels, width, scale=width**-0.5),
        _normal(*batch, channels, scale=0.1),
    ]


def adapter_mlp_case(batch: int, dtype: torch.dtype, device: str, tokens: int = TOKENS) -> Case:
    """The adapters of one fusion layer, level complex."""
    operands = [
        _normal(batch, tokens, CHANNELS),
        *_adapter(CHANNELS, WIDTH, batch),
        *_adapter(CHANNELS, WIDTH),
    ]
    gates = torch.ones(batch, 2, device=device)

    def call(function, *tensors, **options):
        return function(tensors[0], tensors[1:7], tensors[7:], gates.to(tensors[0].dtype), **options)

    return Case(
        [tensor.to(device, dtype).requires_grad_() for tensor in operands],
        lambda *tensors: call(adapter_mlp, *tensors, implementation="triton"),
        lambda *tensors: call(adapter_mlp_reference, *tensors),
        2 * batch * tokens * CHANNELS * dtype.itemsize,
    )


def adapter_cross_attention_case(batch: int, dtype: torch.dtype, device: str, tokens: int = TOKENS) -> Case:
    """The middle of one fusion layer, a quarter of the prompt masked."""
    operands = [_normal(batch, tokens, CHANNELS), _normal(batch, PROMPT, CHANNELS)]
    operands += [_normal(CHANNELS, scale=0.1, shift=1), _normal(CHANNELS, scale=0.1)]
    for _ in range(4):
        operands += [_normal(CHANNELS, CHANNELS, scale=1.5 * CHANNELS**-0.5), _normal(CHANNELS, scale=0.1)]
    operands += [*_adapter(CHANNELS, WIDTH, batch), *_adapter(CHANNELS, WIDTH)]
    gates = torch.ones(batch, 2, device=device)
    bias = torch.zeros(batch, 1, 1, PROMPT, device=device)
    bias[..., 3 * PROMPT // 4 :] = -1e4

    def call(function, *tensors, **options):
        pairs = [tensors[i : i + 2] for i in range(2, 12, 2)]
        like = tensors[0].dtype
        adapters = (tensors[12:18], tensors[18:], gates.to(like))
        return function(tensors[0], tensors[1], bias.to(like), *pairs, HEADS, adapters, **options)

    return Case(
        [tensor.to(device, dtype).requires_grad_() for tensor in operands],
        lambda *tensors: call(adapter_cross_attention, *tensors, implementation="triton"),
        lambda *tensors: call(adapter_cross_attention_reference, *tensors),
        3 * batch * tokens * CHANNELS * dtype.itemsize,
    )


def box_attention_case(batch: int, dtype: torch.dtype, device: str, tokens: int = TOKENS) -> Case:
    """The image attention of one decoder layer in the layouts of the model; eager is SDPA, dense bias."""
    side, width = round(tokens**0.5), CHANNELS // HEADS
    projected = [_normal(batch, count, HEADS, width) for count in (1 + QUERIES, side * side, side * side)]
    factors = [_normal(batch, QUERIES, side, HEADS) for _ in range(2)]
    numbers = sum(tensor.numel() for tensor in (*projected, *factors, projected[0]))
    return Case(
        [
            *(tensor.to(device, dtype).transpose(1, 2).requires_grad_() for tensor in projected),
            *(tensor.to(device, dtype).permute(0, 3, 1, 2).requires_grad_() for tensor in factors),
        ],
        lambda *tensors: box_attention(*tensors, implementation="triton"),
        box_attention_reference,
        numbers * dtype.itemsize,
    )


# One row an operator.
CASES = {
    "adapter_mlp": adapter_mlp_case,
    "adapter_cross_attention": adapter_cross_attention_case,
    "box_attention": box_attention_case,
}


def _tuple(outputs: Outputs) -> tuple[torch.Tensor, ...]:
    return outputs if isinstance(outputs, tuple) else (outputs,)


def _check(name: str, function: Callable[..., Outputs], case: Case) -> None:
    """Outputs and gradients against the definition in float32."""
    exact = [operand.detach().float().requires_grad_() for operand in case.operands]
    expected = _tuple(case.reference(*exact))
    outputs = _tuple(function(*case.operands))
    wanted = torch.autograd.grad(expected, exact, [torch.ones_like(t) for t in expected], allow_unused=True)
    found = torch.autograd.grad(
        outputs, case.operands, [torch.ones_like(t) for t in outputs], allow_unused=True
    )
    pairs = [*zip(outputs, expected, strict=True), *zip(found, wanted, strict=True)]
    norms = [value.norm().item() for _, value in pairs if value is not None]
    for place, (actual, value) in enumerate(pairs):
        if value is not None:
            error = (actual.float() - value).norm().item() / max(value.norm().item(), 1e-2 * max(norms))
            assert error < TOLERANCE[actual.dtype], (
                f"{name}: output or gradient {place} is off by {error:.1e}"
            )


def _times(function: Callable[[], object]) -> tuple[float, float]:
    """Median and p90 in ms; the L2 cache is flushed before each run."""
    median, p90 = triton.testing.do_bench(function, warmup=50, rep=300, quantiles=[0.5, 0.9])
    return median, p90


def _extra_memory(function: Callable[[], object]) -> float:
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    function()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


class Table:
    """The rows measured so far."""

    def __init__(self) -> None:
        self.rows: list[Sequence[str]] = []
        numbers = torch.empty(2**28, dtype=torch.uint8, device="cuda")
        target = torch.empty_like(numbers)
        self.copy = 2 * numbers.numel() / _times(lambda: target.copy_(numbers))[0] / 1e6  # GB/s

    def add(
        self, operator: str, batch: int, dtype: torch.dtype, contender: str, call, train, floor: int
    ) -> None:
        """Times one contender; `train` is None for what has no backward."""
        forward = _times(call)
        training = "-" if train is None else "{:.3f} ({:.3f})".format(*_times(train))
        speed = floor / forward[0] / 1e6
        self.rows.append(
            (
                operator, str(batch), str(dtype)[6:], contender, f"{forward[0]:.3f} ({forward[1]:.3f})",
                training, f"{_extra_memory(train or call):.1f}",
                f"{speed:.0f}" if floor else "-", f"{speed / self.copy:.0%}" if floor else "-",
            )
        )  # fmt: skip

    def __str__(self) -> str:
        lines = [HEADER, tuple("---" for _ in HEADER), *self.rows]
        commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True)
        about = (
            f"{torch.cuda.get_device_name()}, torch {torch.__version__}, triton {triton.__version__}, "
            f"CUDA {torch.version.cuda}, commit {commit.stdout.strip() or 'unknown'}, "
            f"a copy moves {self.copy:.0f} GB/s"
        )
        return about + "\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


@pytest.fixture(scope="module")
def table(pytestconfig: pytest.Config) -> Iterator[Table]:
    found = Table()
    yield found
    with pytestconfig.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print(f"\n{found}")
    if pytestconfig.getoption("--save-results"):
        name = re.sub(r"[^a-z0-9]+", "-", torch.cuda.get_device_name().lower()).strip("-")
        path = Path(__file__).parent / "results" / f"kernels-{name}.md"
        path.parent.mkdir(exist_ok=True)
        path.write_text(str(found))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])
@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("operator", CASES)
def test_operator(operator: str, batch: int, dtype: torch.dtype, table: Table) -> None:
    torch.manual_seed(0)
    case = CASES[operator](batch, dtype, "cuda")
    torch._dynamo.reset()
    contenders = {
        "Triton": case.kernel,
        "eager": case.reference,
        "torch.compile": torch.compile(case.reference, dynamic=False),
        **case.rivals,
    }
    for name, function in contenders.items():
        _check(name, function, case)
    for name, function in contenders.items():
        grads = [torch.randn_like(output) for output in _tuple(function(*case.operands))]

        @torch.no_grad()
        def call(function=function):
            return function(*case.operands)

        def train(function=function, grads=grads):
            return torch.autograd.grad(
                _tuple(function(*case.operands)), case.operands, grads, allow_unused=True
            )

        table.add(operator, batch, dtype, name, call, train, case.floor)


def linear_contenders(
    rows: int, inputs: int, outputs: int, dtype: torch.dtype, device: str
) -> tuple[dict[str, Callable[[], torch.Tensor]], dict[str, Callable[[], torch.Tensor]]]:
    """Quantized linear layers with GELU by name, and the float layer on the same weights."""
    x = _normal(rows, inputs).to(device, dtype)
    bias = _normal(outputs, scale=0.1).to(device)
    integers = torch.randint(-127, 128, (outputs, inputs), dtype=torch.int8, device=device)
    nibbles = torch.randint(-8, 8, (outputs, inputs), dtype=torch.int8, device=device)
    scale = torch.full((outputs,), 2.0**-12, device=device)
    scales = torch.full((outputs, inputs // GROUP), 2.0**-8, dtype=torch.float16, device=device)
    packed, input_scale = pack_int4(nibbles), 0.03125
    weight = integers.to(dtype) * 2.0**-12
    weight4 = nibbles.to(dtype) * 2.0**-8
    float_bias = bias.to(dtype)
    kernels = {
        "int8_linear": lambda: int8_linear(
            x, integers, scale, bias, input_scale, "gelu", implementation="triton"
        ),
        "int4_linear": lambda: F.gelu(int4_linear(x, packed, scales, bias, "triton")),
    }
    float_layers = dict.fromkeys(kernels, lambda: F.gelu(F.linear(x, weight, float_bias)))
    float_layers["int4_linear"] = lambda: F.gelu(F.linear(x, weight4, float_bias))
    return kernels, float_layers


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])
@pytest.mark.parametrize("sizes", LINEAR_SIZES, ids=str)
def test_quantized_linear(sizes: tuple[int, int, int], dtype: torch.dtype, table: Table) -> None:
    torch.manual_seed(0)
    kernels, float_layers = linear_contenders(*sizes, dtype, "cuda")
    for operator, kernel in kernels.items():
        layer = float_layers[operator]
        error = (kernel().float() - layer().float()).norm() / layer().float().norm()
        assert error < QUANTIZED_TOLERANCE, f"{operator}: off by {error:.1e}"
        name = f"{operator} {sizes[0]} x {sizes[1]} x {sizes[2]}"
        table.add(name, 1, dtype, "Triton", kernel, None, 0)
        table.add(name, 1, dtype, "eager, float weights", layer, None, 0)


@pytest.mark.parametrize("batch", [1, 4])
def test_training_step_of_the_detector(batch: int, table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forward and backward of the official detector under bfloat16 autocast, kernels against references."""
    torch.manual_seed(0)
    detector = Detector(SAM3I_OFFICIAL).cuda()
    side, width = SAM3I_OFFICIAL.grid, SAM3I_OFFICIAL.d_model
    images = [torch.randn(batch, width, side * k, side * k, device="cuda") for k in (4, 2, 1)]
    prompt = torch.randn(batch, PROMPT, width, device="cuda")
    mask = torch.arange(PROMPT, device="cuda").expand(batch, -1) < 3 * PROMPT // 4
    level = torch.arange(batch, device="cuda") % 2 + 1

    def call() -> torch.Tensor:
        with torch.autocast("cuda", torch.bfloat16):
            out = detector.predict(*images, prompt, mask, level)
            return out.logits.float().sum() + out.boxes.float().sum() + out.mask_logits.float().mean()

    def train() -> None:
        detector.zero_grad(set_to_none=True)
        call().backward()

    table.add("detector", batch, torch.bfloat16, "Triton", torch.no_grad()(call), train, 0)
    for module in (mlp_module, cross_module, box_module):
        monkeypatch.setattr(module, "use_triton", lambda *_, **__: False)
    table.add("detector", batch, torch.bfloat16, "eager", torch.no_grad()(call), train, 0)
