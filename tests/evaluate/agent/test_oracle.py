from __future__ import annotations

import numpy as np
import pytest

from sam3i_edge.evaluate.agent.comparison import instructions, through
from sam3i_edge.evaluate.agent.loop import Agent, Candidate, Question
from sam3i_edge.evaluate.agent.oracle import Oracle


def _report(segmenter, records, images, **options):
    agent = Agent(segmenter, Oracle(records, images, **options))
    return through(agent, instructions(records), images)


def test_with_perfect_masks_it_is_always_right(segmenter, records, images):
    report, costs = _report(segmenter, records, images)
    cell = report.cell()
    assert (cell.giou, cell.giou_with_none, cell.none_accuracy, cell.pairs) == (1.0, 1.0, 1.0, 7)
    assert {level for _, level in segmenter.asked} == {"concept"}
    by_text = {one.instruction: cost for one, cost in zip(report.outcomes, costs, strict=True)}
    assert by_text["the green mug"].calls == 1  # it says that there is nothing, and nobody looks
    assert by_text["what holds red tea"].calls == 2


def test_what_the_concept_level_misses_is_missed(segmenter, records, images):
    segmenter.finds["mug"] = ("blue mug",)
    report, _ = _report(segmenter, records, images)
    found = {one.instruction: one.overlap.iou() for one in report.outcomes}
    assert found["the mug on the left"] == 0.0
    assert found["all mugs"] == 0.5
    assert found["everything on the right"] == 1.0


def test_it_errs_at_the_rate_and_always_alike(segmenter, records, images):
    always, _ = _report(segmenter, records, images, errors=1.0)
    assert max(one.overlap.iou() for one in always.outcomes if one.has_target) < 1.0
    half = [_report(segmenter, records, images, errors=0.5, seed=3)[0] for _ in range(2)]
    assert half[0].outcomes == half[1].outcomes
    oracle = Oracle(records, images, errors=0.3)
    question = Question(images / "a.png", np.zeros((60, 90, 3), np.uint8), "what holds red tea")
    wrong = sum("mug" not in oracle.phrases(question, {}) for _ in range(1000))
    assert 250 < wrong < 350
    with pytest.raises(ValueError, match=r"share, 0 to 1, got 1\.5"):
        Oracle(records, images, errors=1.5)


def test_it_takes_the_masks_that_cover_the_targets_best(records, images, segmenter):
    targets = records[2].masks()  # both mugs
    everything = np.ones_like(targets[0])
    half = targets[0].copy()
    half[:30] = False
    candidates = [Candidate("x", mask) for mask in (everything, half, targets[1], targets[0])]
    question = Question(images / "a.png", np.zeros((60, 90, 3), np.uint8), "all mugs")
    choice = Oracle(records, images).choose(question, candidates)
    assert 0 not in choice.masks
    assert {2, 3} <= set(choice.masks)
    assert not choice.again
    missing = Oracle(records, images).choose(question, candidates[1:3])
    assert (missing.masks, missing.again) == ((0, 1), False)  # half a mug is found: IoU 0.5
    assert Oracle(records, images).choose(question, candidates[2:3]).again
