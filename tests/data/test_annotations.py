from __future__ import annotations

import copy
import json
import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

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
        (broken("images", drop=True), "data.json: images: Field required"),
        (broken("annotations", drop=True), "data.json: annotations: Field required"),
        (broken("images", value={}), "data.json: images: must be a valid array, got an object"),
        (broken("images", 0, "width", drop=True), "data.json: image 7: width: Field required"),
        (
            broken("images", 0, "width", value=0),
            "image 7: width: must be greater than or equal to 1, got 0",
        ),
        (
            broken("images", 0, "height", value="four"),
            "image 7: height: must be a valid integer, unable to parse string as an integer, got 'four'",
        ),
        (broken("images", 1, "id", value=7), "image 7: id appears twice"),
        (
            broken("images", 0, "file_name", value=""),
            "image 7: file_name: must be a path inside the folder of images, got ''",
        ),
        (broken("images", 0, "text_inst_input", drop=True), "image 7: text_inst_input: Field required"),
        (
            broken("images", 0, "text_inst_input", "concept", value=[3]),
            "image 7: text_inst_input: concept[0]: must be a valid string, got 3",
        ),
        (
            broken("images", 0, "granularity", value="few"),
            "image 7: granularity: must be 'one', 'subset', 'all' or 'none', got 'few'",
        ),
        (broken("annotations", 0, "image_id", value=99), "annotation 1: image_id: 99 is the id of no image"),
        (broken("annotations", 0, "segmentation", drop=True), "annotation 1: segmentation: Field required"),
        (
            broken("annotations", 0, "segmentation", value=[[1, 2, 3, 4]]),
            "annotation 1: segmentation: no polygon has three points, the longest has 2",
        ),
        (
            broken("annotations", 0, "segmentation", value=[[1, 2, 3, 4, 5, float("nan")]]),
            "annotation 1: segmentation[0][5]: must be a finite number, got nan",
        ),
        (
            broken("annotations", 0, "segmentation", value=[]),
            "segmentation: List should have at least 1 item after validation, not 0, got a list of 0",
        ),
        (
            broken("annotations", 1, "segmentation", "size", value=[4]),
            "annotation 2: segmentation: size: List should have at least 2 items",
        ),
        (
            broken("annotations", 1, "segmentation", "counts", drop=True),
            "segmentation: counts: Field required",
        ),
        (
            broken("annotations", 1, "segmentation", "counts", 0, value=-1),
            "counts[0]: must be greater than or equal to 0, got -1",
        ),
        (
            broken("annotations", 0, "bbox", value=[1, 2, 3]),
            "annotation 1: bbox[3]: Field required",
        ),
        (broken("categories", 0, "name", drop=True), "categories[0]: name: Field required"),
    ],
)
def test_malformed_files_name_record_and_field(save, content: object, message: str) -> None:
    path = save(content)
    with pytest.raises(DataError, match=re.escape(message)) as caught:
        read_annotations(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            broken("images", 0, "width", value=60_000_000),
            "width x height is 60000000 x 4, at most 64,000,000",
        ),
        (broken("images", 0, "width", value=10**400), "got a number of more than 60 digits"),
        (broken("images", 0, "id", value=2**64), "got 18446744073709551616"),
        (broken("images", 0, "file_name", value="../secret.png"), "inside the folder of images, got '../"),
        (broken("images", 0, "file_name", value="/etc/passwd"), "inside the folder of images"),
        (broken("images", 0, "file_name", value="a\\..\\..\\b.png"), "inside the folder of images"),
        (broken("images", 0, "file_name", value="C:\\b.png"), "inside the folder of images"),
        (
            broken("annotations", 0, "segmentation", value=[[0, 0, 2e8, 0, 2e8, 2e8]]),
            "annotation 1: segmentation[0][2]: must be less than or equal to 100000, got 200000000.0",
        ),
        (
            broken("annotations", 0, "segmentation", value=[[0, 0, 10**400, 0, 4, 4]]),
            "segmentation[0][2]: must be a finite number, got a number of more than 60 digits",
        ),
        (broken("annotations", 0, "segmentation", value=[[1, 2, 3, 4, 5, 6, 7]]), "polygon 0 has 7 numbers"),
        (
            broken("annotations", 1, "segmentation", "counts", value=[2**62] * 4 + [24]),
            "annotation 2: segmentation: counts[0]: must be less than or equal to 64000000",
        ),
        (
            {**FILE, "images": [{"id": 1, "file_name": "a"}]},
            "complex_query\": [...]}; 'sam3i-edge instruct FILE -o DIR' writes them for annotated pictures",
        ),
    ],
)
def test_values_beyond_reason_are_named(save, content: object, message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)) as caught:
        read_annotations(save(content))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_deep_nesting_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "deep.json"
    path.write_text('{"images": ' + "[" * 200_000)
    with pytest.raises(DataError, match=r"is not valid JSON \(recursion limit exceeded"):
        read_annotations(path)


