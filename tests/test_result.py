import copy
import dataclasses
import json
import pickle
import re
import sys
import threading
import warnings

import numpy as np
import pytest

from made_result import SIZE, assert_equal, logits, make_result
from sam3i_edge import Result
from sam3i_edge.errors import ImageError, RuntimeUnavailable
from sam3i_edge.install_hint import install_hint
from sam3i_edge.masks import native, overlay, rle
from sam3i_edge.pipeline.postprocess import resize_mask_logits


def test_masks_are_the_resized_logits():
    result = make_result()
    assert result.masks.shape == (3, *SIZE)
    assert result.masks.dtype == np.bool_
    np.testing.assert_array_equal(result.masks, resize_mask_logits(logits(3), SIZE))
    assert (result.areas > 0).all()
    np.testing.assert_array_equal(result.areas, result.masks.sum((1, 2)))
    np.testing.assert_array_equal(result.merged, result.masks.any(0))
    for mask, packed in zip(result.masks, result.mask_rle, strict=True):
        assert packed == rle.encode(mask)


def test_masks_are_made_once_and_only_when_asked_for(monkeypatch):
    made = []
    real = native.mask_rle
    monkeypatch.setattr(native, "mask_rle", lambda *a: made.append(1) or real(*a))
    result = make_result()
    repr(result), len(result), result.scores, result[0]
    assert made == []
    assert result.masks is result.masks
    result.to_json(), result.to_coco(image_id=1), result.areas, result.merged, result[1:].masks
    assert len(made) == 3


def test_nothing_is_a_normal_result():
    empty = make_result(0, mask_logits=np.zeros((0, 12, 12), np.float32))
    assert (len(empty), list(empty), empty.mask_rle, empty.to_coco(image_id=1)) == (0, [], [], [])
    assert empty.masks.shape == (0, *SIZE)
    assert empty.boxes.shape == (0, 4)
    assert not empty.merged.any()
    assert empty.merged.shape == SIZE
    assert len(empty.filter(score=0.5, area=3)) == 0
    assert json.loads(empty.to_json())["instances"] == []
    assert_equal(Result.from_json(empty.to_json()), empty)
    assert "0 found" in repr(empty)


def test_it_is_immutable():
    result = make_result()
    for array in (result.scores, result.boxes, result.mask_logits, result.masks, result.merged, result.areas):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.presence = 0.0
    with pytest.raises(TypeError):
        result.timings_ms["detect"] = 0.0


def test_it_does_not_follow_the_caller():
    arrays = {"scores": np.float32([0.9]), "boxes": np.ones((1, 4), np.float32), "mask_logits": logits(1)}
    image, timings = np.zeros((*SIZE, 3), np.uint8), {"detect": 1.0}
    result = make_result(1, **arrays, image=image, timings_ms=timings)
    for array in (*arrays.values(), image):
        array[:] = 77  # still the caller's to write
    timings["detect"] = 2.0
    assert (result.scores.max(), result.boxes.max(), result.image.max()) == (np.float32(0.9), 1, 0)
    assert result.mask_logits.max() < 77
    assert dict(result.timings_ms) == {"detect": 1.0}


def test_what_is_read_only_already_is_shared_not_copied():
    image = np.zeros((*SIZE, 3), np.uint8)
    image.flags.writeable = False
    assert make_result(image=image).image is image


def test_indexing():
    result = make_result()
    masks = result.masks
    for index in (0, -1, np.int64(1)):
        one = result[index]
        assert len(one) == 1
        assert one.scores[0] == result.scores[index]
        np.testing.assert_array_equal(one.masks[0], masks[index])
    for index in (
        slice(1, None),
        slice(None, None, -1),
        [2, 0],
        np.array([1, 1]),
        np.array([True, False, True]),
    ):
        part = result[index]
        np.testing.assert_array_equal(part.scores, result.scores[index])
        np.testing.assert_array_equal(part.boxes, result.boxes[index])
        np.testing.assert_array_equal(part.masks, masks[index])
        assert part.instruction == result.instruction
    assert [float(one.scores[0]) for one in result] == result.scores.tolist()
    assert len(result[[]]) == len(result[5:]) == len(result[[False, False, False]]) == 0
    for index in (3, -4, [0, 3], [True, False]):
        with pytest.raises(IndexError):
            result[index]
    for index in (True, "0", 1.0, [0.5], [[0]], None):
        with pytest.raises(TypeError, match="N booleans"):
            result[index]


def test_filter():
    result = make_result()
    assert len(result.filter()) == 3
    assert result.filter(score=float(result.scores[1])).scores.tolist() == [result.scores[0]]
    areas = result.areas
    assert result.filter(area=int(areas[1])).areas.tolist() == [a for a in areas if a >= areas[1]]
    assert len(result.filter(score=0.7, area=int(areas.max()))) == 0


