import json

import numpy as np
import pytest

from made_result import assert_equal, make_result
from sam3i_edge import Result


def test_json_has_the_documented_keys():
    data = json.loads(make_result(1).to_json())
    assert set(data) == {
        "image_size", "instruction", "level", "presence", "instances", "timings_ms", "device", "runtime",
        "precision", "model", "threshold", "level_chosen_by", "truncated", "tokens_cut",
        "notes",
    }  # fmt: skip
    assert data["image_size"] == [30, 40]
    assert data["timings_ms"] == {"encode_image": 12.5, "detect": 3.25}
    (instance,) = data["instances"]
    assert set(instance) == {"score", "box", "mask"}
    assert instance["score"] == 0.95  # not 0.949999988079071
    assert instance["mask"]["size"] == [30, 40]
    assert isinstance(instance["mask"]["counts"], str)


def test_json_round_trip():
    result = make_result(instruction='caf\u00e9 "\u661f"')
    back = Result.from_json(result.to_json())
    assert_equal(back, result)
    np.testing.assert_array_equal(back.areas, result.areas)
    assert back.to_json() == result.to_json()
    assert back.to_coco(image_id=4) == result.to_coco(image_id=4)
    np.testing.assert_array_equal(back[1].masks, result[1].masks)
    assert (
        back.filter(area=int(result.areas.max())).mask_rle
        == result.filter(area=int(result.areas.max())).mask_rle
    )


def test_json_from_before_there_were_notes_is_read():
    data = make_result().to_dict()
    del data["notes"]
    assert Result.from_dict(data).notes == ()


def test_without_an_instruction():
    result = make_result(instruction=None)
    data = json.loads(result.to_json())
    assert data["instruction"] is None
    assert_equal(Result.from_dict(data), result)
    assert "'(by boxes)'" in repr(result)
    data.pop("instruction")
    with pytest.raises(ValueError, match="instruction: Field required"):
        Result.from_dict(data)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda data: data.pop("presence"), "no result: presence: Field required"),
        (lambda data: data["instances"][0].pop("mask"), r"instances\[0\]\.mask: Field required"),
        (lambda data: data.update(instruction=5), "instruction: must be a valid string"),
        (lambda data: data.update(level="expert"), "level: must be 'concept', 'simple' or 'complex'"),
        (
            lambda data: data.update(level_chosen_by="me"),
            "must be 'caller', 'auto' or 'router'",
        ),
        (lambda data: data.update(image_size=[30, 41]), r"image 30 x 41 has size \[30, 40\]"),
        (lambda data: data.update(timings_ms=[1]), "timings_ms: must be a valid dictionary"),
        (lambda data: data.update(image_size=[30]), "want height and width"),
        (lambda data: data.update(threshold=float("nan")), "threshold: must be a finite number"),
        (lambda data: data["instances"][0]["mask"].update(counts="5"), "cover"),
        (lambda data: data["instances"][0]["mask"].update(counts=[1200]), "counts"),
        (lambda data: data["instances"][0].update(box=[1, 2, 3]), "a box has 3 sides, want 4"),
    ],
)
def test_json_that_is_no_result(change, match):
    data = json.loads(make_result().to_json())
    change(data)
    with pytest.raises(ValueError, match=match):
        Result.from_json(json.dumps(data))


def test_text_that_is_no_json():
    with pytest.raises(ValueError, match="Expecting"):
        Result.from_json("")
    with pytest.raises(ValueError, match="no result: must be a valid dictionary"):
        Result.from_json("[]")
