from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from sam3i_edge.data.scene import Scene, SceneObject
from sam3i_edge.data.scenes import draw_scene
from sam3i_edge.data.sources import open_source, write_scene_file
from sam3i_edge.data.sources.scene_file import SceneFileSource
from sam3i_edge.data.vocabulary import load_vocabulary
from sam3i_edge.errors import DataError
from sam3i_edge.masks import rle

TABLE = load_vocabulary("tabletop")
H, W = 20, 30


def block(x: int, y: int) -> np.ndarray:
    mask = np.zeros((H, W), bool)
    mask[y : y + 5, x : x + 6] = True
    return mask


def entry(category: str, x: int, y: int, **more: Any) -> dict[str, Any]:
    box = [x, y, x + 6, y + 5]
    known = {"category": category, "attributes": {"color": None}, "box": box, "center": [x + 3, y + 2.5]}
    return known | {"mask": rle.encode(block(x, y)), "depth": 1.5, "mesh": "mug-3"} | more


# A line as tabletop/scene_file.py writes it.
LINE: dict[str, Any] = {
    "file": "000000.png", "size": [H, W], "complete": True, "renderer": "mujoco", "seed": 0,
    "objects": [
        entry("mug", 1, 1, attributes={"color": "red", "pose": None}),
        entry("book", 10, 8),
        entry("cup", 20, 8),
    ],
    "relations": [[0, "on", 1], [1, "next to", 2], [2, "next to", 1]],
    "view": {"elevation": 30.0, "fov": 40.0, "distance": 1.0},
}  # fmt: skip


@pytest.fixture
def save(tmp_path: Path):
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images" / "000000.png"), np.zeros((H, W, 3), np.uint8))

    def written(*lines: object) -> Path:
        path = tmp_path / "scenes.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines or (LINE,)))
        return path

    return written


def equal(one: Scene, other: Scene) -> bool:
    keys = ("category", "attributes", "box", "center", "full_size", "visible", "depth")
    return (
        (one.size, one.complete, one.listed, one.crowds)
        == (other.size, other.complete, other.listed, other.crowds)
        and [[getattr(o, key) for key in keys] for o in one.objects]
        == [[getattr(o, key) for key in keys] for o in other.objects]
        and all(np.array_equal(a.mask, b.mask) for a, b in zip(one.objects, other.objects, strict=True))
        and all(
            verdict(one, name, s, o) == verdict(other, name, s, o)
            for name in {name for scene in (one, other) for obj in scene.objects for name in obj.relations}
            for s in range(len(one.objects))
            for o in range(len(one.objects))
            if s != o
        )
    )


def verdict(scene: Scene, name: str, subject: int, other: int) -> bool | None:
    """As `SceneObject.relations` is to be read."""
    relations = scene.objects[subject].relations
    return relations[name].get(other, False) if name in relations else None


@pytest.mark.parametrize("whole_folder", [True, False])
def test_a_rendered_line(whole_folder: bool, save, tmp_path: Path) -> None:
    path = save()
    source = open_source(tmp_path if whole_folder else path, TABLE)
    assert (len(source), source.file_name(0), source.notes) == (1, "000000.png", ())
    scene = pickle.loads(pickle.dumps(source)).scene(0)
    assert scene.complete
    assert scene.image == tmp_path / "images" / "000000.png"
    assert [o.category for o in scene.objects] == ["mug", "book", "cup"]
    assert scene.objects[0].attributes == {"color": "red", "pose": None}
    assert scene.objects[1].box == (10, 8, 16, 13)
    assert scene.objects[1].center == (13, 10.5)
    assert scene.objects[1].depth == 1.5
    assert scene.objects[1].full_size is None
    np.testing.assert_array_equal(scene.objects[2].mask, block(20, 8))


