"""Muon for the large matrices and kernels, AdamW for the rest, as one optimiser.

Sources: Muon (Jordan 2024, kellerjordan.github.io/posts/muon); the scale that makes its rates AdamW's (Liu et
al. 2025, arXiv:2502.16982, 2.2). `torch.optim.Muon` takes matrices alone, and a small model has many kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

MOMENTUM: Final = 0.95
SMALLEST: Final = 16  # channels in and out: a direction of fewer says little
_STEP_SIZE: Final = 0.2  # root mean square of AdamW's steps
# Of the polynomial a x + b x^3 + c x^5, which drives singular values to about 1 within five steps.
_A, _B, _C = 3.4445, -4.7750, 2.0315


def takes(name: str, parameter: Tensor) -> bool:
    """Whether Muon trains it: a matrix or dense kernel [out, in, ...], and no table of embeddings."""
    table = any(word in part for part in name.split(".")[-2:] for word in ("embed", "reference"))
    return parameter.ndim in (2, 4) and min(parameter.shape[:2]) >= SMALLEST and not table


class MuonAdamW(torch.optim.AdamW):
    """AdamW, whose groups with "muon" step along the orthogonalised momentum of each weight."""

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step; `closure` is refused, as nothing here evaluates the model again.

        Raises:
            ValueError: there is a closure.
        """
        if closure is not None:
            raise ValueError("MuonAdamW takes no closure: compute the gradients before the step")
        groups = self.param_groups
        for group in groups:
            if group.get("muon"):
                for weight in group["params"]:
                    if weight.grad is not None:
                        self._turn(weight, weight.grad, group["lr"], group["weight_decay"])
        self.param_groups = [group for group in groups if not group.get("muon")]
        try:
            super().step()
        finally:
            self.param_groups = groups

    def _turn(self, weight: Tensor, grad: Tensor, rate: float, decay: float) -> None:
        state = self.state[weight]
        if not state:
            # AdamW reads "step" of every state that it loads.
            state["momentum"], state["step"] = torch.zeros_like(weight), torch.zeros(())
        momentum: Tensor = state["momentum"].lerp_(grad, 1 - MOMENTUM)
        direction = orthogonal(grad.lerp(momentum, MOMENTUM).flatten(1))
        size = _STEP_SIZE * max(direction.shape) ** 0.5
        weight.mul_(1 - rate * decay).add_(direction.to(weight.dtype).view(weight.shape), alpha=-rate * size)


def orthogonal(matrix: Tensor) -> Tensor:
    """[n, m] -> [n, m] bfloat16 of the same singular vectors, with singular values of about 0.7 to 1.2."""
    x: Tensor = matrix.bfloat16()
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x = x / (x.norm() + 1e-7)
    for _ in range(5):
        square = x @ x.T
        x = _A * x + (_B * square + _C * (square @ square)) @ x
    return x.T if tall else x
