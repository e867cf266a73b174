"""The files that a runtime reads beside a graph's own file, found without that runtime."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath

from sam3i_edge.errors import ArtifactError

# Messages of onnx.proto, and their fields that lead to the names of external data.
_ONNX = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}
_KEY = b"location"


def data_files(root: Path, runtime: str, graph: str, listed: Collection[str]) -> list[str]:
    """Names the files that opening one graph reads beside its own.

    Args:
        root: folder of the bundle.
        runtime: what opens the graph; one that this version does not know reads nothing.
        graph: the graph's file, or a Core ML package's folder, relative to `root`.
        listed: the files of the manifest.

    Returns:
        Names relative to `root`, all of them of `listed`.

    Raises:
        ArtifactError: the graph's file cannot be read, or it needs a file that the manifest does not list.
    """
    path, place = root / graph, PurePosixPath(graph)
    try:
        if runtime in ("onnxruntime", "tensorrt"):
            names = [str(place.parent / name) for name in sorted(_external(path.read_bytes()))]
        elif runtime == "openvino":
            names = [str(place.with_suffix(".bin"))]
        elif runtime == "eager":
            names = _weights(root, json.loads(path.read_bytes())["source"])
        elif runtime == "coreml":
            names = _below(root, graph)
        else:
            names = []
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ArtifactError(f"cannot read the graph {path}: {error}: export the bundle again") from error
    for name in names:
        if name not in listed:
            raise ArtifactError(
                f"bundle {root}: the graph {graph} reads {name!r}, which `files` does not list: "
                "copy or export the bundle again"
            )
    return names


def _weights(root: Path, source: str) -> list[str]:
    """A folder of float weights, or a quantized model with its description beside it."""
    if (root / source).is_dir():
        return _below(root, source)
    return [source, str(PurePosixPath(source).with_suffix(".json"))]


def _below(root: Path, folder: str) -> list[str]:
    """Every file that is there, as whoever opens the folder looks for it by name."""
    return [found.relative_to(root).as_posix() for found in (root / folder).rglob("*") if found.is_file()]


def _external(content: bytes) -> set[str]:
    """The locations of external data in an ONNX file.

    Raises:
        ValueError: the bytes are no protobuf message.
    """
    found = set()
    parts = [("model", 0, len(content))]
    while parts:
        message, start, end = parts.pop()
        for number, first, last in _fields(content, start, end):
            inner = _ONNX[message].get(number)
            if inner == "entry":
                entry = {n: content[a:b] for n, a, b in _fields(content, first, last)}
                if entry.get(1) == _KEY:
                    found.add(entry.get(2, b"").decode())
            # What does not hold the key at all, such as nearly every node, need not be walked.
            elif inner is not None and content.find(_KEY, first, last) >= 0:
                parts.append((inner, first, last))
    return found


def _fields(content: bytes, place: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Number, start and end of the fields of a message that have a length: strings and messages."""
    while place < end:
        tag, place = _varint(content, place, end)
        kind = tag & 7
        if kind == 0:
            _, place = _varint(content, place, end)
            continue
        if kind == 2:
            size, place = _varint(content, place, end)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"it is no ONNX file, byte {place} begins a field of kind {kind}")
        if size > end - place:
            raise ValueError(f"it is cut, or no ONNX file: {size} bytes wanted after byte {place}")
        if kind == 2:
            yield tag >> 3, place, place + size
        place += size


def _varint(content: bytes, place: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if place >= end:
            break
        byte = content[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
    raise ValueError(f"it is cut, or no ONNX file: byte {place} ends no number")
