from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from sam3i_edge.data.annotations import read_annotations, write_annotations
from sam3i_edge.data.sources import open_source
from sam3i_edge.data.vocabulary import load_vocabulary
from sam3i_edge.errors import DataError

COCO_WORDS = load_vocabulary("coco")
H, W = 20, 40


def box(x: int) -> list[list[float]]:
    return [[x, 2, x + 5, 2, x + 5, 7, x, 7]]


INSTANCES: dict[str, Any] = {
    "images": [
        {"id": i, "file_name": f"COCO_train2014_{i:012d}.jpg", "height": H, "width": W} for i in (36, 49, 61)
    ],
    "annotations": [
        {"id": 1, "image_id": 36, "category_id": 1, "bbox": [1, 2, 5, 5], "segmentation": box(1)},
        {"id": 2, "image_id": 36, "category_id": 1, "bbox": [9, 2, 5, 5], "segmentation": box(9)},
        {"id": 3, "image_id": 49, "category_id": 18, "iscrowd": 0, "segmentation": box(20)},
        {"id": 4, "image_id": 36, "category_id": 18, "iscrowd": 0, "segmentation": box(30)},
    ],
    "categories": [{"id": 1, "name": "person"}, {"id": 18, "name": "dog"}],
}  # fmt: skip


def sentence(text: str, **more: Any) -> dict[str, Any]:
    return {"tokens": text.split(), "raw": text.upper(), "sent": text, "sent_id": 0} | more


REFERENCES: list[dict[str, Any]] = [
    {"ref_id": 7, "ann_id": 2, "image_id": 36, "category_id": 1, "split": "train", "sent_ids": [0, 1],
     "file_name": "COCO_train2014_000000000036_2.jpg",
     "sentences": [sentence("person on the right"), sentence("right  guy "), sentence("right guy")]},
    {"ref_id": 8, "ann_id": 1, "image_id": 36, "category_id": 1, "split": "train",
     "sentences": [sentence("", raw="left one")]},
    {"ref_id": 9, "ann_id": 3, "image_id": 49, "category_id": 18, "split": "testA",
     "sentences": [sentence("dog")]},
]  # fmt: skip


@pytest.fixture
def save(tmp_path: Path):
    (tmp_path / "train2014").mkdir()
    for i in (36, 49):
        cv2.imwrite(
            str(tmp_path / "train2014" / f"COCO_train2014_{i:012d}.jpg"), np.zeros((H, W, 3), np.uint8)
        )
    (tmp_path / "instances.json").write_text(json.dumps(INSTANCES))

    def written(references: object = REFERENCES, name: str = "refs.json") -> Path:
        (tmp_path / name).write_text(json.dumps(references))
        return tmp_path / name

    return written


def opened(path: Path, **options: Any):
    return open_source(path, COCO_WORDS, images=path.parent / "train2014", **options)


def test_sentences_are_simple_instructions(save) -> None:
    source = pickle.loads(pickle.dumps(opened(save())))
    assert [source.file_name(i) for i in range(len(source))] == [
        "COCO_train2014_000000000036.jpg", "COCO_train2014_000000000049.jpg",
    ]  # fmt: skip
    first, second = source.records(0)
    assert (first.image_id, first.granularity, first.concept) == (7, "one", ["person"])
    assert first.simple == ["person on the right", "right guy"]
    assert first.complex == []
    assert second.simple == ["left one"], "where the cleaned sentence is empty, the raw one"
    assert first.annotations[0].bbox == (9, 2, 5, 5)
    mask = np.zeros((H, W), bool)
    mask[2:7, 9:14] = True
    np.testing.assert_array_equal(first.masks(), mask[None])
    assert [r.annotations[0].category for r in source.records(1)] == ["dog"]


def test_all_records_make_one_annotation_file(save, tmp_path: Path) -> None:
    source = opened(save())
    records = [record for i in range(len(source)) for record in source.records(i)]
    write_annotations(tmp_path / "annotations.json", records)
    assert read_annotations(tmp_path / "annotations.json") == records


def test_scenes_have_every_instance_and_not_only_the_referred(save) -> None:
    scene = opened(save()).scene(0)
    assert [o.category for o in scene.objects] == ["person", "person", "dog"]
    assert scene.listed == {"person", "dog"}
    assert not scene.complete


def test_a_split_alone(save) -> None:
    source = opened(save(), split="testA")
    assert (len(source), source.file_name(0)) == (1, "COCO_train2014_000000000049.jpg")
    with pytest.raises(DataError, match=r"has no split 'testB'; it has testA, train"):
        opened(save(), split="testB")


def test_references_without_a_picture_are_counted(save) -> None:
    (save().parent / "train2014" / "COCO_train2014_000000000049.jpg").unlink()
    notes = [str(note) for note in opened(save()).notes]
    assert notes == [
        "pictures missing, left out: 2 (COCO_train2014_000000000049.jpg, COCO_train2014_000000000061.jpg)",
        "references without their picture: 1 (9)",
    ]
    with pytest.raises(DataError, match="the pictures of all its references are missing"):
        opened(save(), split="testA")


def test_the_pickle_is_never_read(save, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "run",))

    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        for content in (Evil(), [Evil()], {"a": Evil()}, REFERENCES):
            path = tmp_path / "refs(unc).p"
            path.write_bytes(pickle.dumps(content, protocol))
            plain = protocol < 2 and isinstance(content, Evil)
            with pytest.raises(DataError, match="must be a JSON object" if plain else "is a Python pickle"):
                opened(path)
    assert not (tmp_path / "run").exists()


def test_instances_elsewhere(save, tmp_path: Path) -> None:
    path = save()
    with pytest.raises(DataError, match=r"other\.json: No such file"):
        opened(path, instances=tmp_path / "other.json")
    (tmp_path / "instances.json").rename(tmp_path / "other.json")
    assert len(opened(path, instances=tmp_path / "other.json")) == 2
    with pytest.raises(DataError, match=r"instances\.json: No such file"):
        opened(path)


def broken(number: int, key: str, value: Any) -> list[dict[str, Any]]:
    content = copy.deepcopy(REFERENCES)
    content[number][key] = value
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "has no references"),
        ([7], "reference[0]: "),
        (broken(1, "sentences", []), "reference[1]: sentences"),
        (broken(1, "sentences", [{}]), "reference[1]: sentences[0]"),
        (broken(1, "ann_id", None), "reference[1]: ann_id"),
        (broken(1, "ann_id", 3), "ref 8: "),
        (broken(1, "ann_id", 99), "has no annotation 99 in image 36"),
        (broken(1, "image_id", 5), "has no annotation 1 in image 5"),
        (broken(1, "ref_id", 7), "a ref_id appears twice"),
    ],
)
def test_bad_references_are_refused_in_one_line(content: object, message: str, save) -> None:
    with pytest.raises(DataError) as refused:
        opened(save(content))
    assert message in str(refused.value)
    assert "refs.json" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_options_of_other_kinds(save, tmp_path: Path) -> None:
    save()
    with pytest.raises(ValueError, match="split is for RefCOCO"):
        opened(tmp_path / "instances.json", split="train")
    with pytest.raises(ValueError, match="instances are for RefCOCO's"):
        opened(tmp_path / "instances.json", instances=tmp_path / "instances.json")
