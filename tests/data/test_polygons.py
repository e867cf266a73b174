from __future__ import annotations

import numpy as np
import pytest
from pycocotools import mask as coco

from sam3i_edge.data.polygons import polygon_mask


def theirs(polygons: list[list[float]], height: int, width: int) -> np.ndarray:
    runs = coco.merge(coco.frPyObjects(polygons, height, width))
    return coco.decode(runs).astype(bool)


@pytest.mark.parametrize("whole", [False, True])
def test_random_polygons_agree_with_pycocotools(whole: bool) -> None:
    rng = np.random.default_rng(int(whole))
    for _ in range(250):
        height, width = (int(side) for side in rng.integers(3, 60, 2))
        polygons = []
        for _ in range(rng.integers(1, 4)):
            points = rng.uniform(-0.3, 1.3, (rng.integers(3, 10), 2)) * (width, height)
            polygons.append((np.round(points) if whole else points).ravel().tolist())
        assert np.array_equal(polygon_mask(polygons, height, width), theirs(polygons, height, width))


def test_a_rectangle_fills_its_pixels() -> None:
    mask = polygon_mask([[2, 1, 6, 1, 6, 4, 2, 4]], 6, 8)
    expected = np.zeros((6, 8), bool)
    expected[1:4, 2:6] = True
    assert np.array_equal(mask, expected)


def test_repeated_points_and_overlapping_parts() -> None:
    twice = [[1, 1, 5, 1, 5, 1, 5, 5, 1, 5, 1, 1], [3, 3, 7, 3, 7, 7, 3, 7]]
    mask = polygon_mask(twice, 8, 8)
    assert np.array_equal(mask, theirs(twice, 8, 8))
    assert mask[4, 4], "parts are united, not subtracted"
