from __future__ import annotations

import numpy as np
import pytest

from sam3i_edge.data.geometry import View
from sam3i_edge.data.scenes import DrawnScene, SceneObject


def view(
    *places: tuple[float, float], extents: tuple[float, ...] = (), shown: tuple[float, ...] = ()
) -> View:
    """Discs at (x, y) shares of a 200 x 100 picture; `shown` is the visible share of each box's height."""
    extents = extents or (20.0,) * len(places)
    shown = shown or (1.0,) * len(places)
    objects = []
    for (x, y), extent, share in zip(places, extents, shown, strict=True):
        center = (x * 200, y * 100)
        top, left = center[1] - extent / 2, center[0] - extent / 2
        objects.append(
            SceneObject(
                shape="circle",
                color="red",
                size="small",
                fill="plain",
                center=center,
                extent=extent,
                width=extent,
                height=extent,
                box=(round(left), round(top), round(left + extent), round(top + extent * share)),
                area=round(extent**2 * share),
            )
        )
    image = np.zeros((100, 200, 3), np.uint8)
    return View(
        DrawnScene(image=image, masks=np.zeros((len(places), 100, 200), np.bool_), objects=tuple(objects))
    )


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
    assert scene.nearest((1, 3), 0) == 1
    assert scene.nearest((1, 2, 3), 0) is None
    assert scene.nearest((1, 2, 3), 0, farthest=True) == 3
    assert scene.nearest((0,), 0) is None


def test_outermost_and_ordinal_need_a_lead() -> None:
    scene = view((0.1, 0.2), (0.3, 0.5), (0.33, 0.8), (0.7, 0.9))
    assert scene.outermost((0, 1, 2, 3), "left") == 0
    assert scene.outermost((1, 2, 3), "left") is None
    assert scene.outermost((0, 1, 2, 3), "bottom") == 3
    assert scene.ordinal((0, 1, 3), "left", 2) == 1
    assert scene.ordinal((0, 1, 2, 3), "left", 2) is None
    assert scene.ordinal((0, 1, 3), "right", 1) == 3
    assert scene.foremost((0, 1, 2, 3), "left", 3) == (0, 1, 2)
    assert scene.foremost((0, 1, 2, 3), "left", 2) is None
    assert scene.foremost((0, 1), "left", 2) is None


def test_superlatives_need_a_lead_that_shows() -> None:
    places = ((0.2, 0.5), (0.5, 0.5), (0.8, 0.5))
    assert view(*places, extents=(20, 40, 30)).superlative((0, 1, 2), "tall") == 1
    assert view(*places, extents=(20, 40, 30)).superlative((0, 1, 2), "big", least=True) == 0
    assert view(*places, extents=(20, 40, 37)).superlative((0, 1, 2), "tall") is None
    # The tallest is covered so far that it no longer looks the tallest.
    assert view(*places, extents=(20, 40, 30), shown=(1, 0.6, 1)).superlative((0, 1, 2), "tall") is None
    assert view(*places).superlative((), "big") is None


def test_comparisons_are_open_when_close() -> None:
    scene = view((0.2, 0.5), (0.5, 0.5), (0.8, 0.5), extents=(20, 40, 21))
    assert scene.exceeds(1, 0, "big") is True
    assert scene.exceeds(0, 1, "big") is False
    assert scene.exceeds(0, 1, "tall", less=True) is True
    assert scene.exceeds(2, 0, "wide") is None


def test_one_open_verdict_leaves_the_question_open() -> None:
    scene = view((0.1, 0.5), (0.9, 0.5), (0.51, 0.5))
    assert scene.select((0, 1), lambda i: scene.inside(i, "left")) == (0,)
    assert scene.select((0, 1, 2), lambda i: scene.inside(i, "left")) is None
