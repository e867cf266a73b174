"""Models of the official size: transformers, and its graphs as others ship them, in turn with ours.

    pytest benchmarks/peers/test_official_size.py --official FOLDER [--sides 336,1008] [--budget full]

`official_graphs.py` makes FOLDER. All weights are random, and each way has its own: times and memory mean
something, answers do not and are not compared here (tests/model compares them on equal weights). With
`--budget quick` the image encoder of transformers is timed by block above 336 px: each kind of block, times
how often it runs, added up. Such a row says "by block" and has no peak memory.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sam3i_edge.measure.process import Child
from sam3i_edge.measure.statistics import speedup
from studies.findings import Peer

_SESSION = Path(__file__).with_name("official_session.py")
_ROUNDS = {"quick": 3, "full": 10}
_WHOLE = 336  # above, a quick run times the encoder of transformers by block


@dataclass(frozen=True)
class Way:
    """How a model is run: a method of `OfficialSession`, and what it takes after side and threads."""

    name: str
    opened: str
    folder: str | None = None
    given: tuple[Any, ...] = ()


OURS = (
    Way("ONNX Runtime int8", "ours", "onnx-int8", ("onnxruntime",)),
    Way("OpenVINO int8", "ours", "openvino-int8", ("openvino",)),
    Way("OpenVINO int8-bf16", "ours", "openvino-int8-bf16", ("openvino",)),
)
PEERS = (
    Way("transformers, eager float32", "transformers", given=("float32", False)),
    Way("transformers, eager bfloat16", "transformers", given=("bfloat16", False)),
    Way("transformers, torch.compile float32", "transformers", given=("float32", True)),
    Way("transformers by OpenVINO, float weights (its bfloat16)", "openvino", "peer-fp32"),
    Way("transformers by OpenVINO, NNCF int8 weights", "openvino", "peer-int8w"),
    Way("transformers by OpenVINO, NNCF W8A8", "openvino", "peer-w8a8"),
    Way("our graphs, ONNX Runtime fp32", "ours", "onnx-fp32", ("onnxruntime",)),
    Way("our graphs, quantize_dynamic QInt8", "ours", "dynamic-QInt8", ("onnxruntime",)),
    Way("our graphs, quantize_dynamic QUInt8", "ours", "dynamic-QUInt8", ("onnxruntime",)),
)


class Opened:
    """A way that runs, and what it took so far: part -> ms."""

    def __init__(self, way: Way, place: Path, side: int, threads: int, by_block: bool) -> None:
        self.child = Child([str(_SESSION)], way.name, threads)
        given = way.given if way.folder is None else (place / way.folder, *way.given)
        by_block = by_block and way.opened == "transformers"
        given = (*given, by_block) if way.opened == "transformers" else given
        self.blocks: dict[str, int] = self.child.call(way.opened, side, threads, *given)
        self.by_block = by_block
        self.label = f"{way.name}, by block" if by_block else way.name

    def lap(self, part: str) -> float:
        """Milliseconds of one run of a part; the image encoder may be a sum over its blocks."""
        blocks = self.blocks if part == "image" else {part: 1}
        return sum(count * self.child.call("timed", block, 1)[0] for block, count in blocks.items())

    def peak(self) -> int | None:
        """Most memory that it has held, bytes; None by block, where it does less than the whole."""
        return None if self.by_block else int(self.child.call("peak_memory"))


@pytest.fixture(scope="module")
def folder(pytestconfig: pytest.Config) -> Path:
    found: Path | None = pytestconfig.getoption("--official")
    if found is None:
        pytest.skip("no models of the official size: make them with benchmarks/peers/official_graphs.py "
                    "and name their folder with --official")  # fmt: skip
    return found


@pytest.fixture(scope="module")
def side(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture(scope="module")
def ours(folder: Path, side: int, settings: Any) -> Any:
    place = folder / str(side)
    with contextlib.ExitStack() as stack:
        opened = []
        for way in OURS:
            if not (place / str(way.folder)).is_dir():
                continue
            one = Opened(way, place, side, settings.threads, False)
            stack.enter_context(one.child)
            for part in ("image", "text", "detect"):
                one.lap(part)
            opened.append(one)
        if not opened:
            pytest.skip(f"{place} has no graphs of ours: make them with official_graphs.py")
        yield opened


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "side" in metafunc.fixturenames:
        sides = metafunc.config.getoption("--sides").split(",")
        metafunc.parametrize("side", sides, ids=[f"{one} px" for one in sides], indirect=True)


@pytest.mark.parametrize("way", PEERS, ids=lambda way: way.name)
def test_official_size(way: Way, side: int, folder: Path, ours: Any, rows: Any, settings: Any) -> None:
    budget = rows.results.settings.budget
    place = folder / str(side)
    if way.folder is not None and not (place / way.folder).is_dir():
        pytest.skip(f"{side}/{way.folder} is not in the folder: make it with official_graphs.py")
    peer = Opened(way, place, side, settings.threads, budget == "quick" and side > _WHOLE)
    taken: dict[tuple[str, str], list[float]] = {}
    with peer.child:
        for part in ("image", "text", "detect"):
            peer.lap(part)
            for _ in range(_ROUNDS[budget]):
                for one in (peer, *ours):
                    taken.setdefault((one.label, part), []).append(one.lap(part))
        peaks = {one.label: one.peak() for one in (peer, *ours)}
    found = []
    for own in ours:
        for task, parts in (
            ("image encoder", ("image",)),
            ("one more instruction, known text", ("detect",)),
            ("one more instruction, new text", ("text", "detect")),
            ("picture and instruction", ("image", "text", "detect")),
        ):
            theirs, mine = (
                np.sum([taken[label, part] for part in parts], axis=0).tolist()
                for label in (peer.label, own.label)
            )
            found.append(
                Peer(
                    task=f"{side} px, {task}",
                    peer=peer.label,
                    ours=own.label,
                    peer_ms=float(np.median(theirs)),
                    ours_ms=float(np.median(mine)),
                    speedup=speedup(theirs, mine),
                    agreement="not compared: random weights",
                    peer_peak_bytes=peaks[peer.label],
                    ours_peak_bytes=peaks[own.label],
                )
            )
    rows.find(peers=(*rows.findings.peers, *found))
    assert all(one.peer_ms > 0 and one.ours_ms > 0 for one in found)
