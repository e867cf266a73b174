"""A graph's large output, which stays where it was computed until somebody reads it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

LARGE = 2**20  # bytes; smaller outputs come back at once


class OnDevice:
    """Stands in for an array: feature maps go from one graph to the next without leaving the GPU.

    `x[2]` is a view that stays too, `x[indices]` fetches these rows alone, and `np.asarray(x)` everything.

    Attributes:
        tensor: the values, float32 or of another dtype that NumPy has.
    """

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """As an array's."""
        return tuple(self.tensor.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """As an array's."""
        kind: np.dtype[Any] = np.dtype(str(self.tensor.dtype).removeprefix("torch."))
        return kind

    @property
    def nbytes(self) -> int:
        """On the device."""
        return self.tensor.nbytes

    def __len__(self) -> int:
        return len(self.tensor)

    def __getitem__(self, index: int | NDArray[np.int64]) -> OnDevice | NDArray[Any]:
        if isinstance(index, np.ndarray):
            rows = torch.from_numpy(index).to(self.tensor.device, non_blocking=True)
            return to_host([self.tensor.index_select(0, rows)])[0]
        return OnDevice(self.tensor[index])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError(f"an array of {self.tensor.device} cannot be read without a copy")
        return np.asarray(to_host([self.tensor])[0], dtype)


def to_host(tensors: list[torch.Tensor]) -> list[NDArray[Any]]:
    """Copies of tensors in memory of their own: all copies are started, and then waited for once."""
    if tensors and tensors[0].is_cuda:
        pinned = [torch.empty(t.shape, dtype=t.dtype, pin_memory=True) for t in tensors]
        for target, value in zip(pinned, tensors, strict=True):
            target.copy_(value, non_blocking=True)
        torch.cuda.current_stream(tensors[0].device).synchronize()
        tensors = pinned
    # Copied once more: a result that is kept must not hold pinned memory.
    return [tensor.detach().cpu().numpy().copy() for tensor in tensors]
