from __future__ import annotations

from collections import Counter

import numpy as np

from sam3i_edge.data.pairs import write_pairs
from sam3i_edge.data.scenes import draw_scene
from sam3i_edge.data.vocabulary import load_vocabulary

WORDS = load_vocabulary("shapes")


def test_the_two_of_a_pair_mean_the_same_objects():
    kinds = Counter()
    for seed in range(12):
        rng = np.random.default_rng(seed)
        scene = draw_scene(rng, (120, 120))
        pairs = write_pairs(scene, WORDS, rng, 1)
        if pairs is None:
            continue
        (pair,) = pairs
        assert (pair.simple.level, pair.complex.level) == ("simple", "complex")
        assert pair.simple.targets == pair.complex.targets != ()
        assert pair.simple.granularity == pair.complex.granularity
        shapes = {scene.objects[target].category for target in pair.simple.targets}
        assert pair.concept == (shapes.pop() if len(shapes) == 1 else "shape")
        kinds[pair.simple.granularity] += 1
    assert kinds.total() >= 10
    assert {"one", "all"} <= set(kinds)


def test_it_is_a_function_of_scene_and_generator():
    scene = draw_scene(np.random.default_rng(3), (120, 120))
    first, again = (write_pairs(scene, WORDS, np.random.default_rng(5), 2) for _ in range(2))
    assert first == again
    rng = np.random.default_rng(5)
    assert write_pairs(scene, WORDS, rng, 0) == ()
    assert rng.random() == np.random.default_rng(5).random()


def test_several_pairs_have_different_targets_and_too_many_are_refused():
    rng = np.random.default_rng(1)
    scene = draw_scene(rng, (160, 160), objects=6)
    pairs = write_pairs(scene, WORDS, rng, 3)
    assert pairs is not None
    assert len({pair.simple.targets for pair in pairs}) == 3
    single = draw_scene(np.random.default_rng(0), (96, 96), objects=1)
    assert write_pairs(single, WORDS, rng, 2) is None
