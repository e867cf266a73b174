"""Prints what ONNX Runtime computes otherwise in WebAssembly than on this machine: the table of docs/web.md.

    python scripts/browser_operators.py [BUNDLE [PRECISION]]

It wants Node.js, and `npm ci` in web/. Each operator gets what it gets here, in both, so that a row tells of
that operator alone. What differs is then added to what the operator gives here, and the answers are compared.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from sam3i_edge.agreement import Instances, Pair, compare, drawn_pairs
from sam3i_edge.bundle.folder import Bundle, find_bundle
from sam3i_edge.export.staged import FileGraphs, GraphSource, answers

Arrays = Mapping[str, NDArray[np.generic]]

NODE = Path(__file__).with_suffix(".mjs")
SEED = 3
PICTURES = 2


@dataclass(slots=True)
class Operator:
    """Sums over the nodes of one kind."""

    nodes: int = 0
    values: int = 0
    differ: int = 0
    most: float = 0.0  # of the largest value that the node gives
    moved: list[tuple[float, float]] = field(default_factory=list)  # score and box, px, of each question


class Sources:
    """A bundle's graphs as ONNX Runtime optimizes them, with what is added to the values in them."""

    def __init__(self, graphs: Mapping[str, onnx.ModelProto]) -> None:
        self.graphs = graphs
        self.inputs: dict[str, Arrays] = {}
        self.added: dict[str, Arrays] = {}

    @contextlib.contextmanager
    def open(self, graph: str) -> Iterator[Callable[[Arrays], Arrays]]:
        """See `sam3i_edge.export.staged.GraphSource`."""
        model = _with_added(self.graphs[graph], self.added.get(graph, {}))
        session = _session(model)
        names = [output.name for output in model.graph.output]

        def run(inputs: Arrays) -> Arrays:
            self.inputs[graph] = inputs
            return dict(zip(names, session.run(names, dict(inputs)), strict=True))

        yield run


def main() -> None:
    """Compares and prints."""
    name, precision = (*sys.argv[1:], *("sam3i-nano", "fp32")[len(sys.argv) - 1 :])
    bundle = Bundle.open(find_bundle(name))
    operators: dict[str, Operator] = defaultdict(Operator)
    with TemporaryDirectory() as folder:
        variant = bundle.manifest.variants[f"onnx-{precision}"]
        paths = {graph: bundle.file(file) for graph, file in variant.graphs.items()}
        written = {graph: _read(path, Path(folder)) for graph, path in paths.items()}
        sources = Sources({graph: _optimized(model, Path(folder)) for graph, model in written.items()})
        for pair in _pairs(bundle, sources):
            _compare(bundle, sources, pair, operators, Path(folder))
        once = _rounded_once(Path(folder))
    pairs = [pair for number, pair in enumerate(drawn_pairs(150, SEED)) if number % 5 < 2]
    manner = compare(
        *(_ask(bundle, source, pairs) for source in (FileGraphs(paths, "onnxruntime"), Sources(written)))
    )
    print("| operator | nodes | values that differ | most, of the largest | moves scores by | boxes, px |")
    print("|---|---|---|---|---|---|")
    for kind, one in sorted(operators.items(), key=lambda item: -item[1].differ / item[1].values):
        if one.differ:
            score, box = (max(values) for values in zip(*one.moved, strict=True))
            share = f"{100 * one.differ / one.values:.1f} %"
            print(f"| {kind} | {one.nodes} | {share} | {one.most:.1e} | {score:.1e} | {box:.1e} |")
    equal = sorted(kind for kind, one in operators.items() if not one.differ)
    print(f"\nEqual in every value: {', '.join(equal)}.\n")
    print(f"Without ONNX Runtime's optimizations, here: {manner}.\n")
    print("Sums of two products that are rounded once: {:.1%} here, {:.1%} in WebAssembly.".format(*once))


def _pairs(bundle: Bundle, sources: Sources) -> Iterator[Pair]:
    """Pairs with something to find, each of another picture."""
    images: list[NDArray[np.uint8]] = []
    for pair in drawn_pairs(60, SEED):
        if len(images) < PICTURES and not any(pair.image is image for image in images):
            sources.added = {}
            if len(_ask(bundle, sources, [pair])[0].scores):
                images.append(pair.image)
                yield pair


def _ask(bundle: Bundle, sources: GraphSource, pairs: Sequence[Pair]) -> list[Instances]:
    manifest = bundle.manifest
    return answers(sources, pairs, bundle.tokenizer(), manifest.preprocessing, manifest.thresholds.score)


def _compare(
    bundle: Bundle, sources: Sources, pair: Pair, operators: dict[str, Operator], folder: Path
) -> None:
    """Adds one question's differences to the operators'."""
    sources.inputs, sources.added = {}, {}
    (here,) = _ask(bundle, sources, [pair])
    differences: dict[str, dict[str, dict[str, NDArray[np.generic]]]] = defaultdict(lambda: defaultdict(dict))
    for graph, inputs in dict(sources.inputs).items():
        model = sources.graphs[graph]
        ours, theirs = _both(model, inputs, folder)
        for node in model.graph.node:
            one = operators[node.op_type]
            one.nodes += 1
            for output in filter(None, node.output):
                mine, other = ours[output], theirs[output]
                one.values += mine.size
                one.differ += int((mine != other).sum())
                if (mine != other).any():
                    wide = np.int32 if mine.dtype.kind in "iu" else np.float32
                    difference = other.astype(wide) - mine.astype(wide)
                    largest = np.abs(mine.astype(wide)).max()
                    one.most = max(one.most, float(np.abs(difference).max() / largest))
                    differences[node.op_type][graph][output] = difference
    for kind, added in differences.items():
        sources.added = added
        (there,) = _ask(bundle, sources, [pair])
        if len(there.scores) != len(here.scores):
            raise SystemExit(f"{kind} changes how many are found: choose another SEED")
        operators[kind].moved.append(
            (float(np.abs(there.scores - here.scores).max()), float(np.abs(there.boxes - here.boxes).max()))
        )


