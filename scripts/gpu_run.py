"""What the steps of the GPU day share: where rows go, the time that is left, and how a thing is timed."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from benchmarks import kernel_cases  # noqa: E402
from sam3i_edge.kernels._triton import triton  # noqa: E402
from sam3i_edge.model.config import SAM3I_NANO, SAM3I_OFFICIAL, ModelConfig  # noqa: E402

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


def one_line(error: Exception) -> str:
    """An error in one line."""
    words = " ".join(str(error).split()) or "no message"
    return f"{type(error).__name__}: {words}"[:300]
