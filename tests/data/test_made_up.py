import numpy as np
import pytest

from sam3i_edge.data.instructions import write_instruction
from sam3i_edge.data.made_up import made_up
from sam3i_edge.data.vocabulary import VOCABULARIES, load_vocabulary
from sam3i_edge.levels import LEVELS


@pytest.mark.parametrize("name", VOCABULARIES)
def test_instructions_of_every_level_can_be_written(name):
    vocabulary = load_vocabulary(name)
    texts = {level: set() for level in LEVELS}
    seen = set()
    for seed in range(30):
        rng = np.random.default_rng(seed)
        scene = made_up(vocabulary, rng)
        assert 3 <= len(scene.objects) <= 8
        for item in scene.objects:
            seen.add(item.category)
            x0, y0, x1, y1 = map(int, item.box)
            assert item.mask.sum() == item.mask[y0:y1, x0:x1].sum() == (x1 - x0) * (y1 - y0)
            assert item.category in vocabulary.categories
            assert set(item.attributes) == set(vocabulary.properties)
        for level in LEVELS:
            written = write_instruction(scene, vocabulary, rng, level)
            if written is not None:
                texts[level].add(written.text)
    assert min(map(len, texts.values())) >= 20
    assert len(seen) > min(10, len(vocabulary.categories) - 1)


def test_the_same_state_makes_the_same_scene():
    first, second = (made_up(load_vocabulary("coco"), np.random.default_rng(5)) for _ in range(2))
    assert [item.category for item in first.objects] == [item.category for item in second.objects]
    assert np.array_equal(first.masks, second.masks)