def test_relations_that_are_not_listed(save, tmp_path: Path) -> None:
    scene = open_source(save(), TABLE).scene(0)
    assert verdict(scene, "on", 0, 1) is True
    assert verdict(scene, "on", 2, 1) is False
    assert verdict(scene, "in", 0, 2) is False
    assert verdict(scene, "next to", 1, 2) is True
    assert verdict(scene, "next to", 0, 1) is None, "it is not said that it is judged for every pair"
    assert verdict(scene, "behind", 0, 1) is None
    judged = LINE | {"judged": ["next to"], "unsure": [[0, "next to", 1]]}
    scene = open_source(save(judged), TABLE).scene(0)
    assert verdict(scene, "next to", 0, 1) is None
    assert verdict(scene, "next to", 0, 2) is False
    assert verdict(scene, "next to", 2, 1) is True
    assert verdict(scene, "on", 0, 1) is True
    assert verdict(scene, "on", 2, 1) is None


def test_relations_have_one_order_in_every_process(save) -> None:
    """Names in a set have another order in each process, and with it other questions of the same number."""
    names = ["under", "near", "facing", "beside", "touching", "above"]
    told = LINE | {"relations": [[0, name, 1] for name in names]}
    relations = open_source(save(told), TABLE).scene(0).objects[0].relations
    assert list(relations) == ["on", "in", *sorted(names)]


def test_an_unknown_category_keeps_its_name(save) -> None:
    line = copy.deepcopy(LINE)
    line["objects"][1]["category"] = "Flux_capacitor"
    line["objects"][2]["category"] = "Mugs"
    source = open_source(save(line), TABLE)
    assert [o.category for o in source.scene(0).objects] == ["mug", "flux capacitor", "mug"]
    assert [str(note) for note in source.notes] == [
        "categories unknown to the vocabulary tabletop, asked for by name alone: 1 (flux capacitor)"
    ]


def test_listed_names_that_become_one(save) -> None:
    line = copy.deepcopy(LINE) | {"complete": False, "listed": ["mug", "book"], "crowds": ["kettle"]}
    line["objects"][2]["category"] = "Mugs"
    scene = open_source(save(line), TABLE).scene(0)
    assert scene.listed == {"book"}, "Mugs are not listed, and to the vocabulary they are mugs"
    assert scene.crowds == {"kettle"}


def test_drawn_and_made_scenes_come_back_as_they_were(tmp_path: Path) -> None:
    drawn = draw_scene(np.random.default_rng(3), (64, 80), objects=4)
    related = (
        {"on": {1: True, 2: None}, "left of": {1: True}}, {"on": {}}, {"on": {0: False, 1: True}},
    )  # fmt: skip
    second = tuple(
        SceneObject(category="star", attributes={}, box=(x, 2, x + 6, 7), center=(x + 3.0, 4.5),
                    mask=block(x, 2), visible=0.5, depth=float(x), relations=relations)
        for x, relations in zip((1, 9, 17), related, strict=True)
    )  # fmt: skip
    scenes = [
        drawn,
        Scene(image=np.full((H, W, 3), 9, np.uint8), size=(H, W), objects=second, complete=False,
              listed=frozenset({"star", "ring"}), crowds=frozenset({"arrow"})),
        Scene(image=np.zeros((H, W, 3), np.uint8), size=(H, W), objects=(), complete=True),
    ]  # fmt: skip
    assert write_scene_file(tmp_path / "out", iter(scenes)) == 3
    source = open_source(tmp_path / "out", load_vocabulary("shapes"))
    assert [source.file_name(i) for i in range(len(source))] == ["000000.png", "000001.png", "000002.png"]
    for number, scene in enumerate(scenes):
        found = source.scene(number)
        assert equal(found, scene)
        np.testing.assert_array_equal(found.pixels(), scene.pixels())
    assert verdict(source.scene(1), "left of", 1, 0) is None, "only the first object says anything of it"
    # And what was read is written again, in the same place.
    again = [source.scene(i) for i in range(3)]
    before = (tmp_path / "out" / "scenes.jsonl").read_text()
    write_scene_file(tmp_path / "out", again)
    assert (tmp_path / "out" / "scenes.jsonl").read_text() == before


def test_a_writer_that_stops_leaves_what_was_there(tmp_path: Path) -> None:
    scene = Scene(image=np.zeros((H, W, 3), np.uint8), size=(H, W), objects=(), complete=True)
    write_scene_file(tmp_path, [scene])

    def failing():
        yield scene
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_scene_file(tmp_path, failing())
    assert len(open_source(tmp_path, TABLE)) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["images", "scenes.jsonl"]


