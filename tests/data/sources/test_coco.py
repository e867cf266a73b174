from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco
from pycocotools.coco import COCO

from sam3i_edge.data.sources import open_source
from sam3i_edge.data.vocabulary import load_vocabulary
from sam3i_edge.errors import DataError

COCO_WORDS = load_vocabulary("coco")
H, W = 40, 60
CATEGORIES = [(1, "person"), (3, "car"), (44, "bottle"), (47, "cup"), (99, "flux_capacitor")]


def ring() -> dict[str, Any]:
    """A mask with a hole, as run lengths."""
    mask = np.zeros((H, W), np.uint8)
    mask[5:25, 10:30] = 1
    mask[10:18, 15:22] = 0
    runs = coco.encode(np.asfortranarray(mask))
    return {"size": [H, W], "counts": runs["counts"].decode()}


def uncompressed() -> dict[str, Any]:
    mask = np.zeros((H, W), np.uint8)
    mask[30:38, 40:50] = 1
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    return {"size": [H, W], "counts": np.diff([0, *edges, flat.size]).tolist()}


TWO_PARTS = [[2.5, 3, 12, 3.2, 12, 14, 2, 14], [20, 20, 33.3, 20, 33, 29, 21, 28]]
CONTENT: dict[str, Any] = {
    "info": {"year": 2017},
    "licenses": [],
    "images": [
        {"id": 9, "file_name": "b.png", "height": H, "width": W, "license": 1},
        {"id": 4, "file_name": "a.png", "height": H, "width": W},
        {"id": 7, "file_name": "gone.png", "height": H, "width": W},
    ],
    "annotations": [
        {"id": 1, "image_id": 4, "category_id": 47, "iscrowd": 0, "segmentation": TWO_PARTS, "area": 1.0,
         "bbox": [2, 3, 31, 26]},
        {"id": 2, "image_id": 9, "category_id": 1, "iscrowd": 0, "segmentation": ring()},
        {"id": 3, "image_id": 4, "category_id": 44, "iscrowd": 1, "segmentation": uncompressed()},
        {"id": 4, "image_id": 4, "category_id": 44, "iscrowd": 0, "segmentation": [[1, 1, 9, 1, 9, 9, 1, 9]]},
        {"id": 5, "image_id": 4, "category_id": 3, "iscrowd": 0, "segmentation": [[70, 1, 79, 1, 79, 9]]},
        {"id": 6, "image_id": 9, "category_id": 99, "iscrowd": 0, "segmentation": ring()},
    ],
    "categories": [{"id": i, "name": name, "supercategory": "x"} for i, name in CATEGORIES],
}  # fmt: skip


@pytest.fixture
def save(tmp_path: Path):
    (tmp_path / "images").mkdir()
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(tmp_path / "images" / name), np.zeros((H, W, 3), np.uint8))

    def written(content: object = CONTENT, name: str = "instances.json") -> Path:
        path = tmp_path / name
        path.write_text(json.dumps(content), encoding="utf-8")
        return path

    return written


def test_masks_are_those_of_pycocotools(save) -> None:
    path = save()
    source, theirs = open_source(path, COCO_WORDS), COCO(str(path))
    for number, image in enumerate((9, 4)):
        annotations = theirs.loadAnns(theirs.getAnnIds(imgIds=image, iscrowd=False))
        wanted = [mask for a in annotations if (mask := theirs.annToMask(a).astype(bool)).any()]
        found = [obj.mask for obj in source.scene(number).objects]
        assert len(found) == 2
        np.testing.assert_array_equal(found, wanted)


