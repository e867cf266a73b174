from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco

from sam3i_edge.masks import rle

MASKS = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=40))


def _blob(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return (x - width / 3) ** 2 + (y - height / 2) ** 2 < (height / 4) ** 2


@settings(max_examples=150, deadline=None)
@given(MASKS)
@example(np.zeros((5, 7), np.bool_))
@example(np.ones((5, 7), np.bool_))
@example(np.ones((1, 1), np.bool_))
@example(np.zeros((1, 1), np.bool_))
@example(np.eye(33, dtype=np.bool_))
@example(_blob(300, 200))
def test_agrees_with_pycocotools(mask: np.ndarray) -> None:
    ours, theirs = rle.encode(mask), coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert ours["size"] == theirs["size"]
    assert ours["counts"] == theirs["counts"].decode()
    assert np.array_equal(coco.decode(ours), mask)
    for form in (ours, theirs, {"size": ours["size"], "counts": rle.counts_of(mask).tolist()}):
        assert np.array_equal(rle.decode(form), mask)
        assert rle.area(form) == mask.sum()
        assert rle.box(form) == tuple(coco.toBbox(theirs))


def test_counts_begin_with_background() -> None:
    mask = np.array([[1, 0], [1, 1]], np.bool_)
    assert rle.counts_of(mask).tolist() == [0, 2, 1, 1]
    assert rle.counts_of(~mask).tolist() == [2, 1, 1]


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=30))
def test_any_counts_survive_the_string(counts: list[int]) -> None:
    assert rle.decompress(rle.compress(np.array(counts))).tolist() == counts


def test_a_mask_without_pixels() -> None:
    assert rle.decode(rle.encode(np.zeros((0, 4), np.bool_))).shape == (0, 4)


@pytest.mark.parametrize(
    ("damaged", "message"),
    [
        ({"counts": [4]}, "size must be"),
        ({"size": [2, 2]}, "counts must be a string or a list"),
        ({"size": [2, 2], "counts": [5]}, "a run of 5 pixels, size 2 x 2 has 4"),
        ({"size": [2, 2], "counts": [3]}, "cover 3 pixels, size 2 x 2 has 4"),
        ({"size": [2, 2], "counts": [5, -1]}, "negative"),
        ({"size": [2, 2], "counts": [1.5, 2.5]}, "whole numbers"),
        ({"size": [2, 2], "counts": "ä"}, "no COCO encoder"),
        ({"size": [2, 2], "counts": "\x7f"}, "no COCO encoder"),
        ({"size": [2, 2], "counts": "4P"}, "middle of a count"),
        ({"size": [2, 2], "counts": "P" * 30 + "1"}, "more than 32 bits"),
        ({"size": [2, 2], "counts": "O"}, "negative count"),
        # Sums that wrap around to the right number: decoding them wrote out of bounds.
        ({"size": [4, 4], "counts": [2**62] * 4 + [16]}, f"a run of {2**62} pixels, size 4 x 4 has 16"),
        ({"size": [4, 4], "counts": [2**63 - 1, 2**63 - 1, 18]}, "a run of 9223372036854775807 pixels"),
        ({"size": [4, 4], "counts": [2**64 - 16, 32]}, "whole numbers, got float64"),
        ({"size": [4, 4], "counts": [10**400, 16]}, "whole numbers, got object"),
        ({"size": [4, 4], "counts": "PPPPPPPPPP8" * 8}, "more than 32 bits"),
        ({"size": [2**33, 2**33], "counts": [2**33]}, "at most 4294967295 are allowed"),
    ],
)
def test_damaged_run_lengths_are_named(damaged: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rle.decode(damaged)


def test_only_two_dimensions() -> None:
    with pytest.raises(ValueError, match=r"must be \[H, W\], got shape \[2, 2, 2\]"):
        rle.encode(np.ones((2, 2, 2), np.bool_))
