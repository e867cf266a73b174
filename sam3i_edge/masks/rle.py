"""COCO run-length masks in numpy: the runs, their string form, and both ways between them.

A mask is read column by column; its counts are the lengths of alternating runs, background first, so the
first is 0 where the first pixel is set. The string packs each count, as a difference to the count two before
it, into 5-bit groups, lowest first, one printable character each.

Source: pycocotools, `maskApi.c` (rleEncode, rleToString, rleFrString, rleToBbox); the strings equal its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]

MOST_PIXELS = 2**32 - 1  # of a mask: what C's uint32 counts hold
_GROUPS = 7  # of 5 bits: the difference of two counts of 32 bits


class Rle(TypedDict):
    """A mask in COCO's compressed form: `size` is [height, width], `counts` a printable string."""

    size: list[int]
    counts: str


def encode(mask: NDArray[np.bool_]) -> Rle:
    """A mask bool [H, W] in the compressed form.

    Raises:
        ValueError: the mask is not two-dimensional.
    """
    counts = counts_of(mask)
    return {"size": [int(mask.shape[0]), int(mask.shape[1])], "counts": compress(counts)}


def decode(rle: Mapping[str, Any]) -> NDArray[np.bool_]:
    """The mask bool [H, W] of a run-length dict, compressed (str or bytes) or not (a list of counts).

    Raises:
        ValueError: no size or counts, a damaged string, negative counts, or counts that do not fill the size.
    """
    (height, width), counts = _parts(rle)
    values = np.zeros(len(counts), dtype=np.bool_)
    values[1::2] = True
    return np.repeat(values, counts).reshape(width, height).T.copy()


def counts_of(mask: NDArray[np.bool_]) -> Counts:
    """Run lengths int64 [R] of a mask bool [H, W], column by column, background first.

    Raises:
        ValueError: the mask is not two-dimensional.
    """
    if mask.ndim != 2:
        raise ValueError(f"mask must be [H, W], got shape {list(mask.shape)}")
    flat = np.asarray(mask, dtype=np.bool_).ravel(order="F")
    if not flat.size:
        return np.zeros(1, np.int64)
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    edges = np.concatenate([[0, 0] if flat[0] else [0], edges, [flat.size]])
    return np.diff(edges).astype(np.int64)


def compress(counts: NDArray[np.integer[Any]]) -> str:
    """The string of run lengths [R].

    Raises:
        ValueError: a negative count.
    """
    values = np.asarray(counts, dtype=np.int64)
    if values.size and int(values.min()) < 0:
        raise ValueError(f"run lengths must not be negative, got {int(values.min())}")
    deltas = values.copy()
    deltas[3:] -= values[1:-2]
    groups, kept = [], []
    rest, open_ = deltas, np.ones(len(deltas), np.bool_)
    while open_.any():
        digit = rest & 31
        rest = rest >> 5
        # A group is the last when what remains is only the sign that its highest bit already shows.
        more = np.where(digit & 16, rest != -1, rest != 0)
        groups.append(digit | np.where(more, 32, 0))
        kept.append(open_)
        open_ = open_ & more
    if not groups:
        return ""
    characters = (np.stack(groups, axis=1) + 48).astype(np.uint8)
    return characters[np.stack(kept, axis=1)].tobytes().decode("ascii")


def decompress(text: str | bytes) -> Counts:
    """Run lengths int64 [R] of a string.

    Raises:
        ValueError: a character outside the alphabet, an unfinished last group, or a negative count.
    """
    raw = text.encode() if isinstance(text, str) else bytes(text)
    codes = np.frombuffer(raw, np.uint8).astype(np.int64) - 48
    if not len(codes):
        return np.zeros(0, np.int64)
    if int(codes.min()) < 0 or int(codes.max()) > 63:
        raise ValueError("run-length string holds a character that no COCO encoder writes")
    last = (codes & 32) == 0
    if not last[-1]:
        raise ValueError("run-length string ends in the middle of a count")
    ends = np.flatnonzero(last)
    starts = np.concatenate([[0], ends[:-1] + 1])
    place = np.arange(len(codes)) - np.repeat(starts, ends - starts + 1)
    if int(place.max()) > _GROUPS - 1:
        raise ValueError("run-length string holds a count of more than 32 bits")
    deltas = np.add.reduceat((codes & 31) << (5 * place), starts)
    negative = (codes[ends] & 16) != 0
    deltas -= np.where(negative, np.int64(1) << (5 * (place[ends] + 1)), 0)
    counts = deltas
    counts[1::2] = np.cumsum(deltas[1::2])
    counts[2::2] = np.cumsum(deltas[2::2])
    if int(counts.min()) < 0:
        raise ValueError(f"run-length string holds a negative count ({int(counts.min())})")
    return counts


def area(rle: Mapping[str, Any]) -> int:
    """Pixels set.

    Raises:
        ValueError: as `decode`.
    """
    return int(_parts(rle)[1][1::2].sum())


def box(rle: Mapping[str, Any]) -> tuple[float, float, float, float]:
    """(x, y, width, height) px around the pixels set; zeros where there are none.

    Raises:
        ValueError: as `decode`.
    """
    (height, _), counts = _parts(rle)
    ends = np.cumsum(counts)[1::2]
    lengths = counts[1::2]
    ends, lengths = ends[lengths > 0], lengths[lengths > 0]
    if not len(ends):
        return 0.0, 0.0, 0.0, 0.0
    first, last = ends - lengths, ends - 1
    left, right = int(first[0] // height), int(last[-1] // height)
    if (first // height != last // height).any():  # a run that crosses a column's end touches bottom and top
        top, bottom = 0, height - 1
    else:
        top, bottom = int((first % height).min()), int((last % height).max())
    return float(left), float(top), float(right - left + 1), float(bottom - top + 1)


def _parts(rle: Mapping[str, Any]) -> tuple[tuple[int, int], Counts]:
    size, counts = rle.get("size"), rle.get("counts")
    if (
        not isinstance(size, Sequence)
        or len(size) != 2
        or not all(isinstance(v, int) and v >= 0 for v in size)
    ):
        raise ValueError(f"size must be [height, width], got {size!r}")
    if isinstance(counts, str | bytes):
        runs = decompress(counts)
    elif isinstance(counts, Sequence | np.ndarray):
        runs = np.asarray(counts)
        if runs.ndim != 1 or (runs.size and runs.dtype.kind not in "iu"):
            raise ValueError(
                f"counts must be a string or a list of whole numbers, got {runs.dtype} {runs.shape}"
            )
    else:
        raise ValueError(f"counts must be a string or a list of whole numbers, got {type(counts).__name__}")
    height, width = int(size[0]), int(size[1])
    if height * width > MOST_PIXELS:
        raise ValueError(
            f"size {height} x {width} is {height * width} pixels, at most {MOST_PIXELS} are allowed"
        )
    if runs.size and int(runs.min()) < 0:
        raise ValueError(f"run lengths must not be negative, got {int(runs.min())}")
    # Each before the sum, which could wrap around to the right number.
    if runs.size and int(runs.max()) > height * width:
        raise ValueError(f"a run of {int(runs.max())} pixels, size {height} x {width} has {height * width}")
    runs = runs.astype(np.int64)
    if int(runs.sum()) != height * width:
        raise ValueError(
            f"counts cover {int(runs.sum())} pixels, size {height} x {width} has {height * width}"
        )
    return (height, width), runs
