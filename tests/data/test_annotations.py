from __future__ import annotations

import copy
import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from sam3i_edge import files
from sam3i_edge.data.annotations import read_annotations, write_annotations, write_scenes
from sam3i_edge.errors import DataError
from sam3i_edge.masks import rle

MASK = np.zeros((4, 6), np.bool_)
MASK[1:3, 2:5] = True

FILE = {  # as HMPL-Instruct and RefCOCO lay it out: one picture under two ids, no granularity
    "images": [
        {
            "id": 7,
            "file_name": "000000000042.jpg",
            "width": 6,
            "height": 4,
            "text_inst_input": {
                "concept": ["dog"],
                "simple_query": ["the dog on the left", "left dog"],
                "complex_query": ["what barks"],
            },
        },
        {
            "id": 8,
            "file_name": "000000000042.jpg",
            "width": 6,
            "height": 4,
            "text_inst_input": {"simple_query": "both dogs"},
        },
    ],
    "annotations": [
        {
            "id": 1,
            "image_id": 7,
            "category_id": 18,
            "bbox": [2, 1, 3, 2],
            "area": 6.0,
            "iscrowd": 0,
            "segmentation": [[2.0, 1.0, 5.0, 1.0, 5.0, 3.0, 2.0, 3.0]],
        },
        {"id": 2, "image_id": 8, "segmentation": {"size": [4, 6], "counts": rle.counts_of(MASK).tolist()}},
        {"id": 3, "image_id": 8, "segmentation": rle.encode(~MASK)},
    ],
    "categories": [{"id": 18, "name": "dog", "supercategory": "animal"}],
}


@pytest.fixture
def save(tmp_path: Path):
    def written(content: object) -> Path:
        path = tmp_path / "data.json"
        path.write_text(json.dumps(content))
        return path

    return written


def test_foreign_files_load(save) -> None:
    first, second = read_annotations(save(FILE))
    assert (first.image_id, first.file_name, first.width, first.height) == (7, "000000000042.jpg", 6, 4)
    assert first.concept == ["dog"]
    assert first.simple == ["the dog on the left", "left dog"]
    assert first.complex == ["what barks"]
    assert first.granularity is None
    assert first.annotations[0].category == "dog"
    assert first.annotations[0].bbox == (2, 1, 3, 2)
    assert np.array_equal(first.masks(), MASK[None])
    assert second.file_name == first.file_name
    assert (second.concept, second.simple, second.complex) == ([], ["both dogs"], [])
    assert second.annotations[0].bbox is None
    assert np.array_equal(second.masks(), np.stack([MASK, ~MASK]))


def test_what_is_written_reads_back(save, tmp_path: Path) -> None:
    records = read_annotations(save(FILE))
    write_annotations(tmp_path / "again.json", records)
    assert read_annotations(tmp_path / "again.json") == records
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again.json", "data.json"]


def test_a_file_without_annotations_is_all_none(save) -> None:
    content = {"images": FILE["images"][:1], "annotations": []}
    (record,) = read_annotations(save(content))
    assert record.masks().shape == (0, 4, 6)


