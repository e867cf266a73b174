"""Cycles shows what MuJoCo shows; runs in the environment of `make tabletop-cycles-test`, which has both."""

import numpy as np
import pytest
from catalogue import Catalogue
from scene_file import record
from setting import draw

pytest.importorskip("bpy", reason="Blender's module is only in the environment of Cycles")
SIZE = 128


@pytest.fixture(scope="module")
def both():
    from cycles_renderer import CyclesRenderer
    from mujoco_renderer import MujocoRenderer

    catalogue = Catalogue()
    fast = MujocoRenderer(catalogue, held_out=True, size=SIZE)
    good = CyclesRenderer(catalogue, held_out=True, size=SIZE, samples=4)
    yield catalogue, fast, good
    fast.close()
    good.close()


@pytest.mark.parametrize("seed", [0, 3, 5])
def test_both_renderers_show_the_same_scene(both, seed):
    catalogue, fast, good = both
    setting = draw(seed, catalogue, held_out=True)
    _, wanted, visible = fast.render(setting)
    picture, identities, share = good.render(setting)
    assert set(np.unique(identities)) <= {-1, *range(len(setting.objects))}
    assert (identities == wanted).mean() > 0.998
    assert (wanted >= 0).mean() > 0.02
    assert np.abs(share - visible).max() < 0.1
    assert picture.std() > 8
    assert 20 < picture.mean() < 235
    line = record(setting, identities, share, file="x.jpg", renderer="cycles", held_out=True)
    assert line is not None
    assert line["objects"]


def test_what_a_scene_shows_is_gone_in_the_next(both):
    catalogue, _, good = both
    one, other = (draw(seed, catalogue, held_out=True) for seed in (1, 2))
    first = good.render(one)[1]
    good.render(other)
    assert (good.render(one)[1] == first).all()


def test_named_colors_are_in_the_picture(both):
    catalogue, _, good = both
    found = 0
    for seed in range(60):
        setting = draw(seed, catalogue, held_out=True)
        wanted = [
            n
            for n, t in enumerate(setting.objects)
            if t.category in ("ball", "bowl", "book") and t.color in ("red", "blue")
        ]
        if not wanted:
            continue
        picture, identities, _ = good.render(setting)
        for n in wanted:
            pixels = picture[identities == n].astype(int)
            if len(pixels) < 60:
                continue
            r, _, b = np.median(pixels, axis=0)
            assert r > 1.3 * b if setting.objects[n].color == "red" else b > 1.15 * r, (seed, n, r, b)
            found += 1
        if found >= 3:
            return
    raise AssertionError("no plain red or blue thing in 60 scenes")


def test_a_picture_that_cannot_be_written_is_not_taken_from_the_scene_before(both):
    catalogue, _, good = both
    setting = draw(1, catalogue, held_out=True)
    good.render(setting)
    kept = good._scene.render.filepath
    good._scene.render.filepath = "/proc/none/picture.exr"
    with pytest.raises((OSError, RuntimeError), match=r"picture\.exr"):
        good.render(setting)
    good._scene.render.filepath = kept
    assert good.render(setting)[0].any()
