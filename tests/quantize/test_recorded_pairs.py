from __future__ import annotations

import itertools
import json
from collections import Counter

import pytest

from sam3i_edge.data.annotations import write_scenes
from sam3i_edge.errors import DataError, ImageError
from sam3i_edge.quantize.recorded_pairs import recorded_pairs


@pytest.fixture
def folder(tmp_path):
    write_scenes(tmp_path / "data", count=4, seed=0)
    return tmp_path / "data"


def test_pairs_go_picture_by_picture_through_all_levels(folder):
    pairs = recorded_pairs(folder)
    assert len({id(pair.image) for pair in pairs}) == 4
    changes = sum(a.image is not b.image for a, b in itertools.pairwise(pairs))
    assert changes == 3  # consecutive pairs share an image
    assert {pair.level for pair in pairs} == {"concept", "simple", "complex"}
    shown = [sum(pair.image is other.image for other in pairs) for pair in pairs]
    assert max(shown) <= 6
    assert len(recorded_pairs(folder, most=5)) == 5
    assert len(recorded_pairs(folder, an_image=1)) == 4


@pytest.mark.parametrize("most", [3, 5, 12])
def test_few_pairs_have_every_level(folder, most):
    count = Counter(pair.level for pair in recorded_pairs(folder, most))
    assert set(count) == {"concept", "simple", "complex"}
    assert max(count.values()) - min(count.values()) <= 1


def test_a_level_that_only_the_last_picture_has_is_among_few_pairs(folder):
    file = folder / "annotations.json"
    records = json.loads(file.read_text())
    last = records["images"][-1]["file_name"]
    for image in records["images"]:
        if image["file_name"] != last:
            image["text_inst_input"]["complex_query"] = []
    file.write_text(json.dumps(records))
    assert {pair.level for pair in recorded_pairs(folder, 3)} == {"concept", "simple", "complex"}


def test_a_folder_without_instructions_is_refused(folder):
    file = folder / "annotations.json"
    records = json.loads(file.read_text())

    def silent(value):
        if isinstance(value, dict):
            return {k: {} if k == "text_inst_input" else silent(v) for k, v in value.items()}
        return [silent(item) for item in value] if isinstance(value, list) else value

    file.write_text(json.dumps(silent(records)))
    with pytest.raises(DataError):
        recorded_pairs(folder)
    file.unlink()
    with pytest.raises(DataError, match=r"annotations\.json"):
        recorded_pairs(folder)


def test_a_missing_picture_is_named(folder):
    for picture in (folder / "images").iterdir():
        picture.unlink()
    with pytest.raises(ImageError):
        recorded_pairs(folder)
