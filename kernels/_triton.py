"""The one place that imports triton, and what every kernel shares.

Without triton (macOS, Windows, a Jetson before it is built by hand) this module still imports: `jit` then
gives the function back as it is, `triton` and `tl` are None, and only references run. Kernel modules write
`from __future__ import annotations`, so that `tl.constexpr` in a signature is not evaluated.

Three rules of the kernels: values are loaded, widened to `ACCUMULATE` types and computed there; operands of a
matrix product go through `dot`; what is narrowed, for a product or for a store, goes through `cast`. The
interpreter computes bfloat16 wrongly anywhere else.

A module with kernels also tells `scripts/kernels_aot.py` what to compile, in a function

    def aot_cases(capability: int) -> list[AotCase]:

which gives, for a compute capability such as 87, each kernel at the official sizes in the configuration that
its host code launches on such a chip, and may add others for comparison (`chosen=False`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

try:
    import triton
    import triton.language as tl
except ImportError:  # an optional dependency of the torch part
    triton = tl = None

__all__ = ["INTERPRET", "INTERPRETED", "AotCase", "cast", "dot", "jit", "tl", "triton"]

INTERPRETED: bool = triton is not None and bool(triton.knobs.runtime.interpret)
INTERPRET = INTERPRETED if tl is None else tl.constexpr(INTERPRETED)


def jit(function: Any) -> Any:
    """`triton.jit`, or the function itself where triton is missing."""
    return function if triton is None else triton.jit(function)


class AotCase(NamedTuple):
    """One kernel to compile ahead of time.

    Attributes:
        name: operator, direction, dtype and sizes, in words for the table.
        kernel: the jit function.
        signature: argument -> type ("*bf16", "*fp32", "i32", "fp32"; "constexpr" for every constant).
        constexprs: values of the constants.
        num_warps, num_stages: launch options.
        chosen: the host code launches this configuration on this chip, so it must fit without spills; others
            are listed only.
    """

    name: str
    kernel: Any
    signature: dict[str, Any]
    constexprs: dict[str, Any]
    num_warps: int
    num_stages: int
    chosen: bool = True


@jit
def dot(a, b, acc=None):
    """Gives a @ b (+ acc), summed in float32; in float64 for float64 operands, in int32 for int8."""
    if INTERPRET and a.dtype == tl.bfloat16:
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    if a.dtype == tl.int8:
        sums = tl.dot(a, b, acc, out_dtype=tl.int32)
    elif a.dtype == tl.float64:
        sums = tl.dot(a, b, acc, input_precision="ieee", out_dtype=tl.float64)
    else:
        sums = tl.dot(a, b, acc, input_precision="ieee")
    return sums


@jit
def cast(x, dtype: tl.constexpr):
    """`x` (float32, or float64 to float64) in `dtype`, rounded to nearest even."""
    if INTERPRET and dtype == tl.bfloat16:
        # The interpreter cuts the lower 16 bits off, of subnormals wrongly: round before. NaN stays.
        bits = x.to(tl.int32, bitcast=True)
        rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) & -65536).to(tl.float32, bitcast=True)
        x = tl.where(x == x, rounded, x)
    return x.to(dtype)
