"""Settings of every test run, and fixtures that several test files share."""

from __future__ import annotations

import faulthandler
import functools
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read once, when huggingface_hub is imported
os.environ.setdefault("OMP_NUM_THREADS", "1")  # models here are tiny, and tests run beside each other

import filelock
import hypothesis
import numpy as np
import pytest
import torch

from browser import chromium, launch  # noqa: F401  (fixtures)
from made_camera import camera, video  # noqa: F401  (fixtures)
from made_segmenter import runs, segmenter  # noqa: F401  (fixtures)
from sam3i_edge.agreement import LIMITS
from sam3i_edge.bundle.folder import Bundle

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # kernels run on the CPU, in Triton's interpreter

torch.use_deterministic_algorithms(True)  # fills torch.empty with NaN too: what is left unwritten shows
hypothesis.settings.register_profile("sam3i-edge", derandomize=True, deadline=None)
hypothesis.settings.load_profile("sam3i-edge")


SECONDS = 300  # a test's limit, fixtures included, on an idle machine that counts a million squares in 0.06 s
WORKER = "PYTEST_XDIST_WORKER" in os.environ


def pytest_configure(config: pytest.Config) -> None:
    config.uncaptured = os.dup(2)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests come first, so that at the end none keeps one process busy while the others wait."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_collection_finish() -> None:
    """Exports take a fifth less time here, and give the same graphs.

    The exporter makes its table of operators for every graph; here it is made once. And it tries every rule
    at every node; here one whose pattern ends in another operator is left out.
    """
    if "sam3i_edge.export.onnx.graph_file" in sys.modules:
        from onnxscript.rewriter import RewriteRule
        from torch.onnx._internal.exporter._registration import ONNXRegistry

        ONNXRegistry.from_torchlib = staticmethod(functools.cache(ONNXRegistry.from_torchlib))
        try_anywhere = RewriteRule.try_rewrite

        @functools.wraps(try_anywhere)
        def try_rewrite(rule, model, graph, node, **options):
            wanted = rule._target_pattern.output_nodes[0].op_identifier()
            if wanted not in (None, node.op_identifier()):
                return None
            return try_anywhere(rule, model, graph, node, **options)

        RewriteRule.try_rewrite = try_rewrite


@functools.cache
def _slowness() -> float:
    """How many times as long as there this machine takes to count, at least 1."""
    start = time.process_time()
    sum(number * number for number in range(2_000_000))
    return max(1.0, (time.process_time() - start) / 0.12)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item):
    """Gives each test its limit, after which pytest-timeout fails it alone; longer on busy cores.

    A test that hangs outside Python never sees the signal: its worker ends, and another takes over.
    """
    if item.config.option.timeout is not None or item.get_closest_marker("timeout"):
        return (yield)
    limit = SECONDS * _slowness() * max(1.0, os.getloadavg()[0] / os.cpu_count())
    item.add_marker(pytest.mark.timeout(limit, method="signal"))
    if WORKER:
        faulthandler.dump_traceback_later(2 * limit, exit=True, file=item.config.uncaptured)
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], None]], Path]:
    """`made_once(name, make)`: a folder that `make` filled for the first worker that asked."""
    root = tmp_path_factory.getbasetemp()
    root = root.parent if WORKER else root

    def folder(name: str, make: Callable[[Path], None]) -> Path:
        place = root / name
        with filelock.FileLock(root / f"{name}.lock"):
            if not place.exists():
                unfinished = Path(tempfile.mkdtemp(dir=root))
                make(unfinished)
                unfinished.rename(place)
        return place

    return folder


@pytest.fixture(autouse=True)
def _seeds() -> None:
    """Starts every test from the same global generators, whatever ran before it."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def write_tiny_bundle():
    """The function that writes a bundle of tiny graphs: `write_tiny_bundle(folder, boxes=0) -> Bundle`."""
    import tiny_bundle

    return tiny_bundle.write_tiny_bundle


@pytest.fixture(scope="session")
def tiny_bundle(write_tiny_bundle, tmp_path_factory):
    """A bundle of tiny graphs, shared: not to be changed."""
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture(scope="session")
def tiny_box_bundle(write_tiny_bundle, tmp_path_factory):
    """The same graphs with three slots for boxes, shared: not to be changed."""
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny-boxes", boxes=3)


@pytest.fixture(scope="session")
def exporting():
    """The module that makes the next fixtures."""
    import exported

    return exported


@pytest.fixture(scope="session")
def exported(exporting, made_once):
    """A small model and its bundle: `model`, `run`, `bundle`, `manifest`, `agreement`."""
    folder = made_once("exported", exporting.export)
    return exporting.Exported.open(folder, folder / "run")


@pytest.fixture(scope="session")
def exported_with_boxes(exporting, exported, made_once):
    """The same model with three box slots."""
    folder = made_once("exported-with-boxes", lambda folder: exporting.export_with_boxes(folder, exported))
    return exporting.Exported.open(folder, exported.run)


@pytest.fixture(scope="session")
def scenes(exporting, made_once) -> Path:
    """Twelve annotated pictures."""
    return made_once("scenes", exporting.draw_scenes)


@pytest.fixture(scope="session")
def calibration(exporting, scenes):
    """The pairs that `quantized` was calibrated on: what `quantize --data` makes of the pictures."""
    return exporting.read_pairs(scenes)


@pytest.fixture(scope="session")
def quantized(exporting, exported, calibration, made_once):
    """The exported bundle with an int8 variant: `bundle`, `spec`, `report`, `told`."""
    folder = made_once("quantized", lambda folder: exporting.quantize(folder, exported, calibration))
    return exporting.Quantized.open(folder)


@pytest.fixture
def rough(monkeypatch, exporting, quantized) -> None:
    """Limits for int8 that random weights keep, and graphs that are those of `quantized`, not traced anew."""
    exporting.reuse_graphs(monkeypatch, quantized.bundle, "onnx-int8")
    monkeypatch.setitem(LIMITS, "int8", exporting.ROUGH)


@pytest.fixture(scope="session")
def converting():
    """The module that converts the official code's checkpoints."""
    import converted

    return converted


@pytest.fixture(scope="session")
def converted(converting, made_once):
    """A bundle of the official code's small checkpoint, all levels, with box slots."""
    folder = made_once("converted", lambda folder: converting.convert(converting.STAGE3, folder))
    return Bundle.open(folder / "bundle")


@pytest.fixture(scope="session")
def fakes():
    """The module of stand-ins for NVIDIA's libraries."""
    import nvidia_fakes

    return nvidia_fakes


@pytest.fixture(scope="session")
def write_scene_folder():
    """The function that writes a folder of scene files: `write_scene_folder(folder, count)`."""
    import scene_folder

    return scene_folder.write


@pytest.fixture(scope="session")
def chat():
    """The module of a server that speaks the chat protocol."""
    import chat_server

    return chat_server


@pytest.fixture
def open_model(tmp_path, monkeypatch):
    """Opens models that are closed at the end: `open_model(server, **settings)`, all on one cache."""
    from sam3i_edge.data.language_model.model import LanguageModel, ModelSettings

    monkeypatch.delenv("SAM3I_LLM_API_KEY", raising=False)
    opened = []

    def make(server, **settings):
        settings = {"retries": 1, "timeout": 10.0, "concurrency": 2} | settings
        made = LanguageModel(
            ModelSettings(url=server.url, model="tiny", **settings), tmp_path / "cache.sqlite"
        )
        opened.append(made)
        return made

    yield make
    for model in opened:
        model.close()
