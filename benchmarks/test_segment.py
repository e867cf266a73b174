"""What a user waits for: import, a fresh process, encode, one more instruction, a whole segment."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from sam3i_edge import Segmenter
from sam3i_edge.data.instructions import write_instruction
from sam3i_edge.data.scenes import draw_scene
from sam3i_edge.data.vocabulary import load_vocabulary
from sam3i_edge.levels import LEVELS, Level

_WARM_UP = 8
_SIZE = (480, 640)  # height, width: a camera's


@dataclass(frozen=True)
class _Question:
    image: NDArray[np.uint8]
    path: Path
    text: str
    level: Level


@pytest.fixture(scope="module")
def questions(settings: Any, tmp_path_factory: pytest.TempPathFactory) -> list[_Question]:
    """As many pictures as queries, all different, each with a text that no other has, levels in turn."""
    folder = tmp_path_factory.mktemp("images")
    found: list[_Question] = []
    texts: set[str] = set()
    number = 0
    while len(found) < settings.queries + _WARM_UP:
        rng = np.random.default_rng((2024, number))
        number += 1
        scene = draw_scene(rng, _SIZE)
        # The concept level knows few phrases: they run out, and the other levels have more.
        for level in (LEVELS[len(found) % 3], "simple", "complex"):
            written = write_instruction(scene, load_vocabulary("shapes"), rng, level)
            if written is not None and written.text not in texts:
                texts.add(written.text)
                path = folder / f"{len(found)}.png"
                if not cv2.imwrite(str(path), np.ascontiguousarray(scene.pixels()[..., ::-1])):
                    raise OSError(f"cannot write {path}")
                found.append(_Question(scene.pixels(), path, written.text, level))
                break
    return found


@pytest.fixture(scope="module")
def segmenter(settings: Any, measurements: Any) -> Iterator[Segmenter]:
    with Segmenter(settings.model, settings.device, threads=settings.threads) as opened:
        info = opened.info
        measurements.ran_on.update(
            model=info.model,
            variant=info.variant,
            device=info.device,
            runtime=info.runtime,
            precision=info.precision,
            image_size=info.image_size,
            picture=f"{_SIZE[1]} x {_SIZE[0]}",
        )
        yield opened


class _Watch:
    """Collects milliseconds, leaving out the warm-up."""

    def __init__(self, warm_up: int) -> None:
        self._skip = warm_up
        self.samples_ms: list[float] = []

    @contextlib.contextmanager
    def lap(self) -> Iterator[None]:
        started = time.perf_counter()
        yield
        spent = (time.perf_counter() - started) * 1e3
        if self._skip:
            self._skip -= 1
        else:
            self.samples_ms.append(spent)


def test_import(settings: Any, measurements: Any, child_environment: dict[str, str]) -> None:
    code = "import time; t = time.perf_counter(); import sam3i_edge; print((time.perf_counter() - t) * 1e3)"
    samples = [float(_child(["-c", code], child_environment)) for _ in range(settings.processes + 1)]
    measurements.add("import sam3i_edge, fresh process", samples[1:])  # the first writes byte code


def test_cold_start(
    settings: Any, measurements: Any, child_environment: dict[str, str], questions: list[_Question]
) -> None:
    watch = _Watch(1)  # the first reads everything from the disk
    for question in questions[: settings.processes + 1]:
        arguments = [
            "-m",
            "sam3i_edge",
            "segment",
            str(question.path),
            question.text,
            "--level",
            question.level,
        ]
        arguments += ["--model", settings.model, "--device", settings.device]
        arguments += ["--threads", str(settings.threads), "--json"]
        with watch.lap():
            output = _child(arguments, child_environment)
        assert json.loads(output)["image_size"] == list(_SIZE)
    measurements.add("sam3i-edge segment, fresh process, start to exit", watch.samples_ms)


def test_encode(measurements: Any, segmenter: Segmenter, questions: list[_Question]) -> None:
    watch = _Watch(_WARM_UP)
    for question in questions:
        with watch.lap():
            segmenter.encode(question.image)
    measurements.add("encode an image (array)", watch.samples_ms)


def test_one_more_instruction(measurements: Any, segmenter: Segmenter, questions: list[_Question]) -> None:
    scene = segmenter.encode(questions[0].image)
    new, again = _Watch(_WARM_UP), _Watch(_WARM_UP)
    # The cache holds more texts than these, so the second round finds each.
    for watch, cached in ((new, False), (again, True)):
        for question in questions:
            with watch.lap():
                result = scene.segment(question.text, level=question.level)
                masks = result.masks
            assert masks.shape[1:] == _SIZE
            assert (result.timings_ms["encode_text"] == 0) is cached
            assert result.timings_ms["encode_image"] == 0
    measurements.add("one more instruction, new text", new.samples_ms)
    measurements.add("one more instruction, known text", again.samples_ms)


def test_whole_segment(measurements: Any, settings: Any, questions: list[_Question]) -> None:
    watch = _Watch(_WARM_UP)
    with Segmenter(settings.model, settings.device, threads=settings.threads) as fresh:
        for question in questions:
            with watch.lap():
                result = fresh.segment(question.path, question.text, level=question.level)
                masks = result.masks
            assert masks.shape[1:] == _SIZE
            assert min(result.timings_ms[step] for step in ("encode_image", "encode_text")) > 0
    measurements.add("segment: new image (PNG file), new text", watch.samples_ms)


def _child(arguments: list[str], environment: dict[str, str]) -> str:
    """Runs Python with these arguments and gives what it printed."""
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
