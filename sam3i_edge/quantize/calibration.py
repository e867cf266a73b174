"""What the layers of a float model see: their inputs and outputs on a few (image, instruction) pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional as F

from sam3i_edge.agreement import Pair
from sam3i_edge.bundle.manifest import Preprocessing
from sam3i_edge.data.batch import Encode
from sam3i_edge.errors import ExportError
from sam3i_edge.model.graph_specs import graph_specs
from sam3i_edge.model.sam3i import SAM3I
from sam3i_edge.pipeline import ask
from sam3i_edge.pipeline.preprocess import to_pixel_values
from sam3i_edge.runtimes import Progress, untold

# Values kept of each tensor, at least so many rows, spread over about so many calls.
_VALUES, _LEAST_ROWS, _CALLS = 1 << 19, 256, 256
LEAST_IMAGES = 8
_WIDEST = 1_536  # values that a row of a weight reads; the Cholesky factor of more takes long
_READ, _WINDOW = 256, 48  # rows of a call; side of the part of a map that they come from
CALIBRATION_PAIRS = 400  # unless told otherwise


@dataclass(slots=True)
class Seen:
    """Statistics of one tensor, channels last.

    Attributes:
        largest: greatest magnitude of each channel, float32 [K].
        square, total: sums of squares and values of each channel, float32 [K]. count: of rows.
        calls: how often it was seen. kept: rows of each call, a sample.
        products: sums of products of every two of the K values that a row of the weight reads, in G groups:
            float32 [G, K, K], of a sample; None for outputs, and where K is above 1,536.
        zero: zero point of its int8 form: -128 where a ReLU lets nothing negative pass.
    """

    largest: torch.Tensor
    square: torch.Tensor
    total: torch.Tensor
    count: int = 0
    calls: int = 0
    kept: list[torch.Tensor] = field(default_factory=list)
    products: torch.Tensor | None = None
    zero: Literal[-128, 0] = 0

    @classmethod
    def of(cls, channels: int) -> Seen:
        """Nothing seen yet."""
        return cls(torch.zeros(channels), torch.zeros(channels), torch.zeros(channels))

    def add(self, rows: torch.Tensor) -> None:
        """Takes in float32 [R, K]."""
        torch.maximum(self.largest, rows.abs().amax(0), out=self.largest)
        self.square += (rows * rows).sum(0)
        self.total += rows.sum(0)
        self.count += len(rows)
        self.calls += 1
        if self.calls <= _CALLS:
            share = max(_VALUES // rows.shape[1], _LEAST_ROWS) // _CALLS
            generator = torch.Generator().manual_seed(self.calls)  # a grid would favour columns of an image
            self.kept.append(rows[torch.randperm(len(rows), generator=generator)[:share]].clone())

    @property
    def rows(self) -> torch.Tensor:
        """A sample of the rows, float32 [R, K]."""
        return torch.cat(self.kept)

    @property
    def mean_square(self) -> torch.Tensor:
        """E[x^2] of each channel, float32 [K]."""
        return self.square / max(self.count, 1)

    @property
    def mean(self) -> torch.Tensor:
        """E[x] of each channel, float32 [K]."""
        return self.total / max(self.count, 1)

    def scale(self, factor: torch.Tensor) -> None:
        """As if every channel had been multiplied by its factor, float32 [K]."""
        self.largest *= factor
        self.square *= factor * factor
        self.total *= factor
        self.kept = [rows * factor for rows in self.kept]
        if self.products is not None:
            groups, width = self.products.shape[:2]
            each = factor.view(groups, -1).repeat_interleave(width * groups // len(factor), 1)
            self.products *= each[:, :, None] * each[:, None]

    def add_products(self, read: torch.Tensor) -> None:
        """Takes in what rows of the weight read, float32 [R, G, K]."""
        if read.shape[2] <= _WIDEST:
            found = torch.einsum("rgj,rgk->gjk", read, read)
            self.products = found if self.products is None else self.products + found


@dataclass(slots=True)
class Calibration:
    """Statistics of a model.

    Attributes:
        inputs, outputs: module name -> what it took and gave; outputs of convolutions only.
        images, pairs: how many.
    """

    inputs: dict[str, Seen]
    outputs: dict[str, Seen]
    images: int
    pairs: int


def calibrate(
    model: SAM3I,
    modules: Mapping[str, nn.Module],
    pairs: Sequence[Pair],
    encode: Encode,
    spec: Preprocessing,
    *,
    boxes: int = 0,
    progress: Progress = untold,
) -> Calibration:
    """Runs the pairs through the float model and watches the modules.

    Args:
        model: in eval mode.
        modules: name -> linear layer, convolution or table of the model; tables are not watched.
        pairs: consecutive ones may share an image, which is encoded once.
        encode: text to token ids int64 [32].
        spec: how images become pixel values.
        boxes: box slots of the prompt.
        progress: called after each pair.

    Returns:
        Statistics of the modules that ran; a module that no pair reaches is missing.

    Raises:
        ExportError: fewer than 8 different images: ranges of so few are those of accidents.
    """
    images = len({id(pair.image) for pair in pairs})
    if images < LEAST_IMAGES:
        raise ExportError(
            f"calibration got {images} images in {len(pairs)} pairs, want at least {LEAST_IMAGES}: "
            "activation ranges of so few do not hold for others; give more pairs or pictures"
        )
    found = Calibration({}, {}, images, len(pairs))
    handles = []
    for name, module in modules.items():
        if isinstance(module, nn.Embedding):
            continue  # it takes ids
        handles.append(module.register_forward_pre_hook(_watch_input(found.inputs, name)))
        if not isinstance(module, nn.Linear):
            handles.append(module.register_forward_hook(_watch_output(found.outputs, name)))
    try:
        words = f"calibrating on {len(pairs)} pairs"
        progress(words, 0.0)
        for number, _ in enumerate(run_pairs(model, pairs, encode, spec, boxes), 1):
            progress(words, number / len(pairs))
    finally:
        for handle in handles:
            handle.remove()
    return found


def run_pairs(
    model: SAM3I, pairs: Iterable[Pair], encode: Encode, spec: Preprocessing, boxes: int = 0
) -> Iterator[tuple[torch.Tensor, ...]]:
    """Yields the detector's outputs pair by pair, by the graphs' own path; see `Detector.forward`.

    A model without adapters is asked everything at level concept, as a segmenter asks it.
    """
    run = graph_runner(model, boxes)
    shown: object = None
    image: ask.Arrays = {}
    for pair in pairs:
        if pair.image is not shown:
            shown, image = pair.image, encode_image(run, pair, spec)
        level = pair.level if model.config.adapter_dim else "concept"
        outputs = detect(run, pair, image, ask.encode_text(run, encode(pair.text), level), boxes)
        yield tuple(torch.from_numpy(value) for value in outputs.values())


def graph_runner(model: SAM3I, boxes: int) -> ask.Run:
    """Runs the graphs of a model whose prompt has so many box slots, in PyTorch."""
    graphs = {spec.name: spec for spec in graph_specs(model, boxes)}
    return lambda graph, inputs, wanted: graphs[graph].run(inputs)


def encode_image(run: ask.Run, pair: Pair, spec: Preprocessing) -> ask.Arrays:
    """The features of the pair's image."""
    return ask.encode_image(run, to_pixel_values(pair.image, spec.image_size, spec.mean, spec.std))


