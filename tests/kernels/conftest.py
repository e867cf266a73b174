"""Fixtures of the kernel tests. tests/conftest.py sets TRITON_INTERPRET where there is no GPU.

A bare GPU machine runs these tests without that file, which imports more than is there.
"""

from __future__ import annotations

import pytest
import torch

from sam3i_edge.kernels._dispatch import LAUNCHES

torch.use_deterministic_algorithms(True)  # fills torch.Tensor.new_empty with NaN too


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _poisoned_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """New memory holds NaN, or the largest integer: what a kernel leaves unwritten shows in its result."""

    def poisoned(make):
        def wrapper(*args, **kwargs):
            new = make(*args, **kwargs)
            if new.is_floating_point():
                return new.fill_(float("nan"))
            return new if new.dtype == torch.bool else new.fill_(torch.iinfo(new.dtype).max)

        return wrapper

    for name in ("empty", "empty_like"):
        monkeypatch.setattr(torch, name, poisoned(getattr(torch, name)))


@pytest.fixture
def device() -> torch.device:
    """Where kernels run: a GPU, or the CPU in Triton's interpreter."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture
def launches():
    """The launch counter, from zero."""
    LAUNCHES.clear()
    return LAUNCHES
