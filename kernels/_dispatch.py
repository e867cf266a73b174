"""Which implementation of an operator runs, and the checks and the launch that all operators share."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch

from sam3i_edge.install_hint import install_hint
from sam3i_edge.kernels._triton import INTERPRETED, triton

Implementation = Literal["auto", "triton", "reference"]

FLOAT_TYPES = (torch.float32, torch.float16, torch.bfloat16)
LEAST_CAPABILITY = 80  # bfloat16 matrix instructions

# Made once, as every call of an operator asks for what keeps Triton from it.
_NO_TRITON = f"triton is not installed ({install_hint('train')})" if triton is None else ""

# Kernel launches by the kernel's name, for tests: a test that compares the reference with itself shows here.
LAUNCHES: Counter[str] = Counter()

# Capability -> {"tiles": {kernel: its fastest tile}, "slower": [operators that lose to torch.compile]}, of
# the chips that were measured; scripts/gpu_tables.py writes it. Kernels take their tables' tiles elsewhere.
MEASURED: dict[str, dict[str, Any]] = json.loads(
    Path(__file__).with_name("measured.json").read_text(encoding="utf-8")
)
ASKED_TILES: dict[str, tuple[Any, ...]] = {}  # what kernels would take by their tables, for a search of tiles

Tile = TypeVar("Tile", bound=tuple[Any, ...])


def use_triton(
    operator: str,
    tensors: Mapping[str, torch.Tensor],
    implementation: Implementation = "auto",
    *,
    dtypes: Collection[torch.dtype] = FLOAT_TYPES,
    limits: str = "",
) -> bool:
    """The one rule: Triton when all tensors lie on one CUDA device, the reference otherwise.

    Auto is the reference too where `measured.json` says that torch.compile is faster on such a chip.

    Args:
        operator: name for the error.
        tensors: name -> tensor, all that the kernel reads; the dtype of the first one decides.
        implementation: "auto" for the rule; "triton" runs it or raises, in Triton's interpreter too;
            "reference" never runs it. Under `torch.export` and tracing auto is the reference; under
            `torch.compile` the kernel is one operator of the graph.
        dtypes: those that the kernel computes in.
        limits: why the kernel cannot run these sizes; empty when it can.

    Raises:
        ValueError: Triton was asked for and cannot run, or `implementation` is none of the three.
    """
    if implementation not in ("auto", "triton", "reference"):
        raise ValueError(
            f"{operator}: implementation {implementation!r}, want 'auto', 'triton' or 'reference'"
        )
    if implementation == "reference":
        return False
    obstacle = limits or _obstacle(tensors, dtypes, interpreter=implementation == "triton")
    if implementation == "auto" and not obstacle:
        return operator not in _measured(next(iter(tensors.values())).device).get("slower", ())
    if obstacle and implementation == "triton":
        raise ValueError(
            f"{operator}: Triton cannot run this: {obstacle}; {describe(tensors)}. "
            "Use implementation='auto' or 'reference'"
        )
    return not obstacle


def _obstacle(
    tensors: Mapping[str, torch.Tensor], dtypes: Collection[torch.dtype], *, interpreter: bool
) -> str:
    """What keeps Triton from running on these tensors, in words; empty when nothing does."""
    # Not `is_exporting()`: torch 2.11 says it is true under torch.compile too.
    if torch.compiler._is_exporting_flag or torch.jit.is_tracing():  # type: ignore[attr-defined]
        return "a graph is being traced, and exported graphs hold aten operators only"
    # Fake, functional, distributed and quantized tensors have types of their own.
    if any(type(tensor) not in (torch.Tensor, torch.nn.Parameter) for tensor in tensors.values()):
        return "want plain tensors"
    if triton is None:
        return _NO_TRITON
    devices = {tensor.device for tensor in tensors.values()}
    device = next(iter(devices))
    if len(devices) > 1:
        return "want all tensors on one device"
    if device.type != "cuda" and not (device.type == "cpu" and interpreter and INTERPRETED):
        return "want a CUDA device, or TRITON_INTERPRET=1 set before the first import"
    if device.type == "cuda" and not INTERPRETED:
        if torch.version.cuda is None:
            return "want an NVIDIA device"
        if capability(device) < LEAST_CAPABILITY:
            return f"want compute capability {LEAST_CAPABILITY / 10} or newer"
    if next(iter(tensors.values())).dtype not in dtypes:
        return f"want dtype {', '.join(_name(dtype) for dtype in dtypes)}"
    return ""


def check(operator: str, wanted: Mapping[str, tuple[torch.Tensor, str]]) -> dict[str, int]:
    """Checks shapes, dtypes and devices together, and gives the sizes by name.

    Args:
        operator: name for the error.
        wanted: name -> (tensor, what it must be), for example "[B, N, C]", "int8 [K, C]" or "float [2]".
            Equal letters are equal sizes. A dtype in front is required; "float" is any floating dtype.
            Without one it is the dtype of the first tensor, or under autocast any floating dtype.

    Returns:
        Sizes: {"B": 2, "N": 5, "C": 96}.

    Raises:
        ValueError: something disagrees; the message holds all tensors and what was wanted.
    """
    first = next(iter(wanted.values()))[0]
    mixed = torch.is_autocast_enabled(first.device.type) if first.device.type != "meta" else False
    sizes: dict[str, int] = {}
    fits = True
    for tensor, form in wanted.values():
        dtype, _, inner = form.partition("[")
        letters = re.findall(r"\w+", inner)
        fits &= tensor.device == first.device and len(letters) == tensor.ndim
        for letter, size in zip(letters, tensor.shape, strict=False):
            fits &= (int(letter) if letter.isdigit() else sizes.setdefault(letter, size)) == size
        if dtype.strip() == "float" or (mixed and not dtype):
            fits &= tensor.is_floating_point()
        else:
            fits &= _name(tensor.dtype) == (dtype.strip() or _name(first.dtype))
    if not fits:
        forms = ", ".join(f"{name} {form}" for name, (_, form) in wanted.items())
        found = describe({name: tensor for name, (tensor, _) in wanted.items()})
        raise ValueError(
            f"{operator}: got {found}; want {forms}, on one device, of one dtype where none is named"
        )
    return sizes


def describe(tensors: Mapping[str, torch.Tensor]) -> str:
    """Shapes, dtypes and devices: "x [2, 5, 96] float32 cpu, gates [2, 2] float32 cpu"."""
    return ", ".join(
        f"{name} {list(tensor.shape)} {_name(tensor.dtype)} {tensor.device}"
        for name, tensor in tensors.items()
    )


def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, **options: Any) -> None:
    """Runs and counts a kernel on the device of its first argument, a tensor. An empty grid runs nothing."""
    if 0 in grid:
        return
    LAUNCHES[kernel.__name__] += 1
    device = arguments[0].device
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        kernel[grid](*arguments, **options)


def tile_of(kernel: str, chip: int, table: Tile) -> Tile:
    """The fastest tile of a kernel on a chip of this capability where it was measured, or its table's."""
    ASKED_TILES[kernel] = table
    found = MEASURED.get(str(chip), {}).get("tiles", {}).get(kernel)
    return table if found is None else type(table)(*found)


def _measured(device: torch.device) -> dict[str, Any]:
    return MEASURED.get(str(capability(device)), {})


@torch.compiler.assume_constant_result
def capability(device: torch.device) -> int:
    """Compute capability as one number, 90 for 9.0; of the oldest supported chip in the interpreter."""
    if device.type != "cuda":
        return LEAST_CAPABILITY
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
