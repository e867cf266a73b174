"""One variant of a bundle: its graphs, written, read back and compared with the float model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import cv2
import numpy as np
import onnx_ir as ir

from sam3i_edge import __version__
from sam3i_edge.agreement import (
    Agreement,
    Instances,
    Pair,
    check,
    compare,
    pair_quality,
)
from sam3i_edge.bundle.manifest import Preprocessing, Variant
from sam3i_edge.errors import ExportError, ParityError
from sam3i_edge.export.onnx.census import Census, census
from sam3i_edge.export.onnx.graph_file import export_onnx
from sam3i_edge.export.onnx.quantized import read_integers
from sam3i_edge.export.staged import FileGraphs, GraphSource, TorchGraphs, answers
from sam3i_edge.masks import overlay
from sam3i_edge.model.config import ModelConfig
from sam3i_edge.model.graph_specs import graph_names
from sam3i_edge.pipeline.tokenizer import Tokenizer
from sam3i_edge.quantize.spec import QuantSpec
from sam3i_edge.runtimes.eager import write_graph_file

# A model of more float32 bytes is handled graph by graph in processes of their own.
LARGE = 1 << 28
# Least share of integer multiply-adds of a variant that may be called int8.
INTEGER_SHARE = 0.95


@dataclass(slots=True)
class Gate:
    """The float model's answers to the pairs that every variant must agree on.

    Attributes:
        weights: folder of the float model. config: its sizes.
        tokenizer, preprocessing: of the model.
        threshold: least score of an instance, 0..1.
        boxes: box slots of the graphs.
        pairs: what is asked.
        isolate: run each graph in a process of its own.
        tell: called with a word on each step.
        picture: where the worst pair is drawn when a variant fails; None for nowhere.
        compared: the agreement found last, also of a variant that fails.
    """

    weights: Path
    config: ModelConfig
    tokenizer: Tokenizer
    preprocessing: Preprocessing
    threshold: float
    boxes: int
    pairs: Sequence[Pair]
    isolate: bool
    tell: Callable[[str], None]
    picture: Path | None = None
    compared: Agreement | None = None
    _reference: list[Instances] = field(default_factory=list)

    def reference(self) -> list[Instances]:
        """The float model's answers, computed once."""
        if not self._reference:
            self.tell(f"asking the float model {len(self.pairs)} pairs")
            self._reference = self.ask(TorchGraphs(self.weights, self.config, self.boxes), "model")
        return self._reference

    def ask(self, source: GraphSource, name: str) -> list[Instances]:
        """The answers of other graphs to the same pairs."""
        return answers(
            source,
            self.pairs,
            self.tokenizer,
            self.preprocessing,
            self.threshold,
            self.boxes,
            scratch=self.weights.parent.parent,
            isolate=self.isolate,
            progress=self.done(f"{name}:"),
        )

    def pass_or_raise(self, source: GraphSource, name: str, precision: str) -> Agreement:
        """Compares, and refuses graphs that do not keep the limits of their precision.

        Raises:
            ParityError: the first limit that is missed; the message names the worst pair and its picture.
        """
        reference, candidate = self.reference(), self.ask(source, name)
        self.compared = agreement = compare(reference, candidate)
        try:
            check(agreement, precision)
        except ParityError as error:
            worst = min(range(len(self.pairs)), key=lambda n: pair_quality(reference[n], candidate[n]))
            pair = self.pairs[worst]
            shown = f"; the worst pair is number {worst}, {pair.text!r} at level {pair.level}"
            if self.picture is not None:
                draw_pair(pair, reference[worst], candidate[worst], self.picture)
                shown += f", drawn in {self.picture}"
            error.args = (f"{error.args[0]}{shown}",)
            raise
        return agreement

    def done(self, what: str) -> Callable[[str, int], None]:
        """A progress callback for graphs."""
        return lambda graph, peak: self.tell(
            f"{what} {graph}" + (f": peak memory {mib(peak)}" if self.isolate else "")
        )


