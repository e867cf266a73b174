from __future__ import annotations

import hashlib

import numpy as np
import pytest

from sam3i_edge.data.palette import COLORS, FILLS, distance, named_color
from sam3i_edge.data.placement import Wish, plan
from sam3i_edge.data.scene import Scene, SceneObject
from sam3i_edge.data.scenes import LARGE, MIN_VISIBLE, SIZES, SMALL, draw_scene
from sam3i_edge.data.shapes import SHAPES, outline, rotated
from sam3i_edge.data.stamp import Cutout, Stamp

SCENES = [draw_scene(np.random.default_rng(seed)) for seed in range(120)]


# SHA-256 (first half) of picture and packed masks, as version 0.1.0 drew them.
PICTURES = {
    0: "1161e74c37b87d70a7aaba58a08d4869",
    1: "aa5d3fba8d8e3fa2a0997046a2bdd032",
    2: "e3d8677de88e3e97d74bc5f5513d12f1",
    17: "c1274b5cd3b3d6784172159c678dc14e",
    42: "89abac403073d47cd9ade73f5ed1a64e",
    100: "1a6efe188ce2e2492246e078d57e1bfb",
}


def vars_of(item: SceneObject) -> tuple[object, ...]:
    return item.category, item.attributes, item.box, item.center, item.full_size


def test_a_seed_draws_what_it_always_drew() -> None:
    drawn = {seed: draw_scene(np.random.default_rng(seed)) for seed in PICTURES if seed < 100}
    drawn[100] = draw_scene(np.random.default_rng(100), (320, 448), objects=8)
    for seed, scene in drawn.items():
        found = hashlib.sha256(scene.pixels().tobytes() + np.packbits(scene.masks).tobytes())
        assert found.hexdigest()[:32] == PICTURES[seed], seed


def test_the_same_seed_draws_the_same_scene() -> None:
    for seed in range(6):
        first, second = (draw_scene(np.random.default_rng(seed)) for _ in range(2))
        assert np.array_equal(first.image, second.image)
        assert np.array_equal(first.masks, second.masks)
        assert [vars_of(item) for item in first.objects] == [vars_of(item) for item in second.objects]
    assert not np.array_equal(SCENES[0].image[:50, :50], SCENES[1].image[:50, :50])


def test_images_and_masks_belong_together() -> None:
    for scene in SCENES:
        height, width = scene.image.shape[:2]
        assert scene.image.dtype == np.uint8
        assert scene.image.shape[2] == 3
        assert scene.masks.dtype == np.bool_
        assert scene.masks.shape == (len(scene.objects), height, width)
        assert scene.masks.sum(axis=0).max() <= 1, "visible parts overlap"
        assert len(scene.objects) >= 1


def test_boxes_and_areas_are_those_of_the_masks() -> None:
    for scene in SCENES:
        for mask, item in zip(scene.masks, scene.objects, strict=True):
            rows, columns = np.nonzero(mask)
            assert item.box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            x0, y0, x1, y1 = item.box
            assert item.full_size is not None
            assert x1 - x0 <= item.full_size[0] + 2
            assert y1 - y0 <= item.full_size[1] + 2


def test_sizes_leave_a_gap() -> None:
    shares: dict[str, list[float]] = {size: [] for size in SIZES}
    for scene in SCENES:
        for item in scene.objects:
            if item.category in ("circle", "ring"):  # of these rotation does not change the box
                assert item.full_size is not None
                shares[item.attributes["size"]].append(max(item.full_size) / min(scene.size))
    pixel = 1 / 160
    assert SMALL[0] - pixel <= min(shares["small"]) < max(shares["small"]) <= SMALL[1] + pixel
    assert LARGE[0] - pixel <= min(shares["large"]) < max(shares["large"]) <= LARGE[1] + pixel
    assert LARGE[0] > 1.3 * SMALL[1]


def test_everything_occurs() -> None:
    objects = [item for scene in SCENES for item in scene.objects]
    assert {item.category for item in objects} == set(SHAPES)
    assert {item.attributes["color"] for item in objects} == set(COLORS)
    assert {item.attributes["fill"] for item in objects} == set(FILLS)
    assert {item.attributes["size"] for item in objects} == set(SIZES)
    counts = [len(scene.objects) for scene in SCENES]
    assert min(counts) == 1
    assert max(counts) >= 8
    aspects = [scene.image.shape[1] / scene.image.shape[0] for scene in SCENES]
    assert min(aspects) < 0.75
    assert max(aspects) > 1.5