def test_what_a_picture_says_and_does_not_say(save) -> None:
    source = open_source(save(), COCO_WORDS)
    assert [source.file_name(i) for i in range(len(source))] == ["b.png", "a.png"]
    scene = source.scene(1)
    assert scene.size == (H, W)
    assert scene.image == source.folder / "a.png"
    assert scene.pixels().shape == (H, W, 3)
    assert not scene.complete
    assert [obj.category for obj in scene.objects] == ["cup", "bottle"]
    assert scene.crowds == {"bottle"}
    # Bottles are a crowd, a car lies outside of the picture: of neither every instance is here.
    assert scene.listed == {"person", "cup", "flux capacitor"}
    assert source.scene(0).listed == {"person", "car", "cup", "bottle", "flux capacitor"}
    cup = scene.objects[0]
    mask = coco.decode(coco.merge(coco.frPyObjects(TWO_PARTS, H, W))).astype(bool)
    rows, columns = np.nonzero(mask)
    assert cup.box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    np.testing.assert_allclose(cup.center, (columns.mean() + 0.5, rows.mean() + 0.5))
    assert cup.attributes == {}
    assert source.records(1) == ()


def test_notes_count_and_name(save) -> None:
    notes = [str(note) for note in open_source(save(), COCO_WORDS).notes]
    assert notes == [
        "pictures missing, left out: 1 (gone.png)",
        "categories unknown to the vocabulary coco, asked for by name alone: 1 (flux capacitor)",
    ]


def test_a_pickled_source_gives_the_same_scenes(save) -> None:
    source = open_source(save(), COCO_WORDS)
    again = pickle.loads(pickle.dumps(source))
    for number in range(len(source)):
        ours, theirs = source.scene(number), again.scene(number)
        assert [o.category for o in ours.objects] == [o.category for o in theirs.objects]
        assert all(np.array_equal(a.mask, b.mask) for a, b in zip(ours.objects, theirs.objects, strict=True))


def test_annotations_may_come_before_what_they_name(save) -> None:
    turned = {key: CONTENT[key] for key in ("categories", "annotations", "images")}
    assert [len(open_source(save(turned), COCO_WORDS).scene(i).objects) for i in (0, 1)] == [2, 2]
    turned = {key: CONTENT[key] for key in ("annotations", "images", "categories")}
    assert [len(open_source(save(turned), COCO_WORDS).scene(i).objects) for i in (0, 1)] == [2, 2]


def test_two_names_of_a_file_for_one_category_are_listed_together(save) -> None:
    """LVIS has mugs and cups; to a vocabulary that calls both cups, absent mugs say little of cups."""
    content = copy.deepcopy(CONTENT)
    content["categories"].append({"id": 50, "name": "mug"})
    content["images"][1] |= {"neg_category_ids": [50], "not_exhaustive_category_ids": [47]}
    content["images"][0] |= {"neg_category_ids": [50, 47], "not_exhaustive_category_ids": []}
    source = open_source(save(content), COCO_WORDS)
    assert "cup" in source.scene(0).listed
    assert "cup" not in source.scene(1).listed


def lvis(**image: Any) -> dict[str, Any]:
    content = copy.deepcopy(CONTENT)
    for entry in content["images"]:
        del entry["file_name"]
        entry["coco_url"] = (
            "http://images.cocodataset.org/train2017/" + {9: "b", 4: "a", 7: "gone"}[entry["id"]]
        )
        entry["coco_url"] += ".png"
        entry |= {"neg_category_ids": [], "not_exhaustive_category_ids": []}
    content["annotations"] = [a for a in content["annotations"] if not a.get("iscrowd")]
    content["images"][0] |= image
    return content


def test_lvis_says_absent_only_by_its_own_words(save) -> None:
    source = open_source(save(lvis(neg_category_ids=[3, 47])), COCO_WORDS)
    assert source.file_name(0) == "b.png"
    # Annotated: person and flux capacitor; said to be absent: car and cup; of bottles nothing is known.
    assert source.scene(0).listed == {"person", "flux capacitor", "car", "cup"}
    assert source.scene(0).crowds == frozenset()
    assert source.scene(1).listed == {"cup", "bottle"}


def test_lvis_never_lists_what_is_not_exhaustive(save) -> None:
    image = {"neg_category_ids": [3], "not_exhaustive_category_ids": [1]}
    source = open_source(save(lvis(**image)), COCO_WORDS)
    assert source.scene(0).listed == {"flux capacitor", "car"}
    assert [o.category for o in source.scene(0).objects] == ["person", "flux capacitor"]


