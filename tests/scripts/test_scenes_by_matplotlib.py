"""The script that draws shapes by another program."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest


@pytest.fixture
def script(monkeypatch):
    pytest.importorskip("matplotlib", reason="needs the extra 'bench'")
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "scripts"))
    import scenes_by_matplotlib

    return scenes_by_matplotlib


def test_masks_lie_where_the_colours_are(script):
    from matplotlib.colors import to_rgb

    plain = 0
    for drawn in script.scenes(12, 7, ours=False):
        assert drawn.masks.sum(axis=0).max() == 1
        for thing in drawn.objects:
            if thing.attributes["fill"] == "plain":
                shown = np.median(drawn.image[thing.mask], axis=0)
                shades = np.array([to_rgb(name) for name in script.called(thing.attributes["color"])]) * 255
                assert np.abs(shades - shown).max(axis=1).min() < 2
                plain += 1
    assert plain > 20


def test_the_same_seed_is_the_same_scene(script):
    one, two = (next(script.scenes(1, 3, ours=False)) for _ in range(2))
    assert np.array_equal(one.image, two.image)
    assert [thing.box for thing in one.objects] == [thing.box for thing in two.objects]


def test_every_shape_is_filled_as_it_is_called(script):
    on_a_hundred = script.Affine2D().scale(90).translate(50, 50)
    for shape in script.SHAPES:
        path = on_a_hundred.transform_path(script.outline(shape))
        assert max(path.get_extents().size) == pytest.approx(90)
        inside = script.covered(path, 100, 100)
        assert 0.15 < inside.mean() < 0.85, shape
        assert inside[50, 50] == (shape not in ("ring", "crescent"))
