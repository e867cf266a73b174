from __future__ import annotations

import pickle
from dataclasses import replace

import cv2
import numpy as np
import pytest

from sam3i_edge.data.palette import COLORS
from sam3i_edge.data.pixel_color import pixel_color, with_pixel_colors
from sam3i_edge.data.scene import Scene, SceneObject
from sam3i_edge.data.scenes import draw_scene
from sam3i_edge.data.sources import open_source, write_scene_file
from sam3i_edge.data.vocabulary import load_vocabulary

TABLE = load_vocabulary("tabletop")
SURE = {
    "red": (190, 25, 30), "orange": (250, 140, 20), "yellow": (245, 220, 40), "green": (40, 130, 55),
    "blue": (30, 70, 190), "purple": (120, 50, 160), "pink": (245, 140, 180), "brown": (100, 62, 32),
    "black": (18, 18, 20), "white": (250, 250, 249),
}  # fmt: skip
PURE = {
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "black": (0, 0, 0),
}


def picture(*parts: tuple[tuple[int, int, int], float], noise: float = 2) -> tuple[np.ndarray, np.ndarray]:
    """A disk in stripes of these colours and shares, on grey."""
    mask = np.zeros((80, 80), bool)
    yy, xx = np.mgrid[:80, :80]
    mask[(yy - 40) ** 2 + (xx - 40) ** 2 < 30**2] = True
    image = np.full((80, 80, 3), 128, np.float32)
    places = np.argwhere(mask)
    start = 0.0
    for color, share in parts:
        some = places[int(start * len(places)) : int((start + share) * len(places) + 0.5)]
        image[some[:, 0], some[:, 1]] = color
        start += share
    image += np.random.default_rng(0).normal(0, noise, image.shape)
    return np.clip(image, 0, 255).astype(np.uint8), mask


@pytest.mark.parametrize(("name", "rgb"), [*SURE.items(), *PURE.items(), ("purple", (128, 0, 128))])
def test_a_plain_colour_has_its_name(name: str, rgb: tuple[int, int, int]) -> None:
    assert pixel_color(*picture((rgb, 1))) == name


@pytest.mark.parametrize("name", [name for name in SURE if name not in ("black", "white", "brown")])
def test_shading_and_highlights_do_not_change_a_name(name: str) -> None:
    image, mask = picture((SURE[name], 1), noise=0)
    linear = (image / 255.0) ** 2.2
    falloff = np.linspace(1, 0.35, 80)[:, None, None]
    shaded = (255 * (linear * falloff) ** (1 / 2.2)).astype(np.uint8)
    shaded[25:33, 30:42] = 252
    assert pixel_color(shaded, mask) == name


@pytest.mark.parametrize(
    "parts",
    [
        [(SURE["red"], 0.5), (SURE["blue"], 0.5)],
        [(SURE["red"], 0.4), (SURE["white"], 0.6)],
        [(SURE["black"], 0.5), (SURE["white"], 0.5)],
        [((128, 128, 128), 1)],  # grey, or white in the shadow
        [((70, 200, 200), 1)],  # between green and blue
        [((215, 70, 20), 1)],  # between red and orange
        [((128, 128, 0), 1)],  # olive
        [((139, 69, 19), 1)],  # between orange and brown
        [((225, 190, 150), 1)],  # skin and wood
        [((120, 110, 95), 1)],
    ],
)
def test_what_is_not_clear_has_none(parts) -> None:
    assert pixel_color(*picture(*parts)) is None


def test_few_pixels_have_none() -> None:
    image, mask = picture((SURE["red"], 1))
    small = np.zeros_like(mask)
    small[36:45, 36:45] = True  # 49 without the border
    assert pixel_color(image, small) is None
    small[36:46, 36:46] = True
    assert pixel_color(image, small) == "red"
    assert pixel_color(image, np.zeros_like(mask)) is None


def test_drawn_scenes() -> None:
    """The names that pixels give are those that the shapes were drawn by; the docs have the figures."""
    answers: dict[str, list[bool]] = {color: [] for color in COLORS}
    for number in range(120):
        scene = draw_scene(np.random.default_rng((9, number)))
        for item in scene.objects:
            found = pixel_color(scene.pixels(), item.mask)
            if found is not None:
                answers[item.attributes["color"]].append(found == item.attributes["color"])
    assert all(len(found) >= 10 for found in answers.values())
    every = [right for found in answers.values() for right in found]
    assert np.mean(every) >= 0.97


def thing(mask: np.ndarray, **attributes: str | None) -> SceneObject:
    return SceneObject(
        category="mug", attributes=attributes, box=(10, 10, 70, 70), center=(40, 40), mask=mask
    )


def test_only_what_the_source_says_nothing_of_is_filled_in() -> None:
    image, mask = picture((SURE["pink"], 1))
    unclear = np.zeros_like(mask)
    unclear[:4, :4] = True
    objects = (thing(mask), thing(mask, color=None), thing(mask, color="blue"), thing(unclear, pose="lying"))
    scene = Scene(image=image, size=(80, 80), objects=objects, complete=True)
    colored = with_pixel_colors(scene, TABLE)
    assert [o.attributes for o in colored.objects] == [
        {"color": "pink"}, {"color": None}, {"color": "blue"}, {"pose": "lying", "color": None},
    ]  # fmt: skip
    shapes = with_pixel_colors(scene, load_vocabulary("shapes"))
    assert shapes.objects[0].attributes == {"color": None}, "shapes are never pink, so it cannot be said"
    colored = with_pixel_colors(replace(scene, objects=objects[1:3]), TABLE)
    assert colored.objects == objects[1:3]


def test_a_source_with_colours(tmp_path) -> None:
    image, mask = picture((SURE["green"], 1))
    write_scene_file(tmp_path, [Scene(image=image, size=(80, 80), objects=(thing(mask),), complete=True)])
    assert open_source(tmp_path, TABLE).scene(0).objects[0].attributes == {}
    source = pickle.loads(pickle.dumps(open_source(tmp_path, TABLE, pixel_colors=True)))
    assert source.scene(0).objects[0].attributes == {"color": "green"}
    assert (len(source), source.file_name(0), source.records(0), source.notes) == (1, "000000.png", (), ())
    assert source.folder == tmp_path / "images"
    cv2.imwrite(str(tmp_path / "images" / "000000.png"), np.full_like(image, 128))
    assert source.scene(0).objects[0].attributes == {"color": None}
