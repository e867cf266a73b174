"""What comes from outside, damaged in every way: an answer, or one error that the interface documents.

`FUZZ_MINUTES` are shared out evenly among the ten kinds: the eight targets below, instructions and the C
library. Each has 6 s where it is not set; `make fuzz MINUTES=60` sets it.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from sam3i_edge.errors import InstructionError
from sam3i_edge.pipeline.tokenizer import clean
from sam3i_edge.segmenter import Segmenter

CHILD = Path(__file__).with_name("child.py")
TARGETS = ("bundle", "image", "tokenizer", "checkpoint", "annotations", "sources", "config", "cli")
SECONDS = 60 * float(os.environ.get("FUZZ_MINUTES", "1")) / 10  # of each kind
MOST_FAILURES = 5

pytestmark = [pytest.mark.slow, pytest.mark.timeout(SECONDS + 900)]


def _module(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def child():
    sys.path.insert(0, str(CHILD.parent))  # for what it damages with
    return _module(CHILD)


@pytest.fixture
def seeds(write_tiny_bundle, tmp_path):
    made = _module(CHILD.with_name("seeds.py"))
    made.make_seeds(tmp_path, write_tiny_bundle, _module(CHILD.parents[1] / "train" / "tiny.py"))
    return tmp_path


def test_every_target_is_tested(child):
    assert tuple(child.TARGETS) == TARGETS


@pytest.mark.parametrize("target", TARGETS)
def test_no_case_crashes_hangs_or_raises_anything_else(target, seeds):
    end, first, failures = time.monotonic() + SECONDS, 0, []
    while first == 0 or (failures and time.monotonic() < end and len(failures) < MOST_FAILURES):
        done = subprocess.run(
            [sys.executable, CHILD, target, seeds, "--first", str(first),
             "--seconds", str(end - time.monotonic())],
            capture_output=True, check=False, env={**os.environ, "RUST_BACKTRACE": "0"},
        )  # fmt: skip
        if done.returncode == 0:
            break
        case = int((seeds / "case").read_text())
        how = signal.Signals(-done.returncode).name if done.returncode < 0 else f"exit code {done.returncode}"
        failures.append(f"case {case} of {target}: {how}\n{done.stderr.decode(errors='replace')[-3000:]}")
        first = case + 1  # what it left half done lies in names that the next case writes anew
    assert not failures, "\n\n".join(failures)


_SIGNS = "\"'&;<>#x0 aA.,-\u2018\u2019\u201c\u201d\u2013\u2014\u200b\ufeff\u202e\u0301\xab\xbb"
_LONG = st.builds(lambda text, times: text * times, st.text(max_size=4), st.integers(0, 6000))
_TEXTS = st.text() | st.text(alphabet=_SIGNS) | _LONG


def test_any_instruction_is_answered_or_refused(tiny_bundle):
    image = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    with Segmenter(tiny_bundle.root, device="cpu", threads=1, threshold=0) as segmenter:

        def check(text: str) -> None:
            try:
                result = segmenter.segment(image, text)
            except InstructionError:
                return
            assert len(result.scores) > 0
            assert result.masks.shape[1:] == (30, 40)
            assert clean(clean(text)) == clean(text)
            again = segmenter.segment(image, clean(text))
            np.testing.assert_array_equal(again.scores, result.scores)

        end = time.monotonic() + SECONDS
        for seed in range(10**9):
            settings = hypothesis.settings(max_examples=100, database=None, derandomize=False)
            hypothesis.seed(seed)(settings(hypothesis.given(_TEXTS)(check)))()
            if time.monotonic() >= end:
                break