def broken(*path: object, value: object = None, drop: bool = False) -> dict:
    content = copy.deepcopy(FILE)
    place = content
    for key in path[:-1]:
        place = place[key]
    if drop:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "data.json: must be an object, got a list of 0"),
        (broken("images", drop=True), "data.json: images is missing"),
        (broken("annotations", drop=True), "data.json: annotations is missing"),
        (broken("images", value={}), "data.json: images: must be a list, got an object"),
        (broken("images", 0, "width", drop=True), "data.json: image 7: width is missing"),
        (
            broken("images", 0, "width", value=0),
            "image 7: width: must be a whole number of at least 1, got 0",
        ),
        (
            broken("images", 0, "height", value="4"),
            "image 7: height: must be a whole number of at least 1, got '4'",
        ),
        (broken("images", 1, "id", value=7), "7 appears twice"),
        (broken("images", 0, "file_name", value=""), "image 7: file_name: must be a text, got ''"),
        (broken("images", 0, "text_inst_input", drop=True), "image 7: text_inst_input is missing"),
        (
            broken("images", 0, "text_inst_input", "concept", value=[3]),
            "image 7: text_inst_input: concept[0]: must be a text, got 3",
        ),
        (
            broken("images", 0, "granularity", value="few"),
            "image 7: granularity: 'few' is none of one, subset, all",
        ),
        (broken("annotations", 0, "image_id", value=99), "annotation 1: image_id: 99 is the id of no image"),
        (broken("annotations", 0, "segmentation", drop=True), "annotation 1: segmentation is missing"),
        (
            broken("annotations", 0, "segmentation", value=[[1, 2, 3, 4]]),
            "annotation 1: segmentation[0]: must be x0, y0, x1, y1, … of at least three points, got 4",
        ),
        (
            broken("annotations", 0, "segmentation", value=[[1, 2, 3, 4, 5, float("nan")]]),
            "annotation 1: segmentation[0][5]: must be a finite number, got nan",
        ),
        (broken("annotations", 0, "segmentation", value=[]), "segmentation: must be a list of at least 1"),
        (
            broken("annotations", 1, "segmentation", "size", value=[4]),
            "size: must be [height, width], got [4]",
        ),
        (broken("annotations", 1, "segmentation", "counts", drop=True), "segmentation: counts is missing"),
        (
            broken("annotations", 1, "segmentation", "counts", 0, value=-1),
            "counts[0]: must be a whole number",
        ),
        (
            broken("annotations", 0, "bbox", value=[1, 2, 3]),
            "annotation 1: bbox: must be [x, y, width, height]",
        ),
        (broken("categories", 0, "name", drop=True), "categories[0]: name is missing"),
    ],
)
def test_malformed_files_name_record_and_field(save, content: object, message: str) -> None:
    path = save(content)
    with pytest.raises(DataError, match=re.escape(message)) as caught:
        read_annotations(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.json: No such file"):
        read_annotations(tmp_path / "nowhere.json")
    cut = tmp_path / "cut.json"
    cut.write_text(json.dumps(FILE)[:200])
    with pytest.raises(DataError, match=r"cut.json is not valid JSON \(line 1, column"):
        read_annotations(cut)
    cut.write_bytes(b"\xff\xd8\xff\xe0" * 20)
    with pytest.raises(DataError, match=r"cut\.json is not text in UTF-8"):
        read_annotations(cut)


def test_ids_must_be_unique_to_be_written(save, tmp_path: Path) -> None:
    first, _ = read_annotations(save(FILE))
    target = tmp_path / "out.json"
    with pytest.raises(ValueError, match="image id 7 appears twice"):
        write_annotations(target, [first, first])
    assert not target.exists()


def test_an_interrupted_write_leaves_the_old_file(save, tmp_path: Path, monkeypatch) -> None:
    path = save(FILE)
    records = read_annotations(path)
    before = path.read_bytes()

    def interrupted(source: Path, target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_annotations(path, records[:1])
    assert path.read_bytes() == before
    assert [left.name for left in tmp_path.iterdir()] == [path.name]


def test_a_folder_of_scenes(tmp_path: Path) -> None:
    seen: list[int] = []
    records = write_scenes(tmp_path / "a", 4, 5, seen.append)
    assert seen == [1, 2, 3, 4]
    assert read_annotations(tmp_path / "a" / "annotations.json") == records
    assert len({record.image_id for record in records}) == len(records)
    files = sorted(path.name for path in (tmp_path / "a" / "images").iterdir())
    assert files == [f"{number:06d}.png" for number in range(4)]
    assert {record.file_name for record in records} == set(files)
    pictures = {(tmp_path / "a" / "images" / name).read_bytes() for name in files}
    assert len(pictures) == 4, "scenes repeat"
    for record in records:
        image = cv2.imread(str(tmp_path / "a" / "images" / record.file_name))
        assert image.shape == (record.height, record.width, 3)
        assert record.masks().shape[1:] == image.shape[:2]


def test_the_same_seed_writes_the_same_files(tmp_path: Path) -> None:
    for name, count, seed in (("a", 3, 1), ("b", 3, 1), ("more", 4, 1), ("other", 3, 2)):
        write_scenes(tmp_path / name, count, seed)
    first = (tmp_path / "a" / "annotations.json").read_bytes()
    assert first == (tmp_path / "b" / "annotations.json").read_bytes()
    assert first != (tmp_path / "other" / "annotations.json").read_bytes()
    for picture in (tmp_path / "a" / "images").iterdir():
        assert picture.read_bytes() == (tmp_path / "b" / "images" / picture.name).read_bytes()
        assert picture.read_bytes() == (tmp_path / "more" / "images" / picture.name).read_bytes()


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(DataError, match="is not empty; name a new folder"):
        write_scenes(tmp_path, 1, 0)
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]
    with pytest.raises(DataError, match="is a file; name a folder"):
        write_scenes(tmp_path / "note.txt", 1, 0)
    with pytest.raises(ValueError, match="count must be at least 1"):
        write_scenes(tmp_path / "new", 0, 0)
    assert not (tmp_path / "new").exists()
