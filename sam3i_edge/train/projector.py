"""The projector of stage 3: an instruction as one vector, for the losses that compare instructions.

Source: SAM3-I (arXiv:2512.04585), released code with `share_mlp_params`: one for simple, complex and concept.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Projector(nn.Module):
    """Linear, LayerNorm, ReLU, Linear on the mean of an instruction's text features.

    The mean is over all 32 slots, padding included, as the adapters' attention sees them. Training only: part
    of a run's checkpoints, and of no model.

    Args:
        width: channels of the text features, and of what it gives.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, width), nn.LayerNorm(width), nn.ReLU(), nn.Linear(width, width)
        )

    def forward(self, text_features: Tensor) -> Tensor:
        """[N, 32, C] of any float type -> float32 [N, C], not normalised."""
        projected: Tensor = self.layers(text_features.float().mean(1))
        return projected


def concept_numbers(concept_ids: Tensor) -> Tensor:
    """Numbers that are equal where the token ids are: what reads alike is one concept.

    Args:
        concept_ids: int64 [N, 32].

    Returns:
        int64 [N].
    """
    numbers: Tensor = torch.unique(concept_ids, dim=0, return_inverse=True)[1]
    return numbers
