"""Engines that were built once for one machine, kept in the user's cache.

An engine runs only where everything that it was built with is the same, so the folder's name is a hash of all
of that. Shapes are static and thereby part of the graph's own hash. A folder appears when it is whole, with
the hashes of its files, which are compared each time it is opened.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sam3i_edge.devices import jetson, nvidia
from sam3i_edge.errors import RuntimeUnavailable
from sam3i_edge.runtimes import Progress
from sam3i_edge.user_cache import check_private, private_folder, user_cache

_log = logging.getLogger(__name__)

_RECORD = "engine.json"
# What reading a record that was damaged in any way may raise.
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError)

TIMING = ".timing"  # ending of the timing caches, which ONNX Runtime names so too


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineKey:
    """All that an engine depends on.

    Attributes:
        graph: name of the graph, such as "detector".
        model: sha256 of the graph's file and of the data files that it names.
        builder: what builds it, with its version: "onnxruntime 1.31.1".
        tensorrt: version of TensorRT.
        compute_capability: of the GPU, such as "8.7".
        jetpack: JetPack version, or Jetson Linux release where that is unknown; "none" off a Jetson.
        precision: "fp32" or "fp16".
    """

    graph: str
    model: str
    builder: str
    tensorrt: str
    compute_capability: str
    jetpack: str
    precision: str

    @property
    def folder(self) -> Path:
        """Where the engine is kept, whether or not it is there."""
        facts = json.dumps(dataclasses.asdict(self), sort_keys=True).encode()
        return cache_folder() / f"{self.graph}-{hashlib.sha256(facts).hexdigest()[:16]}"


def cache_folder() -> Path:
    """The folder that holds every engine; raises RuntimeUnavailable where the user has no place for one."""
    return user_cache("engines")


def key_of(artifact: Path, builder: str, precision: str, root: Path = Path("/")) -> EngineKey:
    """Reads what an engine of this graph depends on here.

    Args:
        artifact: the ONNX file.
        builder: what builds it, with its version.
        precision: "fp32" or "fp16".
        root: folder that stands for "/".

    Raises:
        RuntimeUnavailable: there is no GPU or no TensorRT.
    """
    board = jetson.detect(root)
    release = None if board is None else board.jetpack or f"L4T {board.l4t}"
    return EngineKey(
        graph=artifact.stem,
        model=_hash_of(artifact),
        builder=builder,
        tensorrt=nvidia.tensorrt_version(),
        compute_capability=nvidia.compute_capability(),
        jetpack=release or "none",
        precision=precision,
    )


def find(key: EngineKey) -> Path | None:
    """Gives the folder of a whole engine; a damaged one is removed, with a warning, and None is given.

    Raises:
        RuntimeUnavailable: another user could have put it there: an engine is code.
    """
    folder = key.folder
    if not folder.is_dir():
        return None
    check_private(folder.parent)
    check_private(folder)
    damage = _damage(folder, key)
    if damage is None:
        return folder
    discard(folder, damage)
    return None


def discard(folder: Path, why: str) -> None:
    """Removes an engine that cannot be used, and says so."""
    _log.warning("the engine in %s is of no use (%s): it is built again", folder, why)
    shutil.rmtree(folder)


def announce(key: EngineKey, progress: Progress | None) -> None:
    """Says before a build how long nothing will show: to `progress`, or else to the log."""
    words = f"building the engine of {key.graph} for this device; this can take 10 minutes, once"
    if progress is None:
        _log.warning("%s", words)
    else:
        progress(words, 0.0)


@contextlib.contextmanager
def building(key: EngineKey) -> Iterator[Path]:
    """Gives a folder to build in; it becomes `key.folder` when the block ends without an error.

    It holds nothing but the timing caches of this machine's other engines, which make the build shorter.
    Where another process finished the same engine meanwhile, that one stays. Only this user may read or
    write what is kept.

    Raises:
        RuntimeUnavailable: there is no folder to build in, or others may write it.
    """
    target = key.folder
    try:
        private_folder(target.parent)
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))  # mode 700
    except OSError as error:
        raise RuntimeUnavailable(
            f"engines are built into a folder that cannot be written here ({error}): set XDG_CACHE_HOME to "
            "one that can"
        ) from error
    try:
        for file in _timings(key):
            shutil.copyfile(file, folder / file.name)
        yield folder
        # Timing caches are left out: TensorRT may add to them, and judges for itself whether they fit.
        files = {path.name: _sha256(path) for path in sorted(folder.iterdir()) if path.suffix != TIMING}
        record = {"key": dataclasses.asdict(key), "files": files}
        (folder / _RECORD).write_text(json.dumps(record, indent=2))
        for path in folder.iterdir():
            path.chmod(0o600)
        try:
            os.rename(folder, target)
        except OSError:
            if _damage(target, key) is not None:
                raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _timings(key: EngineKey) -> Iterator[Path]:
    """The timing caches of engines that the same builder built on the same machine, oldest first."""
    same = ("builder", "tensorrt", "compute_capability", "jetpack")
    for record in sorted(cache_folder().glob(f"[!.]*/{_RECORD}"), key=lambda path: path.stat().st_mtime):
        try:
            check_private(record.parent)
            other = json.loads(record.read_text())["key"]
            alike = all(other[name] == getattr(key, name) for name in same)
        except (*_UNREADABLE, RuntimeUnavailable):
            continue  # it is found out, and said, when that engine is opened
        if alike:
            yield from record.parent.glob(f"*{TIMING}")


def _damage(folder: Path, key: EngineKey) -> str | None:
    """Says what is wrong with an engine's folder, or None."""
    try:
        record = json.loads((folder / _RECORD).read_text())
        if record["key"] != dataclasses.asdict(key):
            return f"{_RECORD} describes another engine"
        if not record["files"]:
            return f"{_RECORD} names no files"
        for name, wanted in record["files"].items():
            if _sha256(folder / name) != wanted:
                return f"{name} was changed"
    except _UNREADABLE as error:
        return f"{type(error).__name__}: {error}"
    return None


def _hash_of(artifact: Path) -> str:
    """Hashes a graph and the data files beside it whose names it holds."""
    content = artifact.read_bytes()
    digest = hashlib.sha256(content)
    for path in sorted(artifact.parent.iterdir()):
        if path != artifact and path.is_file() and path.name.encode() in content:
            digest.update(bytes.fromhex(_sha256(path)))
    return digest.hexdigest()


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