def detect(run: ask.Run, pair: Pair, image: ask.Arrays, text: ask.Text, boxes: int) -> ask.Arrays:
    """The outputs of the detector, boxes of the pair encoded first."""
    shown = None
    if pair.boxes is not None:
        size = (pair.image.shape[0], pair.image.shape[1])
        shown = ask.encode_boxes(run, image, pair.boxes, size, boxes)
    return ask.detect(run, image, text, shown, slots=boxes)


def _watch_input(seen: dict[str, Seen], name: str) -> Callable[..., None]:
    def hook(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        values = inputs[0]
        _add(seen, name, values, channels_first=not isinstance(module, nn.Linear))
        if name in seen and not isinstance(module, nn.ConvTranspose2d):
            seen[name].add_products(_read_by(module, values.float(), seen[name].calls))

    return hook


def _read_by(module: nn.Module, values: torch.Tensor, seed: int) -> torch.Tensor:
    """What rows of a weight read at some places: float32 [R, G, K], in a convolution channels, then taps."""
    generator = torch.Generator().manual_seed(seed)
    if not isinstance(module, nn.Conv2d):
        rows = values.reshape(-1, 1, values.shape[-1])
        return rows[torch.randperm(len(rows), generator=generator)[:_READ]]
    assert isinstance(module.padding, tuple)
    padded = F.pad(values, (module.padding[1],) * 2 + (module.padding[0],) * 2)
    for axis in (2, 3):  # a part that unfolds in little memory
        spare = padded.shape[axis] - _WINDOW
        if spare > 0:
            start = int(torch.randint(spare + 1, (), generator=generator))
            padded = padded.narrow(axis, start, _WINDOW)
    patches = F.unfold(padded, module.kernel_size, module.dilation, stride=module.stride)  # [B, C taps, L]
    rows = patches.movedim(1, 2).reshape(-1, module.groups, patches.shape[1] // module.groups)
    return rows[torch.randperm(len(rows), generator=generator)[:_READ]]


def _watch_output(seen: dict[str, Seen], name: str) -> Callable[..., None]:
    def hook(module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        del module, inputs
        _add(seen, name, output, channels_first=True)

    return hook


def _add(seen: dict[str, Seen], name: str, values: torch.Tensor, *, channels_first: bool) -> None:
    rows = values.movedim(1, -1) if channels_first else values
    rows = rows.reshape(-1, rows.shape[-1]).float()
    if len(rows):
        seen.setdefault(name, Seen.of(rows.shape[1])).add(rows)