def test_the_models_notes_go_where_the_result_goes(tmp_path, monkeypatch):
    note = "trained on drawn shapes only, not on photographs"
    result = make_result(notes=[note], image=np.zeros((*SIZE, 3), np.uint8))
    assert result.notes == result[0].notes == copy.copy(result).notes == (note,)
    assert result.to_dict()["notes"] == [note]
    assert Result.from_json(result.to_json()).notes == (note,)
    footers, draw = [], overlay.draw
    monkeypatch.setattr(overlay, "draw", lambda *a, **k: footers.append(k["note"]) or draw(*a, **k))
    result.save(tmp_path / "out.png")
    assert footers == [f"3 found | simple | presence 0.97 | sam3i-nano | {note}"]


def test_track_ids_go_where_the_instances_go():
    result = make_result(track_ids=[7, 2, 9])
    assert result.track_ids.dtype == np.int64
    assert not result.track_ids.flags.writeable
    assert result[1].track_ids.tolist() == [2]
    assert result[[2, 0]].track_ids.tolist() == [9, 7]
    assert result.filter(score=0.9).track_ids.tolist() == [7]
    assert [instance["track_id"] for instance in result.to_dict()["instances"]] == [7, 2, 9]
    again = Result.from_json(result.to_json())
    assert again.track_ids.tolist() == [7, 2, 9]
    assert copy.deepcopy(again).track_ids.tolist() == [7, 2, 9]
    assert result.to_supervision().tracker_id.tolist() == [7, 2, 9]


def test_without_a_stream_there_are_no_track_ids():
    result = make_result()
    assert result.track_ids is None
    assert result[0].track_ids is None
    assert "track_id" not in result.to_dict()["instances"][0]
    assert Result.from_json(result.to_json()).track_ids is None
    assert result.to_supervision().tracker_id is None


def test_track_ids_are_one_for_each_instance():
    with pytest.raises(ValueError, match=r"track_ids must be \[3\], got \[2\]"):
        make_result(track_ids=[1, 2])
    data = make_result(track_ids=[1, 2, 3]).to_dict()
    del data["instances"][1]["track_id"]
    with pytest.raises(ValueError, match=r"track_ids must be \[3\], got \[2\]"):
        Result.from_dict(data)


def test_polygons_are_the_outlines_of_each_mask():
    result = make_result()
    assert len(result.polygons) == 3
    for mask, parts in zip(result.masks, result.polygons, strict=True):
        assert [len(part) for part in parts] == [2]
        x, y = parts[0].exterior.T
        assert (x.min(), y.min()) == (mask.any(0).argmax(), mask.any(1).argmax())
        area = abs((x * np.roll(y, -1) - y * np.roll(x, -1)).sum()) / 2
        assert (area, parts[0].holes) == (mask.sum(), ())
    assert result.polygons is result.polygons
    assert make_result(0).polygons == ()
    assert len(result[1:].polygons) == 2


def test_coco_is_what_pycocotools_reads():
    from pycocotools import mask as coco

    result = make_result()
    entries = json.loads(json.dumps(result.to_coco(image_id=7, category_id=3)))
    assert len(entries) == 3
    for entry, mask, score in zip(entries, result.masks, result.scores, strict=True):
        assert (entry["image_id"], entry["category_id"]) == (7, 3)
        assert np.float32(entry["score"]) == score
        np.testing.assert_array_equal(coco.decode(entry["segmentation"]).astype(bool), mask)
        assert entry["area"] == coco.area(entry["segmentation"])
        assert entry["bbox"] == coco.toBbox(entry["segmentation"]).tolist()


def test_supervision():
    supervision = pytest.importorskip("supervision")
    result = make_result()
    detections = result.to_supervision()
    assert isinstance(detections, supervision.Detections)
    np.testing.assert_array_equal(detections.xyxy, result.boxes)
    np.testing.assert_array_equal(detections.mask, result.masks)
    np.testing.assert_array_equal(detections.confidence, result.scores)
    assert detections["class_name"].tolist() == [result.instruction] * 3
    assert len(detections[detections.confidence > 0.9]) == 1
    assert make_result(instruction=None).to_supervision()["class_name"].tolist() == ["visual"] * 3
    assert len(make_result(0, mask_logits=np.zeros((0, 2, 2), np.float32)).to_supervision()) == 0


