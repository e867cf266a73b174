from __future__ import annotations

import re
from collections import defaultdict

from sam3i_edge.data.palette import COLORS, FILLS
from sam3i_edge.data.scenes import SIZES
from sam3i_edge.data.shapes import SHAPES
from sam3i_edge.data.wording import ADJECTIVES, FILL_PHRASES, LIKE, NOUNS, RIDDLES, numbered


def test_one_and_many() -> None:
    assert numbered("that look[s|] like [a gem|gems]", False) == "that looks like a gem"
    assert numbered("that look[s|] like [a gem|gems]", True) == "that look like gems"
    assert numbered("left of the ring", True) == "left of the ring"


def test_every_name_has_words() -> None:
    assert set(NOUNS) == set(SHAPES)
    assert set(LIKE) == set(COLORS)
    assert set(FILL_PHRASES) == set(FILLS)
    assert set(ADJECTIVES) >= {*SIZES, *FILLS}
    assert {shape for riddle in RIDDLES for shape in riddle.shapes} == set(SHAPES)
    for forms in NOUNS.values():
        assert forms[0][2] > 0.5, "the usual noun is not the usual one"


def test_a_riddle_has_one_answer() -> None:
    answers = defaultdict(set)
    for riddle in RIDDLES:
        assert riddle.shapes
        assert not riddle.shapes & riddle.unclear
        for phrase in riddle.phrases:
            answers[phrase].add(riddle.shapes)
    assert all(len(shapes) == 1 for shapes in answers.values())


def test_riddles_do_not_name_shapes_or_leave_brackets() -> None:
    noun = re.compile(rf"\b(?:{'|'.join(SHAPES)})(?:s|es)?\b")
    for riddle in RIDDLES:
        for phrase in riddle.phrases:
            for many in (False, True):
                text = numbered(phrase, many)
                assert not noun.search(text), text
                assert not set("[]|") & set(text), text
                assert re.match(r"(with|without|that|shaped|made|used|balanced) ", text), text