def write_variant(
    folder: Path, gate: Gate, precision: str, quantized: Path | None = None
) -> tuple[dict[str, Variant], Agreement]:
    """Exports, reads back and compares one ONNX variant.

    Args:
        folder: of the bundle being written.
        gate: what it must agree with.
        precision: "fp32", "fp16", or that of `quantized`.
        quantized: file of the `QuantSpec` inside `folder`, for a quantized variant.

    Returns:
        The variant under its name, for the manifest, and its agreement.

    Raises:
        ParityError: it disagrees. ExportError: its integers are not those of the spec.
    """
    name = f"onnx-{precision}"
    place = folder / name
    place.mkdir()
    source = gate.weights if quantized is None else quantized
    files = export_onnx(
        source,
        gate.config,
        place,
        gate.boxes,
        half=precision == "fp16",
        isolate=gate.isolate,
        progress=gate.done("exported"),
    )
    figures: dict[str, float] = {}
    if quantized is not None:
        spec = QuantSpec.load(quantized)
        figures["equal_layers"] = check_integers(spec, {g: place / f for g, f in files.items()})
        counted = sum((census(place / file) for file in files.values()), Census(0, 0, {}))
        figures["integer_share"] = counted.share
        gate.tell(f"integer kernels {counted.kernels}, {counted.share:.1%} of the multiply-adds")
        if precision == "int8" and counted.share < INTEGER_SHARE:
            precision, name = "mixed", "onnx-mixed"
            place = place.rename(folder / name)
    gate.tell(f"comparing {name} with the float model")
    graphs = FileGraphs({graph: place / file for graph, file in files.items()}, "onnxruntime")
    agreement = gate.pass_or_raise(graphs, "onnxruntime", precision)
    variant = Variant(
        runtime="onnxruntime",
        precision=precision,
        graphs={graph: f"{name}/{file}" for graph, file in files.items()},
        boxes=gate.boxes,
        quant_spec=None if quantized is None else quantized.relative_to(folder).as_posix(),
        agreement={**agreement.to_dict(), **figures},
        versions={
            "sam3i-edge": __version__,
            **{p: version(p) for p in ("torch", "onnx", "onnxscript", "onnxruntime")},
        },
    )
    return {name: variant}, agreement


def write_eager(
    folder: Path, gate: Gate, precision: str, quantized: Path | None = None
) -> tuple[dict[str, Variant], Agreement]:
    """Writes and compares the variant that runs in torch: a description of each graph, no weights of its own.

    Arguments, result and errors as in `write_variant`.
    """
    name = f"eager-{precision}"
    place = folder / name
    place.mkdir()
    source = (gate.weights if quantized is None else quantized).relative_to(folder).as_posix()
    files = {graph: place / f"{graph}.json" for graph in graph_names(gate.config, gate.boxes)}
    for graph, path in files.items():
        write_graph_file(path, graph, source, gate.config, gate.boxes, half=precision == "fp16")
    gate.tell(f"comparing {name} with the float model")
    agreement = gate.pass_or_raise(FileGraphs(files, "eager"), "eager", precision)
    variant = Variant(
        runtime="eager",
        precision=precision,
        graphs={graph: f"{name}/{path.name}" for graph, path in files.items()},
        boxes=gate.boxes,
        quant_spec=None if quantized is None else source,
        agreement=agreement.to_dict(),
        versions={"sam3i-edge": __version__, "torch": version("torch")},
    )
    return {name: variant}, agreement


def check_integers(spec: QuantSpec, graphs: Mapping[str, Path]) -> int:
    """Compares the integers and scales in ONNX files with the spec's; gives the number of equal layers.

    Raises:
        ExportError: a layer differs, or is in no graph.
    """
    equal = set()
    for path in graphs.values():
        for name, integers, scale in read_integers(ir.load(path)):
            want = spec.tensors[f"{name}.weight"].numpy()
            if not np.array_equal(integers, want):
                raise ExportError(f"{path.name}: {np.sum(integers != want)} integers of {name} differ")
            if not np.array_equal(scale, spec.tensors[f"{name}.weight_scale"].numpy()):
                raise ExportError(f"{path.name}: the scales of {name} differ")
            equal.add(name)
    missing = sorted(spec.layers.keys() - equal)
    if missing:
        raise ExportError(f"{len(missing)} quantized layers are in no graph, the first is {missing[0]}")
    return len(equal)


def draw_pair(pair: Pair, reference: Instances, candidate: Instances, path: Path) -> None:
    """Writes a picture: what the float model found, and beside it what the variant found."""
    sides = [
        overlay.draw(pair.image, found.masks, found.boxes, found.scores, title=f"{who}: {pair.text}")
        for who, found in (("float", reference), ("variant", candidate))
    ]
    height = max(side.shape[0] for side in sides)
    padded = [cv2.copyMakeBorder(s, 0, height - s.shape[0], 0, 0, cv2.BORDER_CONSTANT) for s in sides]
    overlay.write(np.ascontiguousarray(np.concatenate(padded, axis=1)), path)


def mib(size: int) -> str:
    """Bytes as MiB, for people."""
    return f"{size / 2**20:,.0f} MiB"