def test_no_object_is_hidden_too_much() -> None:
    occluded = 0
    for seed in range(90):
        scene = draw_scene(np.random.default_rng(seed), (100, 100), objects=14)
        for item in scene.objects:
            assert item.full_size is not None
            reach = max(item.full_size) / 2
            x, y = item.center
            whole = min(x, y, 100 - x, 100 - y) > reach  # the canvas's edge cuts nothing
            if item.category == "circle" and whole:  # of a circle the full area is known
                share = np.count_nonzero(item.mask) / (np.pi * reach**2)
                assert share > MIN_VISIBLE - 0.05
                occluded += share < 0.8
    assert occluded, "no scene tests occlusion"


def test_stripes_of_the_background_get_a_contour() -> None:
    """Else they would cut the object to pieces."""
    rng = np.random.default_rng(0)
    black = np.zeros(3, np.float32)
    wish = Wish("circle", "white", "large", "striped")
    cutout = Cutout.of(
        [contour * 20.0 for contour in outline("circle", rng)], 20.0, rng
    )  # few pixels: dark stripes
    stamp = Stamp.put(cutout, 80, 80, 160, 160)
    assert stamp is not None
    for seed in range(40):
        rng = np.random.default_rng(seed)
        look = plan(160, 160, rng).look(stamp, wish, np.full(3, 255, np.float32), black, False, rng)
        assert look.mark is not None
        assert look.edge is not None or distance(look.mark, black) >= 45
        assert look.edge is None or distance(look.edge, black) > 60


def test_most_of_a_plain_mask_has_the_named_color() -> None:
    """Of the flat, undegraded drawings at least; shading and JPEG may move single pixels."""
    rng = np.random.default_rng(0)
    called = {name: [named_color(name, rng) for _ in range(40)] for name in COLORS}
    wrong = plain = 0
    for scene in SCENES:
        for mask, item in zip(scene.masks, scene.objects, strict=True):
            if item.attributes["fill"] != "plain":
                continue
            seen = np.median(scene.image[mask], axis=0).astype(np.float32)
            gaps = {name: min(distance(seen, c) for c in colors) for name, colors in called.items()}
            plain += 1
            wrong += min(gaps, key=gaps.__getitem__) != item.attributes["color"]
    assert plain > 250
    assert wrong <= 0.01 * plain


def test_a_stamp_covers_what_its_outline_encloses() -> None:
    rng = np.random.default_rng(3)
    for shape in SHAPES:
        extent = 80.0
        contours = [contour * extent for contour in rotated(outline(shape, rng), 30.0)]
        area = sum(sign * _area(contour) for contour, sign in zip(contours, (1, -1), strict=False))
        assert Cutout.of(contours, extent, rng).full_area == pytest.approx(area, rel=0.03)
        assert np.allclose(_centroid(contours[0]), 0, atol=1e-6)


def _area(contour: np.ndarray) -> float:
    x, y = contour.T
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2


def _centroid(contour: np.ndarray) -> np.ndarray:
    fan = np.stack([np.broadcast_to(contour[0], contour.shape), contour, np.roll(contour, -1, axis=0)])
    (ax, ay), (bx, by) = (fan[1] - fan[0]).T, (fan[2] - fan[0]).T
    weights = ax * by - ay * bx
    return (fan.mean(axis=0) * weights[:, None]).sum(axis=0) / weights.sum()


def test_outlines_are_one_unit_long() -> None:
    rng = np.random.default_rng(4)
    for shape in SHAPES:
        for _ in range(10):
            outer = outline(shape, rng)[0]
            assert np.ptp(outer, axis=0).max() == pytest.approx(1.0)


def test_wishes_are_checked() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="at least 64 px each, got \\(63, 200\\)"):
        draw_scene(rng, (63, 200))
    with pytest.raises(ValueError, match="objects must be 1 to 16, got 0"):
        draw_scene(rng, objects=0)
    assert draw_scene(rng, (64, 300), objects=16).image.shape == (64, 300, 3)


def test_a_scene_without_objects_has_masks_of_none() -> None:
    empty = Scene(image=np.zeros((4, 6, 3), np.uint8), size=(4, 6), objects=(), complete=True)
    assert empty.masks.shape == (0, 4, 6)
    assert empty.masks.dtype == np.bool_
