from __future__ import annotations

import json
import pickle

import numpy as np
import pytest

from sam3i_edge.data.sources.scene_file import SceneFileSource
from sam3i_edge.data.vocabulary import load_vocabulary
from sam3i_edge.errors import DataError

SHAPES = load_vocabulary("shapes")


@pytest.fixture
def folder(tmp_path, write_scene_folder):
    return write_scene_folder(tmp_path / "scenes", 3)


def change(folder, place, value):
    """Line 2 with another value at a place."""
    lines = (folder / "scenes.jsonl").read_text().splitlines()
    picture = entry = json.loads(lines[1])
    for key in place[:-1]:
        entry = entry[key]
    entry[place[-1]] = value
    lines[1] = json.dumps(picture)
    (folder / "scenes.jsonl").write_text("\n".join(lines))  # without the last line's end
    return folder


def test_a_scene_is_what_its_line_says(folder):
    file = pickle.loads(pickle.dumps(SceneFileSource(folder, SHAPES)))
    line = json.loads((folder / "scenes.jsonl").read_text().splitlines()[1])
    scene = file.scene(1)
    assert (len(file), file.names[1], scene.size, scene.complete) == (3, "001.png", (96, 128), True)
    assert scene.pixels().shape == (96, 128, 3)
    for item, wanted in zip(scene.objects, line["objects"], strict=True):
        assert (item.category, item.attributes) == (wanted["category"], wanted["attributes"])
        assert (list(item.box), list(item.center)) == (wanted["box"], wanted["center"])
        rows, columns = np.nonzero(item.mask)
        box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert box == wanted["box"]
        assert item.depth == wanted["depth"]


def test_on_and_in_are_known_of_every_pair_and_other_relations_are_open(folder):
    change(folder, ["relations"], [[0, "on", 1], [1, "behind", 2]])
    first, second, third, *_ = SceneFileSource(folder, SHAPES).scene(1).objects
    assert first.relations["on"] == {1: True}
    assert first.relations["in"] == {}
    assert second.relations["behind"] == {0: None, 2: True, 3: None}
    assert third.relations["behind"] == {0: None, 1: None, 3: None}
    assert "next to" not in first.relations


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (["size"], [96, "x"], r"scenes\.jsonl: line 2: size\[1\]: must be a valid integer"),
        (["file"], "../a.png", r"line 2: file: must be a path inside the folder of images, got '../a.png'"),
        (
            ["file"],
            "no.png",
            r"images lacks 1 of the 3 pictures that scenes\.jsonl names, the first is no\.png",
        ),
        (["objects", 0, "center"], [1.0], r"line 2: objects\[0\]\.center"),
        (["relations"], [[0, "on", 9]], r"line 2: relations: \[0, 'on', 9\] names an object beyond the 4"),
        (["relations"], [[-1, "on", 0]], r"line 2: relations: \[-1, 'on', 0\] names"),
    ],
)
def test_a_wrong_line_is_named(folder, place, value, message):
    with pytest.raises(DataError, match=message):
        SceneFileSource(change(folder, place, value), SHAPES)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ({"size": [2, 2], "counts": [1, 3]}, r"line 2: objects\[1\]\.mask is 2 x 2, 3 set; want 96 x 128"),
        ({"size": [96, 128], "counts": [96 * 128]}, "is 96 x 128, 0 set; want 96 x 128 with at least one"),
        ({"size": [96, 128], "counts": [5]}, "mask: counts cover 5 pixels"),
    ],
)
def test_a_wrong_mask_is_named_when_it_is_read(folder, mask, message):
    file = SceneFileSource(change(folder, ["objects", 1, "mask"], mask), SHAPES)
    with pytest.raises(DataError, match=message):
        file.scene(1)


def test_a_missing_or_empty_file(tmp_path):
    with pytest.raises(DataError, match=r"scenes\.jsonl: No such file.*name a folder with scenes\.jsonl and"):
        SceneFileSource(tmp_path, SHAPES)
    (tmp_path / "scenes.jsonl").touch()
    with pytest.raises(DataError, match=r"scenes\.jsonl is empty"):
        SceneFileSource(tmp_path, SHAPES)
