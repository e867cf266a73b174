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
import torch
from numpy.typing import NDArray

from sam3i_edge.agreement import Instances, Pair
from sam3i_edge.bundle.manifest import Preprocessing
from sam3i_edge.export.isolated import call
from sam3i_edge.levels import LEVELS
from sam3i_edge.model.config import ModelConfig
from sam3i_edge.model.graph_specs import graph_specs
from sam3i_edge.pipeline.postprocess import resize_mask_logits, select
from sam3i_edge.pipeline.preprocess import to_pixel_values
from sam3i_edge.pipeline.prompt import join_prompt
from sam3i_edge.pipeline.tokenizer import Tokenizer
from sam3i_edge.quantize.spec import open_model
from sam3i_edge.runtimes import open_runtime

Arrays = Mapping[str, NDArray[Any]]
Run = Callable[[Arrays], Arrays]

_MAPS = ("fpn_4x", "fpn_2x", "fpn_1x")


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
        spec = next(spec for spec in graph_specs(model, self.boxes) if spec.name == graph)

        def run(inputs: Arrays) -> Arrays:
            with torch.no_grad():
                found = spec.module(*(torch.from_numpy(np.ascontiguousarray(inputs[n])) for n in spec.inputs))
            found = found if isinstance(found, tuple) else (found,)
            return {name: value.numpy() for name, value in zip(spec.outputs, found, strict=True)}

        yield run


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
    progress: Callable[[str, int], None] | None = None,
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
        progress: called with a graph's name and the peak memory of its process, bytes, when it is done.

    Returns:
        What each pair gave, in order.
    """
    images: list[NDArray[np.uint8]] = []
    shown: list[int] = []  # pair -> image
    for pair in pairs:
        if not images or pair.image is not images[-1]:
            images.append(pair.image)
        shown.append(len(images) - 1)
    ids = [tokenizer.encode(pair.text).ids[None] for pair in pairs]

    with TemporaryDirectory(dir=scratch) as temporary:
        folder = Path(temporary)

        def stage(graph: str, function: Callable[..., Any], *arguments: object) -> Any:
            result, peak = call(function, graphs, graph, folder, *arguments, isolate=isolate)
            if progress:
                progress(graph, peak)
            return result

        stage("image_encoder", _encode_images, images, spec)
        for level in LEVELS:
            asked = {n: ids[n] for n, pair in enumerate(pairs) if pair.level == level}
            if asked:
                stage(f"text_encoder.{level}", _encode_texts, asked)
        prompts = {
            n: (shown[n], pair.boxes.inputs((pair.image.shape[0], pair.image.shape[1]), boxes))
            for n, pair in enumerate(pairs)
            if pair.boxes is not None
        }
        if prompts:
            stage("box_encoder", _encode_boxes, prompts)
        asked_all = [
            (shown[n], ids[n] != 0, LEVELS.index(pair.level), pair.image.shape[:2])
            for n, pair in enumerate(pairs)
        ]
        found: list[Instances] = stage("detector", _detect, asked_all, threshold, boxes)
    return found


def _save(path: Path, arrays: Arrays) -> None:
    np.savez(path, **arrays)  # type: ignore[arg-type]  # takes the arrays for its own options


def _encode_images(
    graphs: GraphSource, graph: str, folder: Path, images: Sequence[NDArray[np.uint8]], spec: Preprocessing
) -> None:
    with graphs.open(graph) as run:
        for n, image in enumerate(images):
            values = to_pixel_values(image, spec.image_size, spec.mean, spec.std)
            _save(folder / f"image-{n}.npz", run({"pixel_values": values}))


def _encode_texts(
    graphs: GraphSource, graph: str, folder: Path, ids: Mapping[int, NDArray[np.int64]]
) -> None:
    with graphs.open(graph) as run:
        for n, row in ids.items():
            _save(folder / f"text-{n}.npz", run({"input_ids": row}))


def _encode_boxes(
    graphs: GraphSource, graph: str, folder: Path, prompts: Mapping[int, tuple[int, Arrays]]
) -> None:
    with graphs.open(graph) as run:
        for n, (image, inputs) in prompts.items():
            with np.load(folder / f"image-{image}.npz") as features:
                _save(folder / f"boxes-{n}.npz", run({**inputs, "fpn_1x": features["fpn_1x"]}))


def _detect(
    graphs: GraphSource,
    graph: str,
    folder: Path,
    asked: Sequence[tuple[int, NDArray[np.bool_], int, tuple[int, int]]],
    threshold: float,
    boxes: int,
) -> list[Instances]:
    found = []
    with graphs.open(graph) as run:
        for n, (image, text_mask, level, size) in enumerate(asked):
            with np.load(folder / f"image-{image}.npz") as file:
                features = dict(file)
            with np.load(folder / f"text-{n}.npz") as file:
                text = file["text_features"]
            geometry, geometry_mask = features["cls_token"], None
            if (folder / f"boxes-{n}.npz").exists():
                with np.load(folder / f"boxes-{n}.npz") as file:
                    geometry, geometry_mask = file["geometry_tokens"], file["geometry_mask"]
            out = run(
                {
                    **{name: features[name] for name in _MAPS},
                    **join_prompt(text, text_mask, geometry, geometry_mask, boxes=boxes),
                    "level": np.array([level], np.int64),
                }
            )
            kept = select(
                out["scores"][0],
                out["boxes"][0],
                out["mask_logits"][0],
                float(out["presence"][0, 0]),
                size,
                threshold=threshold,
            )
            masks = resize_mask_logits(kept.mask_logits, size)
            found.append(Instances(scores=kept.scores, boxes=kept.boxes, masks=masks))
    return found
