"""Whole answers of a model with one graph in memory at a time, each perhaps in a process of its own.

What passes from graph to graph lies in a temporary folder: the features of one image of `sam3i` at 1008
pixels take 111 MB.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sam3i_edge.agreement import Instances, Pair
from sam3i_edge.bundle.manifest import Preprocessing
from sam3i_edge.export.isolated import call, done
from sam3i_edge.levels import LEVELS, Level
from sam3i_edge.model.config import ModelConfig
from sam3i_edge.model.graph_specs import graph_specs
from sam3i_edge.pipeline import ask
from sam3i_edge.pipeline.ask import Arrays
from sam3i_edge.pipeline.preprocess import to_pixel_values
from sam3i_edge.pipeline.prompt import BoxPrompt
from sam3i_edge.pipeline.tokenizer import Tokenizer
from sam3i_edge.quantize.spec import open_model
from sam3i_edge.runtimes import Progress, open_runtime, part, untold

Run = Callable[[Arrays], Arrays]


class GraphSource(Protocol):
    """Where graphs come from; pickles."""

    def open(self, graph: str) -> contextlib.AbstractContextManager[Run]:
        """One graph, loaded until the block ends."""


@dataclass(frozen=True, slots=True)
class TorchGraphs:
    """The reference: the model in PyTorch, cut into its graphs.

    Attributes:
        source: float weights or a quantized model, as in `open_model`.
        config: sizes of the model.
        boxes: box slots of its prompt.
    """

    source: Path
    config: ModelConfig
    boxes: int = 0

    @contextlib.contextmanager
    def open(self, graph: str) -> Iterator[Run]:
        """One graph, with the weights that it reads."""
        model = open_model(self.source, self.config, graph)
        yield next(spec for spec in graph_specs(model, self.boxes) if spec.name == graph).run


@dataclass(frozen=True, slots=True)
class FileGraphs:
    """Exported graphs.

    Attributes:
        paths: graph name -> file.
        runtime: name in the table of `sam3i_edge.runtimes`.
        device: device that the runtime knows.
    """

    paths: Mapping[str, Path]
    runtime: str
    device: str = "cpu"

    @contextlib.contextmanager
    def open(self, graph: str) -> Iterator[Run]:
        """One graph in its runtime, in little memory rather than fast."""
        runtime = open_runtime(self.runtime, self.paths[graph], self.device, low_memory=True)
        try:
            yield runtime.run
        finally:
            runtime.close()


def answers(
    graphs: GraphSource,
    pairs: Sequence[Pair],
    tokenizer: Tokenizer,
    spec: Preprocessing,
    threshold: float,
    boxes: int = 0,
    *,
    scratch: Path | None = None,
    isolate: bool = False,
    progress: Progress = untold,
) -> list[Instances]:
    """Segments every pair, graph after graph; an image shared by consecutive pairs is encoded once.

    Args:
        graphs: where the graphs come from.
        pairs: what to ask.
        tokenizer: of the model.
        spec: how images become pixel values.
        threshold: least score of an instance, 0..1.
        boxes: box slots of the graphs, at least as many as any pair has boxes.
        scratch: folder for the temporary files; None for the system's.
        isolate: run each graph in a process of its own.
        progress: called when a graph has answered a pair, also in a process of its own.

    Returns:
        What each pair gave, in order.
    """
    images: list[NDArray[np.uint8]] = []
    shown: list[int] = []  # pair -> image
    for pair in pairs:
        if not images or pair.image is not images[-1]:
            images.append(pair.image)
        shown.append(len(images) - 1)
    ids = [tokenizer.encode(pair.text).ids for pair in pairs]

    stages: list[tuple[str, Callable[..., Any], tuple[object, ...]]] = [
        ("image_encoder", _encode_images, (images, spec))
    ]
    for level in LEVELS:
        asked = {n: ids[n] for n, pair in enumerate(pairs) if pair.level == level}
        if asked:
            stages.append((f"text_encoder.{level}", _encode_texts, (asked, level)))
    prompts = {
        n: (shown[n], pair.boxes, _size(pair)) for n, pair in enumerate(pairs) if pair.boxes is not None
    }
    if prompts:
        stages.append(("box_encoder", _encode_boxes, (prompts, boxes)))
    asked_all = [(shown[n], pair.level, _size(pair)) for n, pair in enumerate(pairs)]
    stages.append(("detector", _detect, (asked_all, threshold, boxes)))

    found: list[Instances] = []
    with TemporaryDirectory(dir=scratch) as temporary:
        for number, (graph, function, arguments) in enumerate(stages):
            tell = part(progress, number, len(stages))
            found, peak = call(
                function, graphs, graph, Path(temporary), *arguments, isolate=isolate, progress=tell
            )
            tell(done(graph, peak, isolate), 1.0)
    return found


def _size(pair: Pair) -> tuple[int, int]:
    return pair.image.shape[0], pair.image.shape[1]


@contextlib.contextmanager
def _opened(graphs: GraphSource, graph: str) -> Iterator[ask.Run]:
    with graphs.open(graph) as run:
        yield lambda name, inputs, wanted: run(inputs)


def _save(path: Path, arrays: Arrays) -> None:
    np.savez(path, **arrays)  # type: ignore[arg-type]  # takes the arrays for its own options


def _load(path: Path) -> dict[str, NDArray[Any]]:
    with np.load(path) as file:
        return dict(file)


def _encode_images(
    graphs: GraphSource,
    graph: str,
    folder: Path,
    images: Sequence[NDArray[np.uint8]],
    spec: Preprocessing,
    progress: Progress,
) -> None:
    with _opened(graphs, graph) as run:
        for n, image in enumerate(images):
            values = to_pixel_values(image, spec.image_size, spec.mean, spec.std)
            _save(folder / f"image-{n}.npz", ask.encode_image(run, values))
            progress(graph, (n + 1) / len(images))


def _encode_texts(
    graphs: GraphSource,
    graph: str,
    folder: Path,
    ids: Mapping[int, NDArray[np.int64]],
    level: Level,
    progress: Progress,
) -> None:
    with _opened(graphs, graph) as run:
        for number, (n, row) in enumerate(ids.items(), 1):
            text = ask.encode_text(run, row, level)
            _save(folder / f"text-{n}.npz", {"features": text.features, "mask": text.mask})
            progress(graph, number / len(ids))


def _encode_boxes(
    graphs: GraphSource,
    graph: str,
    folder: Path,
    prompts: Mapping[int, tuple[int, BoxPrompt, tuple[int, int]]],
    slots: int,
    progress: Progress,
) -> None:
    with _opened(graphs, graph) as run:
        for number, (n, (image, boxes, size)) in enumerate(prompts.items(), 1):
            with np.load(folder / f"image-{image}.npz") as features:  # reads what is asked for alone
                _save(folder / f"boxes-{n}.npz", ask.encode_boxes(run, features, boxes, size, slots))
            progress(graph, number / len(prompts))


def _detect(
    graphs: GraphSource,
    graph: str,
    folder: Path,
    asked: Sequence[tuple[int, Level, tuple[int, int]]],
    threshold: float,
    slots: int,
    progress: Progress,
) -> list[Instances]:
    found = []
    with _opened(graphs, graph) as run:
        for n, (image, level, size) in enumerate(asked):
            shown = folder / f"boxes-{n}.npz"
            outputs = ask.detect(
                run,
                _load(folder / f"image-{image}.npz"),
                ask.Text(**_load(folder / f"text-{n}.npz"), level=level),
                _load(shown) if shown.exists() else None,
                slots=slots,
            )
            found.append(Instances.of(outputs, size, threshold))
            progress(graph, len(found) / len(asked))
    return found
