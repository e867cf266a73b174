"""A recording of rerun, read by its own command."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from sam3i_edge import Segmenter
from sam3i_edge.cli.app import main
from sam3i_edge.outputs.answer import Answer
from sam3i_edge.outputs.open import open_output
from sam3i_edge.outputs.rerun import RerunLog, _numbers, rerun_log

rerun = pytest.importorskip("rerun", reason="extra rerun is not installed")


def read(path):
    """What rerun's command prints of a file, in full; it keeps its settings in HOME."""
    command = [sys.executable, "-m", "rerun", "rrd", "print", "-vvv", str(path)]
    home = {**os.environ, "HOME": str(path.parent), "XDG_CONFIG_HOME": str(path.parent / "config")}
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120, env=home).stdout


def test_a_recording_has_pictures_masks_boxes_ids_and_times(tiny_bundle, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    path = tmp_path / "seen.rrd"
    with Segmenter(tiny_bundle.root, threshold=0.3) as segmenter, rerun_log(path) as log:
        results = list(segmenter.stream([pixels] * 2, "star / ring"))
        assert len(results[0]) > 0
        for number, result in enumerate(results):
            log.write(Answer(f"clip/{number}", [result], number / 10))
        log.write(Answer("broken.png", error="no picture"))
        assert not path.exists(), "it appears when it is whole"
    text = read(path)
    found = set(re.findall(r"entity_path: (.+?) *\u2502", text))
    place = r"/picture/star\ \/\ ring"
    wanted = {"/name", "/picture", *(f"{place}/{name}" for name in ("masks", "boxes", "presence"))}
    assert wanted | {f"/timings/{step}" for step in ("encode_image", "detect", "total")} <= found
    for part in ("SegmentationImage", "Boxes2D", "video", "broken.png: no picture", "clip/1"):
        assert part in text, part
    for number, score in zip(results[0].track_ids, results[0].scores, strict=True):
        assert f"{number}: {score:.2f}" in text


def test_a_run_that_fails_leaves_no_recording(tmp_path):
    with pytest.raises(KeyboardInterrupt), rerun_log(tmp_path / "seen.rrd"):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_what_has_no_id_yet_has_a_number_of_its_own(tiny_bundle):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    with Segmenter(tiny_bundle.root, threshold=0.0) as segmenter:
        result = segmenter.segment(pixels, "star")
    assert _numbers(result).tolist() == [1, 2, 3, 4]
    tracked = replace(result, track_ids=np.array([7, 0, 3, 0]))
    numbers = _numbers(tracked).tolist()
    assert (numbers[0], numbers[2]) == (7, 3)
    assert len(set(numbers)) == 4


def test_the_ending_of_a_name_asks_for_a_recording(tmp_path):
    with open_output(tmp_path / "seen.rrd", {}) as output:
        assert isinstance(output, RerunLog)
    assert (tmp_path / "seen.rrd").stat().st_size > 0


def test_the_command_shows_what_it_finds_and_says_when_there_is_no_viewer(
    tiny_bundle, tmp_path, monkeypatch, capsys
):
    shown = []
    monkeypatch.setattr(rerun.RecordingStream, "spawn", lambda self: None)
    monkeypatch.setattr(RerunLog, "write", lambda self, answer: shown.append(answer.name))
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / "a.png")
    command = ["segment", str(tmp_path / "a.png"), "star", "--rerun", "--model", str(tiny_bundle.root)]
    assert main(command) == 0
    assert shown == [str(tmp_path / "a.png")]

    def none(self):
        raise RuntimeError("no viewer in PATH")

    monkeypatch.setattr(rerun.RecordingStream, "spawn", none)
    capsys.readouterr()
    assert main(command) == 1
    assert capsys.readouterr().err.startswith(
        "sam3i-edge: rerun's viewer cannot be started: no viewer in PATH"
    )