def test_what_contradicts_itself_is_not_listed(save) -> None:
    source = open_source(save(lvis(neg_category_ids=[1])), COCO_WORDS)
    assert source.scene(0).listed == {"flux capacitor"}


def test_lvis_names(save, tmp_path: Path) -> None:
    content = lvis()
    names = {1: "mouse_(computer_equipment)", 3: "cellular_telephone", 44: "Band_Aid", 47: "bow_(weapon)"}
    for category in content["categories"]:
        category["name"] = names.get(category["id"], "bow_(decorative_ribbons)")
    source = open_source(save(content), COCO_WORDS)
    assert [o.category for o in source.scene(0).objects] == ["mouse", "bow"]
    assert {o.category for o in source.scene(1).objects} == {"bow", "band aid"}
    # The weapon is not annotated, the ribbon is: bows as such are not counted to the end.
    assert source.scene(0).listed == {"mouse"}
    (tmp_path / "images").rename(tmp_path / "train2017")
    assert open_source(save(content), COCO_WORDS).file_name(0) == "train2017/b.png"


def paco() -> dict[str, Any]:
    content = lvis()
    content["categories"].append({"id": 200, "name": "cup:handle", "supercategory": "PART"})
    colors = ["red", "light_blue", "dark_blue", "blue", "grey", "light_red", "other(color)"]
    content["attributes"] = [
        {"id": i, "name": name, "supercategory": "ATTR"} for i, name in enumerate(colors)
    ]
    content["attributes"] += [
        {"id": 10, "name": "wood"},
        {"id": 11, "name": "metal"},
        {"id": 20, "name": "opaque"},
    ]
    content["attr_type_to_attr_idxs"] = {"color": list(range(7)), "material": [10, 11], "transparency": [20]}
    content["annotations"].append(
        {"id": 50, "image_id": 9, "category_id": 200, "segmentation": ring(), "attribute_ids": [0]}
    )
    return content


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ({}, {}),
        ({"attribute_ids": []}, {}),
        ({"attribute_ids": [0, 11, 20]}, {"color": "red", "material": "metal"}),
        ({"attribute_ids": [1, 2, 3]}, {"color": "blue"}),
        ({"attribute_ids": [0, 3]}, {"color": None}),
        ({"attribute_ids": [5]}, {"color": None}),
        ({"attribute_ids": [6]}, {"color": None}),
        ({"attribute_ids": [0, 10], "unknown_color": 1}, {"color": None, "material": "wood"}),
        ({"attribute_ids": [4], "unknown_material": 1}, {"color": "grey", "material": None}),
    ],
)
def test_paco_attributes(said: dict[str, Any], wanted: dict[str, str | None], save) -> None:
    content = paco()
    content["annotations"][1] |= said
    source = open_source(save(content), load_vocabulary("tabletop"))
    assert source.scene(0).objects[0].attributes == wanted


def test_parts_are_left_out_and_it_says_so(save) -> None:
    source = open_source(save(paco()), COCO_WORDS)
    assert [o.category for o in source.scene(0).objects] == ["person", "flux capacitor"]
    assert "categories that are parts of objects, left out with 1 annotations: 1 (cup:handle)" in map(
        str, source.notes
    )


