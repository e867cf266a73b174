"""Averages the weights of runs that went on from each other: the mean often answers better than the last.

    python scripts/average_weights.py runs/last=0.8 runs/before=0.2 --out runs/mean

Each is a run's folder. The first is copied with the weighted mean of every tensor of floats, for `sam3i-edge
bundle`.
Source: Wortsman and others, "Model soups", arXiv 2203.05482.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file, save_file


def share_of(text: str) -> tuple[Path, float]:
    """The run and its share in RUN=SHARE."""
    run, _, share = text.rpartition("=")
    try:
        return Path(run), float(share)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}: want RUN=SHARE, such as runs/last=0.8") from None


def average(files: list[tuple[Path, float]], out: Path) -> None:
    """Writes the mean of files with the same tensors, with the first one's metadata and integers.

    Raises:
        ValueError: a file is missing, or its tensors are others than those of the first.
    """
    for path, _ in files:
        if not path.is_file():
            raise ValueError(f"{path} is missing; name runs of the same adapters")
    loaded = [load_file(path) for path, _ in files]
    shapes = [{name: value.shape for name, value in one.items()} for one in loaded]
    for (path, _), these in zip(files, shapes, strict=True):
        if these != shapes[0]:
            raise ValueError(
                f"{out.name} of {path.parents[1]} has other tensors than {files[0][0].parents[1]}"
            )
    mean = dict(loaded[0])
    for name, value in mean.items():
        if value.is_floating_point():
            parts = [share * one[name].double() for one, (_, share) in zip(loaded, files, strict=True)]
            mean[name] = sum(parts).to(value)
    with safe_open(files[0][0], "pt") as first:
        save_file(mean, out, metadata=first.metadata())


def main() -> None:
    """Averages them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=share_of, metavar="RUN=SHARE")
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    given = parser.parse_args()
    total = sum(share for _, share in given.runs)
    if abs(total - 1) > 1e-6:
        parser.error(f"shares sum to {total:g}, want 1")
    if given.out.exists():
        parser.error(f"{given.out.name} is there already; name a new folder")
    first = given.runs[0][0]
    try:
        shutil.copytree(first, given.out, ignore=shutil.ignore_patterns("last.pt", ".lock"))
        for path in sorted((first / "weights").glob("*.safetensors")):
            files = [(run / "weights" / path.name, share) for run, share in given.runs]
            average(files, given.out / "weights" / path.name)
    except (OSError, ValueError) as error:
        shutil.rmtree(given.out, ignore_errors=True)
        parser.error(str(error))


if __name__ == "__main__":
    main()
