"""transformers' `Sam3Model` beside a bundle's image encoder, at the official size; run by hand.

    python benchmarks/peers/official_size.py BUNDLE [--rounds 3] [--threads 2]

BUNDLE is a bundle of the official size (336, 672 or 1008 px); its weights may be random, as those of the peer
are: speed does not depend on them, so the answers are not compared. Each variant that runs here is timed in
turn with the eager model in float32. The peer takes about 4 GB of memory.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import numpy as np
import torch
from transformers import Sam3Config, Sam3Model

from sam3i_edge.benchmark.plan import plan
from sam3i_edge.benchmark.statistics import speedup
from sam3i_edge.benchmark.timing import in_turn
from sam3i_edge.bundle import Bundle
from sam3i_edge.runtimes import open_runtime


def peer(side: int) -> Sam3Model:
    """The eager model with random weights, for pictures of `side` pixels."""
    config = Sam3Config()
    config.vision_config.backbone_config.image_size = side
    config.vision_config.image_size = side
    torch.manual_seed(0)
    return Sam3Model(config).eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    bundle = Bundle.open(given.bundle)
    side = bundle.manifest.preprocessing.image_size
    torch.set_num_threads(given.threads)
    model = peer(side)
    pixels = np.random.default_rng(0).normal(size=(1, 3, side, side)).astype(np.float32)

    def eager() -> None:
        with torch.inference_mode():
            model.get_vision_features(torch.from_numpy(pixels))

    for row in plan([bundle], device="cpu").rows:
        path = bundle.graphs(row.variant)["image_encoder"]
        graph = open_runtime(row.runtime, path, row.device, threads=given.threads)
        peer_ms, ours_ms = in_turn(
            eager, lambda graph=graph: graph.run({"pixel_values": pixels}), given.rounds
        )
        graph.close()
        ratio = speedup(peer_ms, ours_ms)
        print(
            f"{side} px, {given.threads} threads: transformers eager float32 {np.median(peer_ms):,.0f} ms, "
            f"{row.runtime} {row.precision} {np.median(ours_ms):,.0f} ms, {ratio.value:.2f} times faster "
            f"({ratio.low:.2f} to {ratio.high:.2f}, {given.rounds} rounds in turn)",
            flush=True,
        )


if __name__ == "__main__":
    warnings.simplefilter("ignore", FutureWarning)
    main()
