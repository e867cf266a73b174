"""One way to run a model of the official size, in a process of its own: `python official_session.py`.

It answers the commands of `sam3i_edge.measure.process.Child`. All ways have random weights, so times and
memory mean something and answers do not. The parts are "image", "text" and "detect": what a new picture
needs, what a new instruction needs, and what each pair of both needs.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sam3i_edge.devices.machine import peak_memory
from sam3i_edge.measure.worker import answer, hold_to

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PARTS = ("image", "text", "detect")
TOKENS, VOCABULARY = 32, 49_408
_OURS = ("image_encoder", "text_encoder.simple", "detector")


class OfficialSession:
    """A way that was opened, and the calls of its parts."""

    def __init__(self) -> None:
        self._calls: dict[str, Callable[[], object]] = {}

    def transformers(
        self, side: int, threads: int, dtype: str, compiled: bool, by_block: bool
    ) -> dict[str, int]:
        """transformers' model, eager or by `torch.compile`; gives what its image encoder consists of."""
        hold_to(threads)
        import torch
        from official_torch import block_calls, whole_calls

        torch.set_num_threads(threads)
        if by_block:
            self._calls, counts = block_calls(side, dtype, compiled)
            return counts
        self._calls = whole_calls(side, dtype, compiled)
        return {"image": 1}

    def ours(self, side: int, threads: int, folder: Path, runtime: str) -> dict[str, int]:
        """Our graphs in a folder, by a runtime of `sam3i_edge.runtimes`."""
        hold_to(threads)
        from sam3i_edge.pipeline import ask
        from sam3i_edge.runtimes import open_runtime

        suffix = ".xml" if runtime == "openvino" else ".onnx"
        graphs = {
            name: open_runtime(runtime, folder / f"{name}{suffix}", "cpu", threads=threads) for name in _OURS
        }
        pixels, ids = inputs(side)
        kept: dict[str, Any] = {}

        def run(graph: str, inputs: ask.Arrays, wanted: Sequence[str]) -> ask.Arrays:
            return graphs[graph].run(inputs)

        def encode() -> None:
            kept["image"] = ask.encode_image(run, pixels)

        def text() -> None:
            kept["text"] = ask.encode_text(run, ids[0], "simple")

        def detect() -> None:
            ask.detect(run, kept["image"], kept["text"])

        self._calls = {"image": encode, "text": text, "detect": detect}
        return {"image": 1}

    def openvino(self, side: int, threads: int, folder: Path) -> dict[str, int]:
        """transformers' graphs as OpenVINO runs them when it is told nothing but the threads."""
        hold_to(threads)
        import openvino

        core = openvino.Core()
        config = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
        graphs = {part: core.compile_model(folder / f"{part}.xml", "CPU", config) for part in PARTS}
        pixels, ids = inputs(side)
        kept: dict[str, list[Any]] = {}

        def run(part: str, given: list[Any]) -> None:
            found = graphs[part](given)
            kept[part] = [np.array(found[n]) for n in range(len(graphs[part].outputs))]

        self._calls = {
            "image": lambda: run("image", [pixels]),
            "text": lambda: run("text", [ids]),
            "detect": lambda: run("detect", [*kept["image"], *kept["text"]]),
        }
        return {"image": 1}

    def timed(self, part: str, count: int) -> list[float]:
        """Milliseconds of each of `count` calls of a part."""
        found = []
        for _ in range(count):
            started = time.perf_counter()
            self._calls[part]()
            found.append(1e3 * (time.perf_counter() - started))
        return found

    def peak_memory(self) -> int:
        """Most memory that this process has held, bytes."""
        return peak_memory()


def inputs(side: int) -> tuple[Any, Any]:
    """A picture float32 [1, 3, side, side] and an instruction int64 [1, 32] without padding."""
    rng = np.random.default_rng(0)
    pixels = rng.uniform(-1, 1, (1, 3, side, side)).astype(np.float32)
    return pixels, rng.integers(1, VOCABULARY - 2, (1, TOKENS))


if __name__ == "__main__":
    answer(OfficialSession())
