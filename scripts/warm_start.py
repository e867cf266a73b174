"""Gives a trained image encoder the detector and the text encoder of a smaller trained model.

    sam3i-edge train image.json --out runs/image --tokenizer runs/start/tokenizer.json   # stage "image" alone
    python scripts/warm_start.py runs/image sam3i_edge/assets/sam3i-nano --out runs/warm

What finds boxes and masks is slow to learn and the same for every picture; only what it reads differs. So its
weights are copied, words get the vectors of their pieces, and the lateral convolutions of the new pyramid are
set by least squares so that its maps come near to those of the old one on drawn scenes. Adapters start anew.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from sam3i_edge.data.scenes import draw_scene
from sam3i_edge.model.config import SAM3I_NANO_256
from sam3i_edge.model.convnet import ConvEncoder
from sam3i_edge.model.efficientnet import EfficientNetEncoder
from sam3i_edge.model.sam3i import SAM3I
from sam3i_edge.model.weights import load_model, load_weights, save_weights

_OWN = ("token_embedding", ".detail.")  # not those of the trained model
_SCENES, _SEED = 150, 99
_ROWS = 1_024  # of a map and scene
_DAMPING = 1e-3  # of the mean square of the inputs
_JITTER = 0.3  # of the standard deviation of the vectors: words of equal pieces start apart


@torch.no_grad()
def words(new: Tensor, old: Tensor, new_tokenizer: Tokenizer, old_tokenizer: Tokenizer) -> None:
    """Fills token vectors [N, C] from another tokenizer's [M, C]: of the same token, or of its pieces."""
    length = old.norm(dim=1).mean()
    for token, row in new_tokenizer.get_vocab().items():
        same = old_tokenizer.token_to_id(token)
        if same is not None:
            new[row] = old[same]
            continue
        pieces = old[[piece.id for piece in old_tokenizer.model.tokenize(token)]].mean(0)
        pieces *= 0.7 * length / pieces.norm().clamp(min=1e-6)
        new[row] = pieces + _JITTER * old.std() * torch.randn(old.shape[1])


@torch.no_grad()
def pyramid(new: EfficientNetEncoder, old: ConvEncoder, side: int) -> list[float]:
    """Sets the lateral convolutions; gives, finest level first, the share of variance that they explain."""
    sums: list[list[Tensor]] = [[] for _ in range(3)]
    for number in tqdm(range(_SCENES), unit="scene"):
        scene = draw_scene(np.random.default_rng((_SEED, number)), (side, side)).pixels()
        pixels = torch.from_numpy(scene.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
        _, f4, f8, f16, f32 = new.features(pixels)
        o4, o2, o1 = old(pixels)
        inputs = (f4, f8, torch.cat((f16, _up(f32)), 1))
        for level, (x, y) in enumerate(zip(inputs, (o4 - _up(o2), o2 - _up(o1), o1), strict=True)):
            a, b = _rows(x), _rows(y)
            if len(a) > _ROWS:
                kept = torch.randperm(len(a))[:_ROWS]
                a, b = a[kept], b[kept]
            a = F.pad(a, (0, 1), value=1.0)
            found = [a.T @ a, a.T @ b, (b * b).sum(0), b.sum(0)]
            sums[level] = [s + f for s, f in zip(sums[level], found, strict=True)] if sums[level] else found
    explained = []
    for level, (gram, cross, square, total) in enumerate(sums):
        damped = gram + _DAMPING * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
        w = torch.linalg.solve(damped, cross)
        left = square - 2 * (w * cross).sum(0) + (w * (gram @ w)).sum(0)
        explained.append(float(1 - left.sum() / (square - total**2 / gram[-1, -1]).sum()))
        weight, bias = w[:-1].T.float()[..., None, None], w[-1].float()
        width = new.neck[level].in_channels
        new.neck[level].weight.copy_(weight[:, :width])
        new.neck[level].bias.copy_(bias)
        if level == 2:
            new.neck[3].weight.copy_(weight[:, width:])
            new.neck[3].bias.zero_()
    return explained


def _up(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def _rows(x: Tensor) -> Tensor:
    """[1, C, H, W] -> float64 [H W, C]."""
    return x[0].flatten(1).T.double()


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="folder of a run that trained the image encoder")
    parser.add_argument("trained", type=Path, help="a run or bundle with a residual image encoder")
    parser.add_argument("--out", type=Path, required=True, help="folder of the weights")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.manual_seed(given.seed)
    old, new = load_model(given.trained / "weights"), SAM3I(SAM3I_NANO_256)
    load_weights(new, given.run / "weights")
    fresh = SAM3I(SAM3I_NANO_256).state_dict()
    kept, trained = new.state_dict(), old.state_dict()
    for name, value in kept.items():
        if "adapter." in name:
            value.copy_(fresh[name])
        elif not name.startswith("image_encoder.") and not any(part in name for part in _OWN):
            value.copy_(trained[name])
    words(
        kept["text_encoder.token_embedding.weight"],
        trained["text_encoder.token_embedding.weight"],
        Tokenizer.from_file(str(given.run / "tokenizer.json")),
        Tokenizer.from_file(str(given.trained / "tokenizer.json")),
    )
    new.eval()
    assert isinstance(new.image_encoder, EfficientNetEncoder)
    assert isinstance(old.image_encoder, ConvEncoder)
    explained = pyramid(new.image_encoder, old.image_encoder, SAM3I_NANO_256.image_size)
    save_weights(new, given.out)
    print("variance of the old maps explained, strides 4, 8, 16:", ", ".join(f"{v:.2f}" for v in explained))


if __name__ == "__main__":
    main()
