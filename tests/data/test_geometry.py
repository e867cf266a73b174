from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sam3i_edge.data.geometry import View
from sam3i_edge.data.scene import Scene, SceneObject


def view(
    *places: tuple[float, float],
    extents: tuple[float, ...] = (),
    shown: tuple[float, ...] = (),
    depths: tuple[float | None, ...] = (),
    whole: bool = True,
) -> View:
    """Squares at (x, y) shares of a 200 x 100 picture; `shown` is the visible share of each box's height."""
    extents = extents or (20.0,) * len(places)
    shown = shown or (1.0,) * len(places)
    objects = []
    depths = depths or (None,) * len(places)
    for (x, y), extent, share, depth in zip(places, extents, shown, depths, strict=True):
        center = (x * 200, y * 100)
        top, left = center[1] - extent / 2, center[0] - extent / 2
        box = (round(left), round(top), round(left + extent), round(top + extent * share))
        mask = np.zeros((100, 200), np.bool_)
        mask[max(box[1], 0) : box[3], max(box[0], 0) : box[2]] = True
        objects.append(
            SceneObject(
                category="square",
                attributes={},
                center=center,
                box=box,
                mask=mask,
                depth=depth,
                full_size=(extent, extent) if whole else None,
            )
        )
    image = np.zeros((100, 200, 3), np.uint8)
    return View(Scene(image=image, size=(100, 200), objects=tuple(objects), complete=True))


@pytest.mark.parametrize(
    ("side", "answer"), [("left", True), ("right", False), ("above", None), ("below", None)]
)
def test_beside_needs_a_clear_gap(side: str, answer: bool | None) -> None:
    assert view((0.3, 0.5), (0.5, 0.54)).beside(0, side, 1) is answer


@pytest.mark.parametrize(
    ("x", "y", "region", "answer"),
    [
        (0.3, 0.5, "left", True),
        (0.7, 0.5, "left", False),
        (0.52, 0.5, "left", None),
        (0.5, 0.2, "top", True),
        (0.5, 0.8, "bottom", True),
        (0.2, 0.2, "top left", True),
        (0.2, 0.7, "top left", False),
        (0.45, 0.2, "top left", None),
        (0.5, 0.5, "center", True),
        (0.5, 0.9, "center", False),
        (0.5, 0.7, "center", None),
    ],
)
def test_regions(x: float, y: float, region: str, answer: bool | None) -> None:
    assert view((x, y)).inside(0, region) is answer


def test_between_means_near_the_line() -> None:
    ends = ((0.1, 0.5), (0.9, 0.5))
    assert view(*ends, (0.5, 0.55)).between(2, 0, 1) is True
    assert view(*ends, (0.98, 0.5)).between(2, 0, 1) is False
    assert view(*ends, (0.5, 0.95)).between(2, 0, 1) is None
    assert view((0.5, 0.1), (0.5, 0.9), (0.9, 0.5)).between(2, 0, 1) is False


def test_nearest_and_farthest_need_a_lead() -> None:
    scene = view((0.5, 0.5), (0.6, 0.5), (0.615, 0.5), (0.9, 0.5))
    assert scene.nearest((1, 3), 0) == (1,)
    assert scene.nearest((1, 2, 3), 0) is None
    assert scene.nearest((1, 2, 3), 0, farthest=True) == (3,)
    assert scene.nearest((0,), 0) is None


def test_outermost_and_ordinal_need_a_lead() -> None:
    scene = view((0.1, 0.2), (0.3, 0.5), (0.33, 0.8), (0.7, 0.9))
    assert scene.foremost((0, 1, 2, 3), "left") == (0,)
    assert scene.foremost((1, 2, 3), "left") is None
    assert scene.foremost((0, 1, 2, 3), "bottom") == (3,)
    assert scene.foremost((2,), "bottom") == (2,)
    assert scene.ordinal((0, 1, 3), "left", 2) == (1,)
    assert scene.ordinal((0, 1, 3), "left", 4) is None
    assert scene.ordinal((0, 1, 2, 3), "left", 2) is None
    assert scene.ordinal((0, 1, 3), "right", 1) == (3,)
    assert scene.foremost((0, 1, 2, 3), "left", 3) == (0, 1, 2)
    assert scene.foremost((0, 1, 2, 3), "left", 2) is None
    assert scene.foremost((0, 1), "left", 2) is None


