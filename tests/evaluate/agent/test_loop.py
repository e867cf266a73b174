from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from sam3i_edge.evaluate.agent.loop import PHRASES, Agent, Choice, Failed


class Scripted:
    """Gives phrases and choices in turn; an exception among them is raised."""

    def __init__(self, phrases: Sequence, choices: Sequence = ()) -> None:
        self.left = {"phrases": list(phrases), "choose": list(choices)}
        self.seen: list = []

    def phrases(self, question, tried):
        self.seen.append(dict(tried))
        return self._next("phrases", question)

    def choose(self, question, candidates):
        self.seen.append([candidate.phrase for candidate in candidates])
        return self._next("choose", question)

    def _next(self, kind, question):
        question.bill.calls += 1
        question.bill.tokens += 7
        question.bill.seconds += 0.25
        given = self.left[kind].pop(0)
        if isinstance(given, Exception):
            raise given
        return given


def _asked(segmenter, reasoner, **options):
    agent = Agent(segmenter, reasoner, **options)
    answer = agent.encode(Path("a.png")).segment("words", level="complex", threshold=None)
    return answer, agent.costs[0]


def _columns(answer):
    return [int(np.flatnonzero(mask.any(axis=0))[0]) for mask in answer.masks]


def test_phrases_are_asked_at_the_concept_level_and_masks_are_chosen(segmenter):
    reasoner = Scripted([["mug", "cup", "mug"]], [Choice((1,), again=False)])
    answer, cost = _asked(segmenter, reasoner)
    assert segmenter.asked == [("mug", "concept"), ("cup", "concept")]
    assert reasoner.seen == [{}, ["mug", "mug"]]  # the cup is the blue mug: no third candidate
    assert _columns(answer) == [35]
    assert (answer.level, answer.presence, answer.threshold) == ("concept", 1.0, 0.5)
    assert (cost.calls, cost.tokens, cost.passes, cost.rounds, cost.failure) == (2, 14, 2, 1, "")
    assert 500 <= cost.ms < 1500  # the reasoner says that it took half a second; the passes take no time


def test_another_round_adds_masks_to_choose_from(segmenter):
    reasoner = Scripted(
        [["tray"], ["plate"], ["plate", "mug"]],
        [Choice((0,), again=True), Choice((0, 2), again=True)],
    )
    answer, cost = _asked(segmenter, reasoner)
    assert reasoner.seen == [{}, {"tray": 0}, ["plate"], {"tray": 0, "plate": 1}, ["plate", "mug", "mug"]]
    assert segmenter.asked == [("tray", "concept"), ("plate", "concept"), ("mug", "concept")]
    assert _columns(answer) == [65, 35]
    assert (cost.rounds, cost.passes, cost.calls) == (3, 3, 5)  # and no fourth round


@pytest.mark.parametrize("phrases", [[[]], [["tray"], ["tray"]], [["tray"], []]])
def test_without_a_new_phrase_there_is_nothing_more_to_do(segmenter, phrases):
    answer, cost = _asked(segmenter, Scripted(phrases))
    assert (len(answer.masks), answer.masks.shape[1:], answer.presence) == (0, (60, 90), 0.0)
    assert (cost.rounds, cost.failure) == (len(phrases), "")


def test_a_reasoner_that_fails_leaves_what_was_chosen(segmenter):
    reasoner = Scripted([["mug"], Failed("it is tired")], [Choice((0,), again=True)])
    answer, cost = _asked(segmenter, reasoner)
    assert _columns(answer) == [5]
    assert (cost.failure, cost.rounds, cost.calls) == ("it is tired", 2, 3)


def test_bounds(segmenter):
    reasoner = Scripted([[f"thing {number}" for number in range(20)]] * 2)
    _asked(segmenter, reasoner, rounds=1)
    assert len(segmenter.asked) == PHRASES
    with pytest.raises(ValueError, match="rounds must be at least 1, got 0"):
        Agent(segmenter, reasoner, rounds=0)