def test_files_as_other_tools_write_them(save) -> None:
    """A byte order mark, CRLF, backslashes, every id a text: what Windows tools and spreadsheets leave."""
    whole = read_annotations(save(FILE))
    content = copy.deepcopy(FILE)
    for image in content["images"]:
        image["id"] = str(image["id"])
        image["file_name"] = "sub\\" + image["file_name"]
    for annotation in content["annotations"]:
        annotation["image_id"] = str(annotation["image_id"])
    path = save(content)
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(content, indent=1).replace("\n", "\r\n").encode())
    found = read_annotations(path)
    assert [replace(record, file_name="000000000042.jpg") for record in found] == whole
    assert {record.file_name for record in found} == {"sub/000000000042.jpg"}
    content["images"][0]["id"] = content["annotations"][0]["image_id"] = "IMG_7"
    assert read_annotations(save(content))[0].image_id == "IMG_7"


@pytest.mark.parametrize("stray", [[50.0, 30.0, 51.0, 30.0], [30.0, 20.0], [12.5, 3.0, 12.5, 30.0]])
def test_stray_polygons_are_drawn_as_pycocotools_does(save, caplog, stray) -> None:
    shape = [[5, 5, 30, 5, 30, 25, 5, 25], stray]
    content = copy.deepcopy(FILE)
    content["images"][0] |= {"width": 60, "height": 40}
    content["annotations"] = [{"id": 1, "image_id": 7, "segmentation": shape}] * 2
    record = read_annotations(save(content))[0]
    (said,) = caplog.messages
    assert "data.json: 2 annotations have a polygon of one or two points beside a whole one" in said
    wanted = coco.decode(coco.merge(coco.frPyObjects(shape, 40, 60)))
    assert np.array_equal(record.masks()[0], wanted)


def test_a_polygon_that_never_ends_is_refused(save) -> None:
    content = broken("annotations", 0, "segmentation", value=[[-1e5, 0, 1e5, 3] * 60])
    record = read_annotations(save(content))[0]
    with pytest.raises(
        DataError, match=r"annotation 1: segmentation: the way around a polygon is 2.4e\+07 px"
    ):
        record.masks()


def test_cocoeval_takes_the_scenes(tmp_path: Path, capsys) -> None:
    records = write_scenes(tmp_path, 2, 5)
    truth = COCO(str(tmp_path / "annotations.json"))
    assert {"info", "images", "annotations", "categories"} <= truth.dataset.keys()
    found = [
        {key: entry[key] for key in ("image_id", "category_id", "segmentation")} | {"score": 1.0}
        for entry in truth.dataset["annotations"]
    ]
    evaluation = COCOeval(truth, truth.loadRes(found), "segm")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1.0)
    areas = [entry["area"] for entry in truth.dataset["annotations"]]
    assert areas == [mask.sum() for record in records for mask in record.masks()]


def test_an_interrupted_folder_is_continued_to_the_same_files(tmp_path: Path) -> None:
    write_scenes(tmp_path / "whole", 4, 5)

    def die(words: str, share: float) -> None:
        if share == 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_scenes(tmp_path / "cut", 4, 5, die)
    journal = tmp_path / "cut" / ".unfinished.jsonl"
    with journal.open("a") as lines:
        lines.write('{"images": [{"id"')  # as a kill leaves it
    (tmp_path / "cut" / "images" / ".000002.png.4194305-00ab.part").touch()
    with pytest.raises(DataError, match=r"unfinished scenes of seed 5 .* name a new folder"):
        write_scenes(tmp_path / "cut", 4, 6)
    with pytest.raises(DataError, match="holds 2 scenes already"):
        write_scenes(tmp_path / "cut", 1, 5)
    drawn: list[str] = []
    write_scenes(tmp_path / "cut", 4, 5, lambda words, share: drawn.append(words))
    assert drawn == ["scene 3 of 4", "scene 4 of 4"]
    for path in (tmp_path / "whole").rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (tmp_path / "cut" / path.relative_to(tmp_path / "whole")).read_bytes()
    assert len(list((tmp_path / "cut").rglob("*"))) == len(list((tmp_path / "whole").rglob("*")))


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.json: No such file"):
        read_annotations(tmp_path / "nowhere.json")
    cut = tmp_path / "cut.json"
    cut.write_text(json.dumps(FILE)[:200])
    with pytest.raises(
        DataError, match=r"cut.json is not valid JSON \(EOF while parsing .* at line 1 column 200\)"
    ):
        read_annotations(cut)
    cut.write_bytes(b"\xff\xd8\xff\xe0" * 20)
    with pytest.raises(DataError, match=r"cut\.json is not valid JSON \(expected value at line 1 column 1\)"):
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
    seen: list[float] = []
    records = write_scenes(tmp_path / "a", 4, 5, lambda words, share: seen.append(share))
    assert seen == [0.25, 0.5, 0.75, 1]
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
    with pytest.raises(ValueError, match="count must be 1 to 10,000,000"):
        write_scenes(tmp_path / "new", 0, 0)
    with pytest.raises(ValueError, match="count must be 1 to 10,000,000"):
        write_scenes(tmp_path / "new", 10**20, 0)
    assert not (tmp_path / "new").exists()
