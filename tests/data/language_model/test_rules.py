from collections import Counter
from itertools import combinations
from random import Random

import numpy as np
import pytest

from sam3i_edge.data.geometry import view_of
from sam3i_edge.data.instructions import write_instruction
from sam3i_edge.data.language_model.rules import Rules, is_plain
from sam3i_edge.data.phrase import plain
from sam3i_edge.data.scenes import draw_scene
from sam3i_edge.data.truth import answer
from sam3i_edge.data.vocabulary import load_vocabulary
from sam3i_edge.data.wording import phrase_of


@pytest.fixture(scope="module")
def rules():
    return Rules(load_vocabulary("tabletop"))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("the red mug", "Could you find the red mug?"),
        ("the red mug", "can you show me the coffee mug that is red"),
        ("the mug on the left", "the leftmost mug"),
        ("every mug that is not red", "all mugs that aren't red"),
        ("every plate except the blue one", "all plates but the blue one"),
        ("the two mugs left of the plate", "both mugs to the left of the plate"),
        ("the biggest gray box", "the largest grey box"),
        ("the mug next to the kettle", "which mug is beside the kettle?"),
    ],
)
def test_other_words_for_the_same_are_kept(rules, before, after):
    assert rules.lost(before, after) is None


@pytest.mark.parametrize(
    ("before", "after", "lost"),
    [
        ("every mug that is not red", "every red mug", "another negation"),
        ("every mug", "every mug but one", "another negation"),
        ("the red mug", "the mug", "another color"),
        ("the mug", "the red mug", "another color"),
        ("the red mug left of the blue mug", "the blue mug left of the red mug", "another color"),
        ("the mug left of the plate", "the plate left of the mug", "another noun"),
        ("the mug left of the plate", "the mug right of the plate", "another place"),
        ("the mug behind the plate", "the mug near the plate", "another place"),
        ("the mug on the plate", "the mug, and the plate", "another place"),
        ("two mugs", "three mugs", "another number"),
        ("the second mug from the left", "the mug on the left", "another number"),
        ("the largest mug", "the smallest mug", "another comparison"),
        (
            "the mug of the same color as the plate",
            "the mug of the same material as the plate",
            "another color",
        ),
        ("the red can", "can you find the red one?", "another noun"),
    ],
)
def test_a_condition_that_goes_or_comes_is_named(rules, before, after, lost):
    assert rules.lost(before, after) == lost


def test_names_of_a_target_are_those_people_use(rules):
    assert rules.names("What is in my coffee mug?", ["mug"])
    assert rules.names("the cups", ["mug"])  # people call one by the other's name
    assert not rules.names("what can one drink from", ["can", "mug"])
    assert rules.names("the old gramophone", ["gramophone"])  # no vocabulary knows it
    assert not rules.names("what plays music", ["gramophone"])


@pytest.mark.parametrize(
    ("text", "fine"),
    [
        ("what's left of the mug's handle, please?", True),
        ("object 3", False),
        ("the item number 3", False),
        ("- the mug", False),
        ("the mug\nthe plate", False),
        ('"the mug"', False),
        ("the mug 😀", False),
        ("mug " * 25, False),
        ("", False),
    ],
)
def test_only_a_plain_line_passes(text, fine):
    assert is_plain(text) is fine


def test_the_rules_catch_nearly_all_other_meanings_and_keep_most_other_wordings():
    """The figures of docs/data-language-model.md; questions about drawn scenes have more than one wording."""
    vocabulary = load_vocabulary("shapes")
    rules, kept, caught = Rules(vocabulary), Counter(), Counter()
    for seed in range(100):
        rng, random = np.random.default_rng((99, seed)), Random(seed)
        scene = draw_scene(rng, objects=8)
        for level in ("simple", "complex"):
            written = [write_instruction(scene, vocabulary, rng, level) for _ in range(6)]
            found = [one for one in written if one is not None]
            for one in found:
                phrase = phrase_of(one.query, answer(one.query, view_of(scene)), vocabulary, random)
                kept[level, rules.lost(one.text, plain(phrase, random)) is None] += 1
            for one, other in combinations(found, 2):
                if one.targets != other.targets:
                    caught[level, rules.lost(one.text, other.text) is not None] += 1
    for level, least_caught in (("simple", 0.998), ("complex", 0.98)):
        assert caught[level, True] + caught[level, False] > 1000
        assert caught[level, True] / (caught[level, True] + caught[level, False]) > least_caught
        assert kept[level, True] / (kept[level, True] + kept[level, False]) > 0.87