def _rounded_once(folder: Path) -> tuple[float, float]:
    """Where rounding once and twice differ: the share of values that were rounded once, here and there."""
    rng = np.random.default_rng(0)
    inputs = {
        name: rng.standard_normal(shape, np.float32) for name, shape in (("a", (64, 2)), ("b", (2, 64)))
    }
    given = [helper.make_tensor_value_info(name, 1, value.shape) for name, value in inputs.items()]
    product = helper.make_node("MatMul", ["a", "b"], ["product"])
    graph = helper.make_graph(
        [product], "product", given, [helper.make_tensor_value_info("product", 1, (64, 64))]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    a, b = inputs.values()
    first = a[:, :1] * b[:1]
    twice = first + a[:, 1:] * b[1:]
    once = (first.astype(np.float64) + a[:, 1:].astype(np.float64) * b[1:]).astype(np.float32)
    differ = once != twice
    here = _run(model, inputs, ["product"])["product"]
    there = _run_in_node(model, inputs, ["product"], folder)["product"]
    return float((here == once)[differ].mean()), float((there == once)[differ].mean())


def _both(model: onnx.ModelProto, inputs: Arrays, folder: Path) -> tuple[Arrays, Arrays]:
    """Every value of a graph as each node gives it here, and in WebAssembly, from the values here."""
    names = [name for node in model.graph.node for name in node.output if name]
    values = _run(_with_outputs(model, names), inputs, names)
    cut = onnx.ModelProto()
    cut.CopyFrom(model)
    for node in cut.graph.node:
        node.output[:] = [name and f"{name}/given" for name in node.output]
    read = sorted({name for node in model.graph.node for name in node.input} & set(names))
    for name in read:
        kind = helper.np_dtype_to_tensor_dtype(values[name].dtype)
        cut.graph.input.append(helper.make_tensor_value_info(name, kind, values[name].shape))
    given = [f"{name}/given" for name in names]
    cut, feed = _with_outputs(cut, given), {**inputs, **{name: values[name] for name in read}}
    ours = _run(cut, feed, given)
    theirs = _run_in_node(cut, feed, given, folder)
    return dict(zip(names, ours.values(), strict=True)), dict(zip(names, theirs.values(), strict=True))


def _run(model: onnx.ModelProto, inputs: Arrays, names: list[str]) -> Arrays:
    return dict(zip(names, _session(model).run(names, dict(inputs)), strict=True))


def _run_in_node(model: onnx.ModelProto, inputs: Arrays, names: list[str], folder: Path) -> Arrays:
    listed, parts, place = [], [], 0
    for name, value in inputs.items():
        listed.append({"name": name, "type": value.dtype.name, "dims": value.shape, "at": place})
        parts.append(value.tobytes())
        place += value.nbytes
    (folder / "graph.onnx").write_bytes(model.SerializeToString())
    (folder / "inputs.bin").write_bytes(b"".join(parts))
    (folder / "inputs.json").write_text(json.dumps({"inputs": listed, "outputs": names}))
    subprocess.run(["node", NODE, folder], check=True)
    content, values = (folder / "outputs.bin").read_bytes(), {}
    for one in json.loads((folder / "outputs.json").read_text()):
        size = int(np.prod(one["dims"]))
        values[one["name"]] = np.frombuffer(content, one["type"], size, one["at"]).reshape(one["dims"])
    return values


def _read(path: Path, folder: Path) -> onnx.ModelProto:
    """A graph with its weights, from a copy: onnx reads no data file with two names, as bundles may have."""
    return onnx.load(shutil.copytree(path.parent, folder / "read", dirs_exist_ok=True) / path.name)


def _optimized(model: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    """The graph as ONNX Runtime makes it on any CPU: fused, with integer kernels where it has them."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")  # as everywhere here
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(model.SerializeToString(), options)
    return onnx.load(folder / "optimized.onnx")


def _session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options)


def _with_outputs(model: onnx.ModelProto, names: list[str]) -> onnx.ModelProto:
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    del changed.graph.output[:]
    changed.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    return changed


def _with_added(model: onnx.ModelProto, added: Arrays) -> onnx.ModelProto:
    """The graph with a constant added to some values."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    del changed.graph.node[:]
    for node in model.graph.node:
        copy = changed.graph.node.add()
        copy.CopyFrom(node)
        for at, name in enumerate(node.output):
            if name in added:
                raw, constant = f"{name}/raw", f"{name}/added"
                copy.output[at] = raw
                changed.graph.initializer.append(numpy_helper.from_array(added[name], constant))
                changed.graph.node.append(helper.make_node("Add", [raw, constant], [name]))
    return changed


if __name__ == "__main__":
    main()
