from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from sam3i_edge.data.annotations import read_annotations, write_annotations
from sam3i_edge.data.sources import open_source
from sam3i_edge.data.sources.parquet import ParquetSource
from sam3i_edge.data.vocabulary import load_vocabulary
from sam3i_edge.errors import DataError, RuntimeUnavailable

COCO_WORDS = load_vocabulary("coco")
H, W = 20, 40


def box(x: int) -> list[float]:
    return [x, 2, x + 5, 2, x + 5, 7, x, 7]


def png(shade: int) -> bytes:
    return cv2.imencode(".png", np.full((H, W, 3), shade, np.uint8))[1].tobytes()


def question(x: int, picture: int, answer: list[str], **more: Any) -> dict[str, Any]:
    """A row with the picture's bytes inside and one polygon."""
    return {
        "question_id": f"q{x}", "image": {"bytes": png(picture), "path": None}, "answer": answer,
        "segmentation": box(x), "bbox": [x, 2, 5, 5], "iscrowd": 0,
        "file_name": f"COCO_train2014_{picture:012d}_{x}.jpg",
    } | more  # fmt: skip


INSIDE = [
    question(1, 36, ["left person", "left  person", "man"]),
    question(9, 49, ["dog"]),
    question(20, 36, ["right one"]),
]


def named(x: int, picture: int, category: int, split: str, outline: Any) -> dict[str, Any]:
    """A row with the picture's name, and COCO's annotation as text."""
    name = f"COCO_train2014_{picture:012d}.jpg"
    info = {"license": 1, "file_name": name, "height": H, "width": W, "id": picture}
    return {
        "ref_id": x, "ann_id": x, "image_id": picture, "category_id": category, "split": split,
        "sentences": [{"raw": "Man LEFT", "sent": f"man at {x}", "sent_id": 1, "tokens": ["man"]}],
        "file_name": f"COCO_train2014_{picture:012d}_{x}.jpg", "image_path": f"coco/train2014/{name}",
        "raw_anns": json.dumps({"segmentation": outline, "area": 1.0, "iscrowd": 0, "image_id": picture}),
        "raw_image_info": json.dumps(info),
    }  # fmt: skip


RUNS = {"size": [H, W], "counts": [42, 5, 15, 5, 20 * 40 - 67]}
NAMED = [
    named(1, 36, 1, "train", [box(1)]),
    named(2, 49, 18, "val", RUNS),
    named(3, 36, 90, "train", [box(1), box(9)]),
]


@pytest.fixture
def save(tmp_path: Path):
    def written(rows: list[dict[str, Any]], name: str = "val-00000-of-00001.parquet", group: int = 2) -> Path:
        parquet.write_table(pa.Table.from_pylist(rows), tmp_path / name, row_group_size=group)
        return tmp_path / name

    return written


def test_pictures_inside_the_table(save) -> None:
    source = pickle.loads(pickle.dumps(open_source(save(INSIDE), COCO_WORDS)))
    assert source.folder is None
    assert [source.file_name(i) for i in range(len(source))] == [
        "COCO_train2014_000000000036.jpg", "COCO_train2014_000000000049.jpg",
    ]  # fmt: skip
    for number, shade, places in ((1, 49, [9]), (0, 36, [1, 20])):
        scene = source.scene(number)
        assert scene.size == (H, W)
        assert (scene.pixels() == shade).all()
        assert [o.box for o in scene.objects] == [(x, 2, x + 5, 7) for x in places]
        assert {o.category for o in scene.objects} == {COCO_WORDS.mixed}
        assert (scene.complete, scene.listed, scene.crowds) == (False, frozenset(), frozenset())
    first, second = source.records(0)
    assert (first.simple, first.concept, first.granularity) == (["left person", "man"], [], "one")
    assert (first.width, first.height) == (W, H)
    np.testing.assert_array_equal(second.masks()[0], source.scene(0).objects[1].mask)


def test_pictures_by_name(save, tmp_path: Path) -> None:
    (tmp_path / "train2014").mkdir()
    for i in (36, 49):
        cv2.imwrite(
            str(tmp_path / "train2014" / f"COCO_train2014_{i:012d}.jpg"), np.full((H, W, 3), i, np.uint8)
        )
    path = save(NAMED)
    with pytest.raises(DataError, match="none of its 2 pictures is in"):
        open_source(path, COCO_WORDS)
    source = open_source(path, COCO_WORDS, images=tmp_path / "train2014")
    scene = source.scene(0)
    assert scene.image == tmp_path / "train2014" / "COCO_train2014_000000000036.jpg"
    assert [o.category for o in scene.objects] == ["person", "toothbrush"]
    assert scene.objects[1].mask.sum() == 50
    assert source.scene(1).objects[0].category == "dog"
    assert source.scene(1).objects[0].mask.sum() == 10
    assert source.records(1)[0].simple == ["man at 2"]
    only = open_source(path, COCO_WORDS, images=tmp_path / "train2014", split="val")
    assert [only.file_name(i) for i in range(len(only))] == ["COCO_train2014_000000000049.jpg"]


