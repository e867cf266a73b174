"""Polygons of masks: exact to the pixel, valid, and read by others as they are meant."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sam3i_edge.data.polygons import polygon_mask
from sam3i_edge.masks.outline import polygons

MASKS = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.booleans())


def drawn(*rows):
    return np.array([[letter == "#" for letter in row] for row in rows])


def area(ring):
    x, y = ring.T.astype(float)
    return abs((x * np.roll(y, -1) - y * np.roll(x, -1)).sum()) / 2


def filled(ring, shape):
    """By the pixels whose centres lie inside."""
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    inside = np.zeros(shape, bool)
    for (edge, y0), (_, y1) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
        if y0 != y1:  # a vertical edge
            inside ^= (min(y0, y1) < y) & (y < max(y0, y1)) & (x < edge)
    return inside


def test_a_rectangle_has_the_corners_of_its_box():
    mask = np.zeros((10, 12), bool)
    mask[2:5, 3:9] = True
    (polygon,) = polygons(mask)
    assert polygon.holes == ()
    assert polygon.exterior.dtype == np.float32
    assert {tuple(point) for point in polygon.exterior.tolist()} == {(3, 2), (9, 2), (9, 5), (3, 5)}
    assert len(polygon.exterior) == 4


def test_a_single_pixel_covers_its_square():
    (polygon,) = polygons(drawn("#"))
    assert {tuple(point) for point in polygon.exterior.tolist()} == {(0, 0), (1, 0), (1, 1), (0, 1)}


def test_a_hole_is_left_out_and_what_lies_in_it_is_another_part():
    ring, dot = polygons(drawn("#####", "#...#", "#.#.#", "#...#", "#####"))
    assert (area(ring.exterior), [area(hole) for hole in ring.holes]) == (25, [9])
    assert (area(dot.exterior), dot.holes) == (1, ())


def test_parts_that_touch_at_a_corner_are_two():
    assert [area(polygon.exterior) for polygon in polygons(drawn("##.", "..#"))] == [2, 1]


def test_nothing_has_no_polygon():
    assert polygons(np.zeros((5, 6), bool)) == ()


@settings(max_examples=300, deadline=None)
@given(MASKS)
def test_they_cover_just_the_mask(mask):
    found = polygons(mask)
    again = np.zeros(mask.shape, int)
    for polygon in found:
        part = filled(polygon.exterior, mask.shape)
        for hole in polygon.holes:
            inner = filled(hole, mask.shape)
            assert (part | ~inner).all(), "a hole lies in its part"
            part &= ~inner
        again += part
        assert area(polygon.exterior) - sum(map(area, polygon.holes)) == part.sum()
        for ring in (polygon.exterior, *polygon.holes):
            assert len({tuple(point) for point in ring.tolist()}) == len(ring), "no ring touches itself"
    np.testing.assert_array_equal(again, mask)


@settings(max_examples=100, deadline=None)
@given(MASKS)
def test_coco_draws_them_without_their_holes(mask):
    flat = [polygon.exterior.ravel().tolist() for polygon in polygons(mask)]
    want = mask.copy()
    for polygon in polygons(mask):
        for hole in polygon.holes:
            want |= filled(hole, mask.shape)
    np.testing.assert_array_equal(polygon_mask(flat, *mask.shape), want)


def test_shapely_takes_them_as_they_are():
    shapely = pytest.importorskip("shapely")
    mask = np.random.default_rng(0).random((40, 50)) < 0.6
    shapes = [shapely.Polygon(*polygon) for polygon in polygons(mask)]
    assert all(shape.is_valid for shape in shapes)
    assert sum(shape.area for shape in shapes) == mask.sum()
