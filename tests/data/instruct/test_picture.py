from __future__ import annotations

import numpy as np
import pytest

from sam3i_edge.data.instruct.picture import as_records, write_picture
from sam3i_edge.data.instructions import Instruction
from sam3i_edge.data.scenes import draw_scene
from sam3i_edge.data.vocabulary import load_vocabulary

SHAPES = load_vocabulary("shapes")


@pytest.fixture
def scene():
    return draw_scene(np.random.default_rng(3), (96, 128), objects=5)


def test_equal_targets_and_granularity_make_one_record(scene):
    noun = SHAPES.nouns(scene.objects[0].category)[0].one
    written = [
        Instruction("the first", "simple", "one", (0,)),
        Instruction("what comes first", "complex", "one", (0,)),
        Instruction("all of the first", "simple", "all", (0,)),
        Instruction("the first and the second", "simple", "subset", (0, 1)),
        Instruction(noun, "concept", "all", (0,)),
        Instruction("cat", "concept", "none", ()),
        Instruction("the dog", "simple", "none", ()),
    ]
    records = as_records(scene, SHAPES, written, "a.png")
    found = [(r.granularity, r.concept, r.simple, r.complex, len(r.annotations)) for r in records]
    both = {scene.objects[n].category for n in (0, 1)}
    mixed = noun if len(both) == 1 else SHAPES.mixed
    assert found == [
        ("one", [noun], ["the first"], ["what comes first"], 1),
        ("all", [noun], ["all of the first"], [], 1),
        ("subset", [mixed], ["the first and the second"], [], 2),
        ("none", ["cat"], ["the dog"], [], 0),
    ]
    assert [r.image_id for r in records] == [1, 2, 3, 4]
    assert [a.id for r in records for a in r.annotations] == [1, 2, 3, 4]
    assert np.array_equal(records[2].masks(), np.stack([scene.objects[n].mask for n in (0, 1)]))


def test_no_text_twice_and_no_more_than_asked_for(scene):
    rng = np.random.default_rng(0)
    written = write_picture(scene, SHAPES, rng, levels=("simple", "complex"), most=9, review=3)
    texts = [one.text for one in written.instructions]
    assert len(texts) == len(set(texts)) == 9
    assert {one.level for one in written.instructions} == {"simple", "complex"}
    first, second = written.instructions[:2]
    assert (first.level, second.level, first.targets) == ("simple", "complex", second.targets)
    assert all(one.why for one in written.review)


def test_what_a_picture_gives_no_occasion_for_is_counted():
    scene = draw_scene(np.random.default_rng(0), (96, 128), objects=1)
    written = write_picture(scene, SHAPES, np.random.default_rng(0), levels=("simple",), most=20, review=0)
    assert written.dropped["no occasion: simple, subset"] > 0
    assert written.review == ()
