"""What is written is read again, by each format's own reader where this environment has one."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from sam3i_edge.label.formats import FORMATS, Labels
from sam3i_edge.masks import rle

CATEGORIES = ('a <ring> & "more"', "star: 5")


def ring_and_more():
    """A ring, with a hole, and a part of its own."""
    mask = np.zeros((60, 80), np.uint8)
    cv2.circle(mask, (30, 30), 20, 1, -1)
    cv2.circle(mask, (30, 30), 9, 0, -1)
    mask[40:55, 60:75] = 1
    return mask.astype(bool)


def star():
    mask = np.zeros((60, 80), bool)
    mask[5:20, 50:78] = True
    return mask


def instance(mask, score):
    return {"score": score, "box": [0, 0, 1, 1], "mask": rle.encode(mask)}


def result(*instances):
    return {"instances": list(instances), "near": [], "dropped": 0, "why": ""}


MASKS = [ring_and_more(), star()]
LINES = [
    {
        "name": "deep/a.png",
        "size": [60, 80],
        "results": [result(instance(MASKS[0], 0.9)), result(instance(MASKS[1], 0.75))],
    },
    {"name": "broken.png", "error": "no picture"},
    {
        "name": "b.png",
        "size": [60, 80],
        "results": [result(), result(instance(np.zeros((60, 80), bool), 0.6))],
    },
]


@pytest.fixture
def written(tmp_path):
    """`written(name, outlines=False)`: the file or folder of a format."""
    pictures = tmp_path / "pictures"
    (pictures / "deep").mkdir(parents=True)
    for name in ("deep/a.png", "b.png"):
        Image.fromarray(np.full((60, 80, 3), 200, np.uint8)).save(pictures / name)

    def write(name, outlines=False):
        file, writer = FORMATS[name]
        labels = Labels(
            lines=LINES,
            categories=CATEGORIES,
            picture=lambda picture: pictures / picture,
            model="none",
            outlines=outlines,
        )
        writer(tmp_path / file, labels)
        writer(tmp_path / file, labels)  # it replaces what is there
        return tmp_path / file

    return write


def check_coco(path, *, exact=True):
    coco = COCO(str(path))
    assert [image["file_name"] for image in coco.imgs.values()] == ["deep/a.png", "b.png"]
    assert [category["name"] for category in coco.cats.values()] == list(CATEGORIES)
    found = coco.loadAnns(coco.getAnnIds())
    assert [(one["image_id"], one["category_id"], one["score"]) for one in found] == [
        (1, 1, 0.9),
        (1, 2, 0.75),
    ]
    for one, mask in zip(found, MASKS, strict=True):
        assert one["area"] == mask.sum()
        if exact:
            assert np.array_equal(coco.annToMask(one).astype(bool), mask)
    return found


@pytest.mark.parametrize("name", ["coco", "fiftyone"])
def test_coco(written, name):
    path = written(name)
    check_coco(path if name == "coco" else path / "labels.json")
    if name == "fiftyone":
        assert sorted(p.relative_to(path).as_posix() for p in path.rglob("*.png")) == [
            "data/b.png", "data/deep/a.png",
        ]  # fmt: skip


def test_coco_polygons_have_no_holes(written):
    ring, square = check_coco(written("coco", outlines=True), exact=False)
    assert len(ring["segmentation"]) == 2
    assert len(square["segmentation"]) == 1
    drawn = np.zeros((60, 80), np.uint8)
    for polygon in ring["segmentation"]:
        cv2.fillPoly(drawn, [np.array(polygon).reshape(-1, 2).astype(np.int32)], 1)
    assert drawn[30, 30] == 1, "the hole is filled"


def test_yolo_is_read_by_supervision(written):
    supervision = pytest.importorskip("supervision", reason="extra supervision is not installed")
    folder = written("yolo")
    assert (folder / "labels" / "b.txt").read_text() == ""
    data = supervision.DetectionDataset.from_yolo(
        images_directory_path=str(folder / "images" / "deep"),
        annotations_directory_path=str(folder / "labels" / "deep"),
        data_yaml_path=str(folder / "data.yaml"),
        force_masks=True,
    )
    assert data.classes == list(CATEGORIES)
    (found,) = data.annotations.values()
    assert found.class_id.tolist() == [0, 1]
    for got, want in zip(found.mask, MASKS, strict=True):
        # Its points are the middles of pixels, ours their edges: a row of pixels more at two sides; and it
        # draws the seams.
        assert (got & want).sum() == want.sum()
        grown = cv2.dilate(want.view(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
        assert (got & ~grown).sum() < 25
        assert got[28:33, 28:33].sum() <= 5


def test_label_studio_is_a_task_a_picture_with_polygons_in_percent(written):
    path = written("label-studio")
    interface = ElementTree.parse(path.with_suffix(".xml")).getroot()
    assert [label.get("value") for label in interface.iter("Label")] == list(CATEGORIES)
    tasks = json.loads(path.read_text())
    assert [task["data"]["image"] for task in tasks] == [
        "/data/local-files/?d=deep/a.png", "/data/local-files/?d=b.png",
    ]  # fmt: skip
    (prediction,) = tasks[0]["predictions"]
    assert (prediction["score"], [one["score"] for one in prediction["result"]]) == (0.75, [0.9, 0.75])
    for one, mask in zip(prediction["result"], MASKS, strict=True):
        points = np.array(one["value"]["points"]) / 100 * [one["original_width"], one["original_height"]]
        assert area(points) == pytest.approx(mask.sum(), rel=1e-4)
    assert tasks[1]["predictions"][0]["result"] == []


def area(points):
    """By the shoelace formula, in which holes that run the other way count less."""
    x, y = points.T
    return abs(float((x * np.roll(y, -1) - y * np.roll(x, -1)).sum())) / 2


def test_cvat_masks_are_runs_of_rows_in_their_box(written):
    root = ElementTree.parse(written("cvat")).getroot()
    assert [label.findtext("name") for label in root.iter("label")] == list(CATEGORIES)
    first, second = root.iter("image")
    assert (first.get("name"), second.get("name"), len(second)) == ("deep/a.png", "b.png", 0)
    for one, category, want in zip(first, CATEGORIES, MASKS, strict=True):
        assert one.get("label") == category
        runs = [int(count) for count in one.get("rle").split(",")]
        values = np.arange(len(runs)) % 2 == 1
        x, y, w, h = (int(one.get(side)) for side in ("left", "top", "width", "height"))
        mask = np.zeros((60, 80), bool)
        mask[y : y + h, x : x + w] = np.repeat(values, runs).reshape(h, w)
        assert np.array_equal(mask, want)
    assert [float(one.findtext("attribute")) for one in first] == [0.9, 0.75]


def test_a_folder_that_cannot_be_finished_leaves_the_old_one(written, tmp_path, monkeypatch):
    folder = written("yolo")
    before = sorted(Path(folder).rglob("*"))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sam3i_edge.outputs.yolo.write_whole", full)
    with pytest.raises(OSError, match="No space left"):
        written("yolo")
    assert sorted(folder.rglob("*")) == before
