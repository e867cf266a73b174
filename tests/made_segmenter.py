"""A segmenter of the tiny bundle, and what runs in it."""

import numpy as np
import pytest

from sam3i_edge import Segmenter
from sam3i_edge.pipeline.graphs import Graphs


def picture(seed, size=(40, 60)):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


@pytest.fixture
def segmenter(tiny_bundle):
    with Segmenter(tiny_bundle.root, threads=1, threshold=0.0) as opened:
        yield opened


@pytest.fixture
def runs(monkeypatch):
    """Names of the graphs that ran, in order."""
    ran = []
    run = Graphs.run

    def counted(self, name, inputs, wanted):
        ran.append(name)
        return run(self, name, inputs, wanted)

    monkeypatch.setattr(Graphs, "run", counted)
    return ran


def same(a, b):
    return (
        np.array_equal(a.scores, b.scores)
        and np.array_equal(a.boxes, b.boxes)
        and np.array_equal(a.mask_logits, b.mask_logits)
        and (a.presence, a.level, a.instruction) == (b.presence, b.level, b.instruction)
    )