def test_supervision_merges_results_of_two_instructions():
    supervision = pytest.importorskip("supervision")
    star, ring, none = (
        make_result(instruction="star"),
        make_result(2, instruction="ring", presence=0.4),
        make_result(0),
    )
    merged = supervision.Detections.merge([one.to_supervision() for one in (star, ring, none)])
    assert merged["class_name"].tolist() == ["star"] * 3 + ["ring"] * 2
    np.testing.assert_allclose(merged["presence"], [0.97] * 3 + [0.4] * 2)
    assert len(set(merged.class_id.tolist())) == 2
    assert set(merged.class_id[:3].tolist()) == set(make_result(instruction="star").to_supervision().class_id)
    assert set(star.to_supervision(class_id=7).class_id.tolist()) == {7}
    with pytest.raises(ValueError, match="class_id must be at least 0, got -1"):
        star.to_supervision(class_id=-1)


def test_supervision_slices_an_image():
    """The presence of one instruction differs from slice to slice."""
    supervision = pytest.importorskip("supervision")
    presences = iter((0.9, 0.8))

    def segment(part):
        assert part.shape == (*SIZE, 3)
        return make_result(2, presence=next(presences)).to_supervision()

    slicer = supervision.InferenceSlicer(segment, slice_wh=SIZE[::-1], overlap_wh=(0, 0), thread_workers=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # newer versions drop what differs, and say so
        found = slicer(np.zeros((SIZE[0], 2 * SIZE[1], 3), np.uint8))
    assert len(found) > 0
    assert set(found["class_name"]) == {"the red star left of the ring"}


def test_without_supervision_the_error_names_the_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(RuntimeUnavailable, match=re.escape(install_hint("supervision"))):
        make_result().to_supervision()


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda r: pickle.loads(pickle.dumps(r))])
def test_copies(copied):
    result = make_result(image=np.full((*SIZE, 3), 9, np.uint8))
    result.masks  # noqa: B018  (what was made lazily must not get in the way)
    twin = copied(result)
    assert_equal(twin, result)
    np.testing.assert_array_equal(twin.image, result.image)
    with pytest.raises(ValueError, match="read-only"):
        twin.scores[0] = 0
    assert_equal(copied(Result.from_json(result.to_json())), result)


def test_threads_see_the_same_masks():
    for _ in range(5):
        result, seen, start = make_result(), [], threading.Barrier(8)

        def look(result=result, seen=seen, start=start):
            start.wait()
            seen.append((result.masks.sum(), result.merged.sum(), result.to_json()))

        threads = [threading.Thread(target=look) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(seen) == 8
        assert len(set(seen)) == 1


def test_repr_is_short():
    text = repr(make_result(truncated=True, instruction="star " * 100))
    assert len(text) < 200
    assert "3 found, there may be more, best 0.95" in text
    assert "40 x 30 px" in text


def test_save_draws_over_the_image(tmp_path):
    import cv2

    image = np.full((*SIZE, 3), 128, np.uint8)
    result = make_result(image=image)
    path = result.save(tmp_path / "out.png")
    picture = cv2.imread(str(path))
    assert picture.shape[0] > 360  # enlarged twelvefold, and the caption
    assert picture.shape[1] == 480
    other = Result.from_json(result.to_json()).save(tmp_path / "other.png", image=image)
    assert other.read_bytes() == path.read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["other.png", "out.png"]


def test_save_refuses(tmp_path):
    result = make_result()
    with pytest.raises(ValueError, match="pass image="):
        result.save(tmp_path / "out.png")
    with pytest.raises(ValueError, match=r"\(30, 40\), this one is \(40, 30\)"):
        result.save(tmp_path / "out.png", image=np.zeros((40, 30, 3), np.uint8))
    with pytest.raises(ValueError, match=r"must end in \.png"):  # before the image is read and drawn on
        result.save(tmp_path / "out.gif", image=tmp_path / "missing.png")
    with pytest.raises(ImageError, match="no image at"):
        result.save(tmp_path / "out.png", image=tmp_path / "missing.png")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"boxes": np.zeros((2, 4), np.float32)}, r"boxes must be \[3, 4\], got \[2, 4\]"),
        ({"mask_logits": logits(2)}, "mask_logits must be"),
        ({"mask_logits": logits(3)[0]}, "mask_logits must be"),
        ({"mask_logits": None}, "either mask_logits or mask_counts"),
        ({"mask_counts": ("", "", "")}, "either mask_logits or mask_counts"),
        ({"mask_logits": None, "mask_counts": ("",)}, "3 scores, but 1 masks"),
        ({"image": np.zeros((40, 30, 3), np.uint8)}, "image must be"),
        ({"image_size": (0, 4)}, "at least 1 x 1"),
        ({"level": "auto"}, "unknown level 'auto'"),
    ],
)
def test_parts_that_do_not_belong_together(changes, match):
    with pytest.raises(ValueError, match=match):
        make_result(**changes)


def test_the_package_names_it_without_loading_opencv():
    import subprocess

    heavy = ("cv2", "torch", "onnxruntime")
    code = f"import sys, sam3i_edge; sam3i_edge.Result; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
