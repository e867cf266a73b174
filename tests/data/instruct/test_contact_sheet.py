from __future__ import annotations

import cv2
import numpy as np
import pytest

from sam3i_edge.data.annotations import Annotation, Record
from sam3i_edge.data.instruct.contact_sheet import draw_sheet
from sam3i_edge.masks import rle
from sam3i_edge.pipeline.preprocess import load_image


@pytest.fixture
def images(tmp_path):
    """A black picture, wider than high."""
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images" / "a.png"), np.zeros((40, 80, 3), np.uint8))
    return tmp_path / "images"


def record(number, left, granularity="all", **texts):
    mask = np.zeros((40, 80), bool)
    mask[:, left : left + 20] = True
    target = Annotation(id=number, category="", bbox=None, segmentation=rle.encode(mask))
    given = {"concept": [], "simple": [], "complex": [], **texts}
    known = {"image_id": number, "file_name": "a.png", "width": 80, "height": 40, "granularity": granularity}
    return Record(annotations=(target,), **known, **given)


def test_24_of_more_in_rows_of_six(images, tmp_path):
    records = [record(n, 0, simple=[f"the {n}th"]) for n in range(40)]
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        draw_sheet(tmp_path / f"{name}.png", images, records, seed)
    a, b, c = (load_image(tmp_path / f"{name}.png") for name in "abc")
    assert a.shape[1] == 6 * 320
    assert a.shape[0] > 4 * 320
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)


def test_targets_are_outlined_where_they_are(images, tmp_path):
    draw_sheet(tmp_path / "sheet.png", images, [record(1, 20, simple=["the one"])], 0)
    sheet = load_image(tmp_path / "sheet.png")
    picture = sheet[80:240, :320]  # 80 x 40 px in a square of 320
    lines = picture.any(-1)
    assert lines[80, 78:83].any()
    assert lines[80, 157:163].any()
    assert not lines[80, 84:156].any()  # its own colour is to be seen
    assert not lines[:, 164:].any()
    assert not lines[:, :76].any()


def test_the_noun_of_part_of_a_class_is_no_instruction(images, tmp_path):
    part = record(1, 0, "one", concept=["square"], simple=["the left square"])
    both = record(1, 0, "all", concept=["square"], simple=["the left square"])
    sheets = []
    for name, given in (("part", part), ("both", both)):
        draw_sheet(tmp_path / f"{name}.png", images, [given], 0)
        sheets.append(load_image(tmp_path / f"{name}.png"))
    assert not sheets[0][:320, 320:].std() > 1  # the second place is empty
    assert sheets[1][:320, 320:640].std() > 1


def test_nothing_to_show_is_no_sheet(images, tmp_path):
    draw_sheet(tmp_path / "sheet.png", images, [], 0)
    assert not (tmp_path / "sheet.png").exists()
