from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from sam3i_edge.data.annotations import read_annotations, write_scenes
from sam3i_edge.data.sources import open_source
from sam3i_edge.data.vocabulary import load_vocabulary
from sam3i_edge.errors import DataError

SHAPES = load_vocabulary("shapes")
H, W = 12, 40
NUMBERS = {"star": 1, "shape": 2, "Ring": 3, "gear": 4}


def box(x: int) -> list[list[float]]:
    return [[x, 2, x + 5, 2, x + 5, 7, x, 7]]


def file(*records: tuple[str | None, list[str], list[tuple[str, int]]], **last: Any) -> dict[str, Any]:
    """A file of one picture from granularity, concept, and the targets' categories and places."""
    images, annotations = [], []
    for number, (granularity, concept, targets) in enumerate(records, start=1):
        said = {} if granularity is None else {"granularity": granularity}
        texts = {"concept": concept, "simple_query": ["find it"]}
        images.append(
            {"id": number, "file_name": "a.png", "width": W, "height": H, "text_inst_input": texts, **said}
        )
        annotations += [
            {"id": 100 * number + i, "image_id": number, "category_id": NUMBERS[name], "segmentation": box(x)}
            for i, (name, x) in enumerate(targets)
        ]
    if last:
        images[-1] |= last
    categories = [{"id": number, "name": name} for name, number in NUMBERS.items()]
    return {"images": images, "annotations": annotations, "categories": categories}


@pytest.fixture
def save(tmp_path: Path):
    (tmp_path / "images").mkdir()
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(tmp_path / "images" / name), np.zeros((H, W, 3), np.uint8))

    def written(content: object) -> Path:
        (tmp_path / "annotations.json").write_text(json.dumps(content))
        return tmp_path

    return written


def test_targets_of_all_records_are_the_objects(save) -> None:
    content = file(
        ("one", ["star"], [("star", 1)]),
        ("subset", ["shape"], [("shape", 1), ("shape", 10)]),
        ("all", ["Rings"], [("Ring", 20)]),
        ("none", ["heart"], []),
    )
    source = pickle.loads(pickle.dumps(open_source(save(content), SHAPES)))
    assert [r.image_id for r in source.records(0)] == [1, 2, 3, 4]
    scene = source.scene(0)
    assert [(o.category, o.box[0]) for o in scene.objects] == [("star", 1), ("shape", 10), ("ring", 20)]
    assert not scene.complete
    assert scene.listed == {"ring", "heart"}


@pytest.mark.parametrize(
    ("records", "listed"),
    [
        ([("all", ["star"], [("star", 1)])], {"star"}),
        ([("all", ["red stars"], [("star", 1)])], set()),
        ([("none", ["red star"], [])], set()),
        ([(None, ["star"], [("star", 1)])], set()),
        ([("one", ["star"], [("star", 1)])], set()),
        # Another record has a star that is not among all the stars.
        ([("all", ["star"], [("star", 1)]), ("one", ["star"], [("star", 10)])], set()),
        ([("all", ["star"], [("star", 1)]), ("all", ["star"], [("star", 1), ("star", 10)])], set()),
        ([("none", ["star"], []), ("one", ["star"], [("star", 10)])], set()),
        # One outline under two names.
        ([("all", ["star"], [("star", 1)]), ("one", ["ring"], [("Ring", 1)])], set()),
    ],
)
def test_listed_is_only_what_is_said_to_be_all(records: list[Any], listed: set[str], save) -> None:
    assert open_source(save(file(*records)), SHAPES).scene(0).listed == listed


def test_a_crowd_is_no_object(save) -> None:
    content = file(("all", ["star"], [("star", 1), ("star", 10)]))
    content["annotations"][1]["iscrowd"] = 1
    scene = open_source(save(content), SHAPES).scene(0)
    assert (len(scene.objects), scene.crowds, scene.listed) == (1, {"star"}, frozenset())


def test_drawn_records(tmp_path: Path) -> None:
    write_scenes(tmp_path / "drawn", 4, seed=1)
    source = open_source(tmp_path / "drawn", SHAPES)
    assert (len(source), source.notes) == (4, ())
    read = read_annotations(tmp_path / "drawn" / "annotations.json")
    assert [r for i in range(4) for r in source.records(i)] == read
    for number in range(4):
        scene = source.scene(number)
        masks = {m.tobytes() for r in source.records(number) for m in r.masks()}
        assert {o.mask.tobytes() for o in scene.objects} == masks
        assert all(o.category in (*SHAPES.categories, "shape") for o in scene.objects)
        assert scene.pixels().shape[:2] == scene.size


def test_unknown_categories_and_missing_pictures(save) -> None:
    content = file(("one", ["gear"], [("gear", 1)]), ("one", ["star"], [("star", 1)]), file_name="c.png")
    notes = [str(n) for n in open_source(save(content), SHAPES).notes]
    assert notes == [
        "pictures missing, left out: 1 (c.png)",
        "categories unknown to the vocabulary shapes, asked for by name alone: 1 (gear)",
    ]


def test_sizes_that_disagree(save) -> None:
    content = file(("one", ["star"], [("star", 1)]), ("one", ["star"], [("star", 1)]), width=W + 1)
    with pytest.raises(DataError, match=r"a.png is 12 x 40 and 12 x 41 \(height x width\) in its records"):
        open_source(save(content), SHAPES)


def test_an_image_without_texts_is_named(save) -> None:
    content = file(("one", ["star"], [("star", 1)]), ("one", ["star"], [("star", 1)]))
    del content["images"][1]["text_inst_input"]
    with pytest.raises(DataError, match="image 2: text_inst_input: Field required"):
        open_source(save(content), SHAPES)
    del content["images"][0]["text_inst_input"]
    content["images"][1]["text_inst_input"] = {}
    with pytest.raises(DataError, match="image 2: it has instructions, the first image has none"):
        open_source(save(content), SHAPES)
