"""Outputs of every kind where there is no room."""

from __future__ import annotations

import resource

import numpy as np
import pytest

from sam3i_edge import Segmenter
from sam3i_edge.outputs.answer import Answer
from sam3i_edge.outputs.open import open_output


@pytest.fixture
def little_room():
    """No file may grow beyond 4,000 bytes: what a full disk does, with another number."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("name", ["seen.json", "seen.jsonl", "seen.mcap", "seen.mp4", "seen.rrd", "seen"])
def test_a_file_that_cannot_be_written_is_named_and_none_is_left_that_looks_whole(
    tiny_bundle, tmp_path, little_room, name
):
    pixels = np.random.default_rng(0).integers(0, 256, (80, 120, 3), np.uint8)
    with Segmenter(tiny_bundle.root, threshold=0.0) as segmenter:
        results = segmenter.segment(pixels, ["star"])

    def write():
        with open_output(tmp_path / name, {"instructions": ["star"]}) as output:
            for number in range(6):
                output.write(Answer(f"{number}.png", results, number / 10))

    with pytest.raises(OSError, match=r"seen") as told:
        write()
    assert ".part" not in str(told.value)
    goes_on = {"seen", "seen.jsonl", ".seen.json.unfinished", "results.jsonl"}
    assert {path.name for path in tmp_path.rglob("*")} <= goes_on
