"""Parameters and operations of the image encoders that `distill` makes: the table of docs/students.md.

    python scripts/encoder_work.py

Nothing is computed: shapes alone, on the meta device.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from sam3i_edge.model.config import SAM3I_NANO, SAM3I_OFFICIAL, ModelConfig
from sam3i_edge.model.sam3i import SAM3I
from sam3i_edge.train.smaller_encoder import smaller, without_blocks

# Which twelve of the others stay beside the four global ones changes no figure.
KEPT = (*range(12), 15, 23, 30, 31)


def _row(name: str, teacher: ModelConfig, sizes: dict[str, Any]) -> None:
    config = ModelConfig.from_dict(teacher.to_dict() | sizes)
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        encoder = SAM3I(config).eval().image_encoder
        encoder(torch.zeros(1, 3, config.image_size, config.image_size))
    count = sum(parameter.numel() for parameter in encoder.parameters())
    print(f"{name:32} {count / 1e6:8.2f} M {counter.get_total_flops() / 1e9:10,.2f} GFLOP")


def main() -> None:
    """Prints a line for each image encoder."""
    _row("sam3i", SAM3I_OFFICIAL, {})
    _row("sam3i, 16 blocks", SAM3I_OFFICIAL, without_blocks(SAM3I_OFFICIAL, KEPT))
    _row("sam3i, half width", SAM3I_OFFICIAL, smaller(SAM3I_OFFICIAL, width=0.5))
    _row("sam3i, repvit-m0.9", SAM3I_OFFICIAL, smaller(SAM3I_OFFICIAL, "repvit-m0.9"))
    _row("sam3i-nano", SAM3I_NANO, {})
    _row("sam3i-nano, two thirds", SAM3I_NANO, smaller(SAM3I_NANO, width=0.67))
    _row("sam3i-nano, half width", SAM3I_NANO, smaller(SAM3I_NANO, width=0.5))
    _row("sam3i-nano, repvit-m0.9, a third", SAM3I_NANO, smaller(SAM3I_NANO, "repvit-m0.9", 0.33))


if __name__ == "__main__":
    main()
