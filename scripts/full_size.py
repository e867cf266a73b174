"""Converts a checkpoint of official size with random weights, and measures it: time, memory, files, latency.

    python scripts/full_size.py FOLDER --resolution 336 [--pairs 5] [--queries 5]

FOLDER gets the checkpoint (4.6 GB, kept for the next call), the bundle (9.3 GB) and `full-size-336.json`.
Nothing here is trained: latency and agreement mean something, masks do not.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import platform
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
KEYS = ROOT / "tests" / "fixtures" / "keys" / "sam3i_stage3.json"
THRESHOLD = 0.2
MERGES = ROOT / "tests" / "fixtures" / "bpe_simple_vocab_16e6.txt.gz"


def make_checkpoint(path: Path) -> None:
    """Writes random weights of sane size in the layout of a SAM3-I trainer."""
    import torch

    torch.manual_seed(0)
    state = {}
    for name, shape in json.loads(KEYS.read_text()).items():
        if name.endswith("freqs_cis"):
            state[name] = torch.zeros(shape, dtype=torch.complex64)
        elif len(shape) > 1:
            state[name] = torch.randn(shape) / math.sqrt(math.prod(shape[1:]))
        else:
            state[name] = torch.randn(shape) * 0.1 + float("norm" in name and name.endswith("weight"))
    # So that instances are kept at THRESHOLD: something is there, and no query is far below even.
    state["transformer.decoder.presence_token_head.layers.2.bias"].fill_(4.0)
    state["dot_prod_scoring.hs_proj.weight"].mul_(0.1)
    partial = path.with_suffix(".part")
    torch.save({"model": state, "inst_stage": "3", "epoch": 0}, partial)
    partial.rename(path)


def convert(checkpoint: Path, out: Path, resolution: int, pairs: int) -> dict[str, object]:
    """Runs the command a user runs; the peaks are those that it prints."""
    began = time.perf_counter()
    done = subprocess.run(
        [
            sys.executable, "-m", "sam3i_edge", "convert", str(checkpoint), "-o", str(out), "--overwrite",
            "--tokenizer", str(MERGES), "--license", str(ROOT / "LICENSE"), "--resolution", str(resolution),
            "--pairs", str(pairs), "--threshold", str(THRESHOLD), "--json",
        ],
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    print(done.stderr, file=sys.stderr)
    if done.returncode:
        raise SystemExit(f"convert failed with exit code {done.returncode}")
    peaks = {
        what.strip(): int(size.replace(",", ""))
        for what, size in re.findall(
            r"^(.*?)[:;] peak memory(?: of this process)? ([\d,]+) MiB$", done.stderr, re.M
        )
    }
    return {"seconds": time.perf_counter() - began, "peak_mib": peaks, **json.loads(done.stdout)}


def latency(bundle: Path, queries: int, threads: int) -> dict[str, object]:
    """Median of each step of `segment`, after one warm-up, and the peak memory of this process."""
    from sam3i_edge import Segmenter
    from sam3i_edge.devices.machine import peak_memory

    image = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    rows = []
    with Segmenter(bundle, threads=threads) as segmenter:
        for number in range(queries + 1):
            shown = np.roll(image, number, axis=1)
            result = segmenter.segment(shown, f"the mug number {number} left of the laptop", level="simple")
            boxed = segmenter.segment(shown, "mug", boxes=[[10, 10, 100, 120]])
            rows.append({**result.timings_ms, "encode_boxes": boxed.timings_ms["encode_boxes"]})
    median = {step: float(np.median([row[step] for row in rows[1:]])) for step in rows[0]}
    return {"median_ms": median, "instances": len(result), "peak_mib": peak_memory() // 2**20}


def encode_peak(bundle: Path, threads: int) -> int:
    """MiB at most of a process that opens a `Segmenter` and encodes a picture; call it in a new one."""
    from sam3i_edge import Segmenter
    from sam3i_edge.devices.machine import peak_memory

    image = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    with Segmenter(bundle, threads=threads) as segmenter:
        segmenter.encode(image)
    return peak_memory() // 2**20


def main() -> None:
    """Measures one resolution."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--resolution", type=int, default=336)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--queries", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    checkpoint = given.folder / "sam3i_random.pt"
    if not checkpoint.exists():
        subprocess.run([sys.executable, __file__, "--make", str(checkpoint)], check=True)
    bundle = given.folder / f"sam3i-{given.resolution}"
    figures = {
        "resolution": given.resolution,
        "machine": platform.processor() or platform.machine(),
        "convert": convert(checkpoint, bundle, given.resolution, given.pairs),
        "files": {
            path.relative_to(bundle).as_posix(): path.stat().st_size
            for path in sorted(bundle.rglob("*"))
            if path.is_file()
        },
        "segment": latency(bundle, given.queries, given.threads),
    }
    with multiprocessing.get_context("spawn").Pool(1) as alone:
        figures["encode_peak_mib"] = alone.apply(encode_peak, (bundle, given.threads))
    (given.folder / f"full-size-{given.resolution}.json").write_text(json.dumps(figures, indent=1) + "\n")
    print(json.dumps(figures["segment"], indent=1))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--make"]:
        make_checkpoint(Path(sys.argv[2]))
    else:
        main()