def broken(*path: Any, value: Any = None, drop: bool = False) -> dict[str, Any]:
    content = copy.deepcopy(CONTENT)
    place: Any = content
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
        (broken("annotations", drop=True), "annotations is missing"),
        (broken("categories", drop=True), "categories is missing"),
        (broken("annotations", value={}), "annotations: must be a list"),
        (CONTENT | {"images": [], "annotations": []}, "has no pictures"),
        (broken("images", 0, "file_name", value="../b.png"), "image 9: file_name: must be a path inside"),
        (broken("images", 0, "file_name", value="/b.png"), "must be a path inside the folder"),
        (broken("images", 0, "width", value=0), "image 9: width"),
        (broken("images", 0, "width", value=10**9), "image 9: width"),
        (broken("images", 0, "id", value=4), "image id 4 appears twice"),
        (broken("images", 0, "id", drop=True), "images[0]: id: Field required"),
        (broken("annotations", 1, "id", value=1), "annotation id 1 appears twice"),
        (broken("categories", 1, "id", value=1), "category id 1 appears twice"),
        (broken("annotations", 1, "image_id", value=5), "annotation 2: image_id: 5 is the id of no image"),
        (broken("annotations", 1, "category_id", value=5), "annotation 2: category_id: 5 is the id of no"),
        (broken("annotations", 1, "category_id", drop=True), "annotation 2: category_id: Field required"),
        (broken("annotations", 0, "segmentation", value=[]), "annotation 1: segmentation"),
        (broken("annotations", 0, "segmentation", value=[[1, 2, 3]]), "annotation 1: segmentation"),
        (
            broken("annotations", 1, "segmentation", "size", value=[W, H]),
            "annotation 2: segmentation is 60 x 40",
        ),
        (broken("annotations", 0, value=7), "annotations[0]"),
        (broken("categories", 0, value=[]), "categories[0]"),
        (7, "must be a JSON object"),
        ([1], "reference[0]: must be an object"),
        ({"info": {}, "data": [1]}, "of no known kind"),
    ],
)
def test_bad_files_are_refused_in_one_line(content: object, message: str, save) -> None:
    with pytest.raises(DataError) as refused:
        open_source(save(content), COCO_WORDS)
    assert message in str(refused.value)
    assert "instances.json" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_damaged_run_lengths_name_their_annotation(save) -> None:
    source = open_source(save(broken("annotations", 1, "segmentation", "counts", value="~~")), COCO_WORDS)
    with pytest.raises(DataError, match="image 9, annotation 2: segmentation"):
        source.scene(0)


def test_a_file_that_changes_is_noticed(save) -> None:
    source = open_source(save(), COCO_WORDS)
    save(CONTENT | {"info": {}})
    with pytest.raises(DataError, match="has changed since it was opened"):
        source.scene(0)
    save(json.loads(json.dumps(CONTENT).replace('"image_id": 9', '"image_id": 4')))
    with pytest.raises(DataError, match="has changed since it was opened"):
        source.scene(0)


def test_no_picture_at_all(save, tmp_path: Path) -> None:
    path = save()
    (tmp_path / "images").rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"none of its 3 pictures is in .*images.*, the first is 'b.png'"):
        open_source(path, COCO_WORDS)
    source = open_source(path, COCO_WORDS, images=tmp_path / "elsewhere")
    assert len(source) == 2


def test_pictures_where_coco_keeps_them(save, tmp_path: Path) -> None:
    (tmp_path / "annotations").mkdir()
    (tmp_path / "images").rename(tmp_path / "val2017")
    path = save(CONTENT, "annotations/instances_val2017.json")
    assert open_source(path, COCO_WORDS).folder == tmp_path / "val2017"


@pytest.mark.parametrize("types", [{"color": [[1]]}, {"color": 3}, [1], {"color": [None]}])
def test_types_of_attributes_that_hold_no_ids_are_named(types: Any, save) -> None:
    with pytest.raises(DataError, match="attr_type_to_attr_idxs: must be"):
        open_source(save(paco() | {"attr_type_to_attr_idxs": types}), load_vocabulary("tabletop"))


def test_ids_of_attributes_that_are_none_and_names_that_no_file_system_keeps_are_named(save) -> None:
    content = paco()
    content["annotations"][1]["attribute_ids"] = [[0]]
    with pytest.raises(DataError, match=r"annotation \d+: attribute_ids\[0\]"):
        open_source(save(content), load_vocabulary("tabletop"))
    content = paco()
    content["images"][0]["file_name"] = "é" * 128 + ".png"
    with pytest.raises(DataError, match="image 9: file_name: must have names of at most 255 bytes"):
        open_source(save(content), load_vocabulary("tabletop"))