def test_what_cannot_be_written(tmp_path: Path) -> None:
    scene = Scene(image=np.zeros((H, W, 3), np.uint8), size=(H, W), objects=(), complete=True)
    with pytest.raises(DataError, match="a is the name of two pictures"):
        write_scene_file(tmp_path, [scene, scene], names=["a", "a"])
    wrong = Scene(image=np.zeros((H, W, 3), np.uint8), size=(W, H), objects=(), complete=True)
    with pytest.raises(DataError, match=r"its picture is \[20, 30, 3\], want \[30, 20, 3\]"):
        write_scene_file(tmp_path, [wrong])
    elsewhere = Scene(image=Path("/b/a.png"), size=(W, H), objects=(), complete=True)
    with pytest.raises(DataError, match=r"is not in .*images; copy it there"):
        write_scene_file(tmp_path, [elsewhere])


def test_missing_pictures_are_counted_and_named(save) -> None:
    lines = [LINE | {"file": f"00000{i}.png"} for i in range(5)]
    source = open_source(save(*lines), TABLE)
    assert len(source) == 1
    assert [str(n) for n in source.notes] == [
        "pictures missing, left out: 4 (000001.png, 000002.png, 000003.png, …)"
    ]


def test_what_has_to_be_whole_is_refused_otherwise(save) -> None:
    path = save(LINE, LINE | {"file": "000001.png"})
    with pytest.raises(
        DataError,
        match=r"images lacks 1 of the 2 pictures that scenes\.jsonl names, the first is 000001\.png",
    ):
        SceneFileSource(path, TABLE, whole=True)


def changed(**values: Any) -> dict[str, Any]:
    return copy.deepcopy(LINE) | values


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (changed(file="../a.png"), "line 2: file: must be a path inside the folder of images"),
        (changed(file="C:/a.png"), "line 2: file"),
        (changed(size=[H]), "line 2: size"),
        (changed(size=[W, H]), "line 2: objects[0].mask: its size is [20, 30], want [30, 20]"),
        (changed(relations=[[0, "on", 3]]), "line 2: relations: 0 and 3 must be two of the 3 objects"),
        (changed(relations=[[1, "on", 1]]), "line 2: relations: 1 and 1"),
        (changed(unsure=[[-1, "on", 1]]), "line 2: unsure[0][0]"),
        (changed(complete="perhaps"), "line 2: complete"),
        (changed(objects=[entry("", 1, 1)]), "line 2: objects[0]: category"),
        (changed(objects=[entry("mug", 1, 1, box=[0, 1, 2])]), "line 2: objects[0]: box"),
        (changed(objects=[entry("mug", 1, 1, depth=float("nan"))]), "line 2: objects[0]: depth"),
        (changed(), "000000.png is the picture of two lines"),
        ([], "line 2"),
    ],
)
def test_a_line_that_breaks_the_layout(line: object, message: str, save) -> None:
    with pytest.raises(DataError) as refused:
        open_source(save(LINE, line), TABLE)
    assert message in str(refused.value)
    assert "scenes.jsonl" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_cut_and_empty_files(save, tmp_path: Path) -> None:
    path = save()
    path.write_text(path.read_text()[:-30])
    with pytest.raises(DataError, match="line 1"):
        open_source(path, TABLE)
    path.write_text("")
    with pytest.raises(DataError, match="must be a JSON object"):
        open_source(path, TABLE)
    path.unlink()
    with pytest.raises(DataError, match=r"holds no scenes\.jsonl, annotations\.json or"):
        open_source(tmp_path, TABLE)
    with pytest.raises(DataError, match="No such file"):
        open_source(path, TABLE)


def test_an_empty_mask_is_named(save) -> None:
    nothing = {"size": [H, W], "counts": [H * W]}
    source = open_source(save(changed(objects=[entry("mug", 1, 1, mask=nothing)], relations=[])), TABLE)
    with pytest.raises(DataError, match=r"000000.png: objects\[0\]: its mask is empty"):
        source.scene(0)


def test_a_file_that_changes_is_noticed(save) -> None:
    path = save()
    source = open_source(path, TABLE)
    path.write_text(path.read_text()[:-30])
    with pytest.raises(DataError, match="has changed since it was opened"):
        source.scene(0)
