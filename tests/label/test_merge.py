from __future__ import annotations

import numpy as np
import pytest

from sam3i_edge import Result
from sam3i_edge.label.merge import merged
from sam3i_edge.masks import rle


def result(instruction, *found):
    """A result of (score, columns of an 8 x 8 mask)."""
    logits = np.full((len(found), 8, 8), -1, np.float32)
    for row, (_, columns) in enumerate(found):
        logits[row, :, columns] = 1
    return Result(
        image_size=(8, 8),
        instruction=instruction,
        level="concept",
        level_chosen_by="auto",
        presence=1.0,
        scores=np.array([score for score, _ in found], np.float32),
        boxes=np.zeros((len(found), 4), np.float32),
        mask_logits=logits,
        threshold=0.35,
        model="none",
        device="cpu",
        runtime="none",
        precision="fp32",
    )


LEFT, RIGHT, MOST = slice(0, 4), slice(4, 8), slice(0, 5)


def merge(*results, **settings):
    return merged(results, **{"threshold": 0.5, "margin": 0.15, "duplicates": 0.7, **settings})


def scores(entry, key="instances"):
    return [one["score"] for one in entry[key]]


def test_of_two_labels_of_one_thing_the_surer_one_stays():
    ring, star = merge(result("ring", (0.7, LEFT)), result("star", (0.9, MOST), (0.8, RIGHT)))
    assert (scores(ring), ring["dropped"]) == ([], 1)
    assert (scores(star), star["dropped"]) == ([0.9, 0.8], 0)
    assert rle.area(star["instances"][0]["mask"]) == 40


def test_equal_scores_fall_to_the_earlier_instruction():
    ring, star = merge(result("ring", (0.9, LEFT)), result("star", (0.9, LEFT)))
    assert (scores(ring), scores(star)) == ([0.9], [])
    assert star["why"] == "'ring' has the same (0.90 to 0.90)"
    assert ring["why"] == ""


def test_overlap_up_to_the_limit_is_kept():
    two = (result("ring", (0.9, LEFT)), result("star", (0.8, MOST)))  # IoU 0.8
    assert [len(entry["instances"]) for entry in merge(*two, duplicates=0.8)] == [1, 1]
    assert [len(entry["instances"]) for entry in merge(*two, duplicates=0.79)] == [1, 0]


def test_what_is_dropped_drops_nothing():
    a, b, c = (
        result("a", (0.9, slice(0, 6))),
        result("b", (0.8, slice(1, 7))),
        result("c", (0.7, slice(2, 8))),
    )
    # a and b overlap by 5/7, b and c too, a and c by 4/8 alone.
    assert [len(entry["instances"]) for entry in merge(a, b, c)] == [1, 0, 1]


@pytest.mark.parametrize(("score", "why"), [(0.64, True), (0.66, False), (0.36, True), (0.9, False)])
def test_scores_near_the_threshold_are_uncertain(score, why):
    (entry,) = merge(result("star", (score, LEFT)))
    assert bool(entry["why"]) is why
    assert scores(entry) == ([score] if score > 0.5 else [])
    assert scores(entry, "near") == ([] if score > 0.5 else [score])


def test_what_is_not_sure_enough_drops_no_label():
    ring, star = merge(result("ring", (0.45, LEFT)), result("star", (0.6, LEFT)))
    assert (scores(ring, "near"), scores(star)) == ([0.45], [0.6])


def test_nothing_found_is_an_answer():
    assert scores(merge(result("star"), result("ring"))[0]) == []