def test_superlatives_need_a_lead_that_shows() -> None:
    places = ((0.2, 0.5), (0.5, 0.5), (0.8, 0.5))
    assert view(*places, extents=(20, 40, 30)).superlative((0, 1, 2), "tall") == (1,)
    assert view(*places, extents=(20, 40, 30)).superlative((0, 1, 2), "big", least=True) == (0,)
    assert view(*places, extents=(20, 40, 37)).superlative((0, 1, 2), "tall") is None
    # The tallest is covered so far that it no longer looks the tallest.
    assert view(*places, extents=(20, 40, 30), shown=(1, 0.6, 1)).superlative((0, 1, 2), "tall") is None
    assert view(*places).superlative((0,), "big") == (0,)


def test_on_photographs_the_apparent_size_must_be_clear_in_every_measure() -> None:
    places = ((0.2, 0.5), (0.7, 0.5))
    # The longer side leads by a quarter, but half of it is hidden: as many pixels.
    sizes, shown = (40.0, 32.0), (0.64, 1.0)
    assert view(*places, extents=sizes, shown=shown, whole=False).exceeds(0, 1, "big") is None
    assert view(*places, extents=sizes, whole=False).exceeds(0, 1, "big") is True
    # What looks larger because it is nearer is neither larger nor smaller.
    assert view(*places, extents=sizes, depths=(1.0, 1.2)).exceeds(0, 1, "big") is None
    assert view(*places, extents=sizes, depths=(1.0, 0.9)).exceeds(0, 1, "big") is True
    assert view(*places, extents=sizes, depths=(1.0, 0.9)).exceeds(1, 0, "big") is False
    pair = view(*places, extents=sizes, whole=False).scene
    kinds = replace(pair, objects=(replace(pair.objects[0], category="book"), pair.objects[1]))
    assert View(kinds).exceeds(0, 1, "big") is None
    # Nobody sees how big a thing is that is half hidden.
    seen = view(*places, extents=sizes, whole=False).scene
    half = replace(seen, objects=(replace(seen.objects[0], visible=0.7), seen.objects[1]))
    assert View(half).exceeds(0, 1, "big") is None
    whole = replace(half, objects=(replace(half.objects[0], full_size=(40.0, 40.0)), seen.objects[1]))
    assert View(whole).exceeds(0, 1, "big") is True


def test_depth_decides_what_is_nearest() -> None:
    places = ((0.5, 0.5), (0.6, 0.5), (0.8, 0.5))
    assert view(*places).nearest((1, 2), 0) == (1,)
    # The first of them lies beside it in the picture, and far behind it on the table.
    assert view(*places, depths=(1.0, 1.9, 1.0)).nearest((1, 2), 0) is None
    assert view(*places, depths=(1.0, 1.0, 1.0)).nearest((1, 2), 0) == (1,)
    assert view(*places, depths=(1.0, 1.9, 1.0)).nearest_to_camera((0, 1)) == (0,)
    assert view(*places, depths=(1.0, 1.9, 1.0)).nearest_to_camera((0, 1), farthest=True) == (1,)
    assert view(*places, depths=(1.0, 1.05, 1.9)).nearest_to_camera((0, 1, 2)) is None
    assert view(*places, depths=(1.0, None, 1.9)).nearest_to_camera((0, 1, 2)) is None
    ends = ((0.1, 0.5), (0.9, 0.5), (0.5, 0.55))
    assert view(*ends, depths=(1.0, 1.2, 1.1)).between(2, 0, 1) is True
    assert view(*ends, depths=(1.0, 1.2, 1.6)).between(2, 0, 1) is None


def test_comparisons_are_open_when_close() -> None:
    scene = view((0.2, 0.5), (0.5, 0.5), (0.8, 0.5), extents=(20, 40, 21))
    assert scene.exceeds(1, 0, "big") is True
    assert scene.exceeds(0, 1, "big") is False
    assert scene.exceeds(0, 1, "tall", less=True) is True
    assert scene.exceeds(2, 0, "wide") is None
