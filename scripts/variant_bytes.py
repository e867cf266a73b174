"""What the weights of the int8 variants take on disk, by part: the table of docs/students.md.

    python scripts/variant_bytes.py

Counted from the tensors, on the meta device: 8-bit weights a byte each, their scales and all that stays float
four. A graph's own nodes and constant tables come on top, 1 to 10 MB a variant. The last column is what
quantizing keeps beside the model: products of every two values that a layer reads, where these are few.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch

from sam3i_edge.model.config import SAM3I_OFFICIAL, ModelConfig
from sam3i_edge.model.sam3i import SAM3I
from sam3i_edge.model.student_variants import IMAGE_STUDENTS, TEXT_STUDENTS
from sam3i_edge.quantize.calibration import _WIDEST
from sam3i_edge.quantize.recipes import RECIPES

PARTS = ("image_encoder", "text_encoder", "geometry_encoder", "detector")
TABLE = "text_encoder.token_embedding.weight"


def _row(name: str, sizes: dict[str, Any]) -> None:
    config = ModelConfig.from_dict(SAM3I_OFFICIAL.to_dict() | sizes)
    with torch.device("meta"):
        model = SAM3I(config).eval()
    integers = RECIPES["int8"].modules(model)
    parts: Counter[str] = Counter()
    for parameter, value in model.named_parameters():
        layer, _, kind = parameter.rpartition(".")
        whole = kind == "weight" and layer in integers
        part = "table" if parameter == TABLE else parameter.partition(".")[0]
        if whole:
            channels = value.shape[int(isinstance(integers[layer], torch.nn.ConvTranspose2d))]
            parts[part] += value.numel() + 4 * channels
        else:
            parts[part] += 4 * value.numel()
    products = 0
    for module in integers.values():
        read = (
            0
            if isinstance(module, (torch.nn.Embedding, torch.nn.ConvTranspose2d))
            else module.weight[0].numel()
        )
        products += 4 * getattr(module, "groups", 1) * read**2 if read <= _WIDEST else 0
    shown = "".join(f"{parts[part] / 1e6:9.1f}" for part in (*PARTS, "table"))
    print(f"{name:34}{shown}{sum(parts.values()) / 1e6:9.1f} MB{products / 1e6:9,.0f}")


def main() -> None:
    """Prints a line for each model."""
    print(" " * 34 + "".join(f"{part[:8]:>9}" for part in (*PARTS, "table")) + "      all    products")
    plain: dict[str, Any] = {"adapter_dim": 0}
    _row("sam3i", {})
    for text in TEXT_STUDENTS:
        _row(f"litetext {text}", {**plain, **TEXT_STUDENTS[text]})
    for image in ("efficientvit-b1", "repvit-m1.1", "tinyvit-11m"):
        _row(f"{image} mobileclip-s0", {**plain, **IMAGE_STUDENTS[image], **TEXT_STUDENTS["mobileclip-s0"]})


if __name__ == "__main__":
    main()