def test_a_folder_of_tables_and_their_splits(save, tmp_path: Path) -> None:
    save(INSIDE[:1], "train-00000-of-00002.parquet")
    save(INSIDE[1:], "testA-00001-of-00002.parquet")
    source = open_source(tmp_path, COCO_WORDS)
    assert len(source) == 2
    assert len(source.records(1)) == 2, "a picture's rows may lie in two files"
    assert (source.scene(1).pixels() == 36).all()
    assert len(open_source(tmp_path, COCO_WORDS, split="testA")) == 2
    assert len(open_source(tmp_path, COCO_WORDS, split="train")) == 1
    with pytest.raises(DataError, match="has no split 'val'; it has testA, train"):
        open_source(tmp_path, COCO_WORDS, split="val")


def test_all_records_make_one_annotation_file(save, tmp_path: Path) -> None:
    source = open_source(save(INSIDE), COCO_WORDS)
    records = [record for i in range(len(source)) for record in source.records(i)]
    write_annotations(tmp_path / "annotations.json", records)
    assert read_annotations(tmp_path / "annotations.json") == records


def test_a_table_without_names_numbers_its_pictures(save) -> None:
    rows = [{"image": row["image"]["bytes"], "captions": row["answer"], "segmentation": json.dumps([box(1)])}
            for row in INSIDE]  # fmt: skip
    source = open_source(save(rows), COCO_WORDS)
    assert [source.file_name(i) for i in range(len(source))] == ["1", "2", "3"]
    assert source.scene(2).objects[0].box == (1, 2, 6, 7)
    paths = [row | {"image": row["image"] | {"path": f"a/{i}.png"}} for i, row in enumerate(INSIDE)]
    for row in paths:
        del row["file_name"]
    source = open_source(save(paths), COCO_WORDS)
    assert source.file_name(2) == "a/2.png"


def test_only_the_groups_that_are_asked_for_are_read(save, monkeypatch) -> None:
    rows = [question(1, i, ["x"]) for i in range(10)]
    source = open_source(save(rows, group=2), COCO_WORDS)
    read: list[tuple[int, Any]] = []
    real = parquet.ParquetFile.read_row_group
    monkeypatch.setattr(
        parquet.ParquetFile, "read_row_group",
        lambda self, group, columns: (read.append((group, columns)), real(self, group, columns=columns))[1],
    )  # fmt: skip
    for number in (4, 5, 4):
        assert (source.scene(number).pixels() == number).all()
    assert read == [(2, ["image"])]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [{"image": png(1), "answer": ["a"]}],
            "has no column segmentation or raw_anns; it has image, answer",
        ),
        ([{"image": png(1), "segmentation": box(1)}], "has no column answer or captions or sentences"),
        ([{"answer": ["a"], "segmentation": box(1)}], "has no column image or image_path or file_name"),
        ([question(1, 1, [])], "row 1: "),
        ([question(1, 1, ["a"], segmentation=[1.0, 2.0, 3.0])], "row 1: segmentation"),
        ([question(1, 1, ["a"], segmentation=None)], "row 1: segmentation"),
        ([question(1, 1, ["a"], file_name="../a.jpg")], "row 1: "),
        ([question(1, 1, ["a"]), question(1, 1, ["a"]) | {"answer": None}], "row 2: "),
        ([NAMED[0] | {"raw_anns": "{"}], "row 1: "),
        ([NAMED[0] | {"image_path": None, "file_name": None}], "row 1: it names no picture"),
    ],
)
def test_bad_tables_are_refused_in_one_line(rows: list[dict[str, Any]], message: str, save) -> None:
    with pytest.raises(DataError) as refused:
        open_source(save(rows), COCO_WORDS)
    assert message in str(refused.value)
    assert ".parquet" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_picture_without_bytes(save) -> None:
    source = open_source(save([question(1, 1, ["a"], image={"bytes": None, "path": "a.png"})]), COCO_WORDS)
    with pytest.raises(DataError, match="row 1: its picture has no bytes"):
        source.scene(0)


def test_a_damaged_table(save) -> None:
    path = save(INSIDE)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match="is no Parquet file"):
        open_source(path, COCO_WORDS)


def test_pyarrow_is_asked_for(save, monkeypatch) -> None:
    path = save(INSIDE)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(RuntimeUnavailable, match=r"tables need pyarrow: pip install .*\[parquet\]"):
        ParquetSource(path, COCO_WORDS)
