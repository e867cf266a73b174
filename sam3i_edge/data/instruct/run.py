"""From a source to a folder of instructions: shard by shard, each kept whole or not at all, then joined."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import sam3i_edge
from sam3i_edge.bundle.folder import sha256_of
from sam3i_edge.data.annotations import ANNOTATIONS, IMAGES, from_json, write_annotations
from sam3i_edge.data.instruct.contact_sheet import SHEET, draw_sheet
from sam3i_edge.data.instruct.report import REPORT, InstructReport, summed
from sam3i_edge.data.instruct.shards import (
    InstructConfig,
    Shard,
    numbered,
    opened,
    shard_count,
    shard_places,
    work,
)
from sam3i_edge.data.instruct.worded import Wording
from sam3i_edge.data.language_model.model import CACHE
from sam3i_edge.data.records import Record
from sam3i_edge.data.review.queue import QUEUE
from sam3i_edge.errors import DataError
from sam3i_edge.files import link_or_copy, sweep, whole_file, write_whole
from sam3i_edge.runtimes import Progress, untold
from sam3i_edge.shards.folder import SETTINGS, ShardFolder, difference
from sam3i_edge.shards.map import Map, one_by_one

_UNFINISHED: Final = ".unfinished"


def instruct(
    config: InstructConfig,
    out: str | Path,
    *,
    run: Map = one_by_one,
    wording: Wording | None = None,
    progress: Progress = untold,
) -> InstructReport:
    """Writes OUT/annotations.json, OUT/images, OUT/review.jsonl, OUT/report.json and OUT/contact-sheet.png.

    Killed at any time, the same call goes on: what it wrote before is kept, and nothing is written twice. The
    files are the same, to the byte, however the work was shared out. Pictures are hard links where the file
    system can, else copies, so that the folder stands alone.

    Args:
        config: what to write, of what.
        out: a folder that does not exist, is empty, or was begun with an equal config.
        run: who does the work of the shards.
        wording: a language model that words them too, in this process: `run` is not used then. What it has
            not answered for waits: the folder is whole without it, and the same call goes on with that.
        progress: called after each shard.

    Raises:
        DataError: the source or the vocabulary is missing or breaks its layout, the folder holds something
            else, another process writes it, no picture could be used, or the disk is full.
    """
    out = Path(out)
    settings = _settings(config) | ({} if wording is None else {"wording": wording.settings()})
    kept = _finished(out, settings)
    if kept is not None:
        return kept
    folder = _Folder(out, settings)
    try:
        left = [number for number in range(shard_count(config)) if not folder.shard(number).exists()]
        shards = run(partial(work, config), left) if wording is None else wording.run(config, left)
        _fill(config, folder, left, shards if left else (), progress)
        return _join(config, folder, settings, progress)
    except OSError as error:
        raise DataError(f"{error}: make room, the same command goes on where it stopped") from error
    finally:
        folder.release()


def _settings(config: InstructConfig) -> dict[str, Any]:
    """What decides the files, as plain values: the source and the vocabulary by their content."""
    source, vocabulary = opened(config)
    return {
        "version": sam3i_edge.__version__,
        "source": _content(source.path),
        "pictures": len(source),
        "vocabulary": hashlib.sha256(vocabulary.model_dump_json().encode()).hexdigest(),
        "levels": list(config.levels),
        "per_image": config.per_image,
        "review": config.review,
        "seed": config.seed,
        "shard": config.shard,
    }


def _content(path: Path) -> str:
    """SHA-256 of a file, or of a folder's files."""
    if path.is_file():
        return sha256_of(path)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    named = "\n".join(f"{file.relative_to(path).as_posix()} {sha256_of(file)}" for file in files)
    return hashlib.sha256(named.encode()).hexdigest()


def _finished(out: Path, settings: Mapping[str, Any]) -> InstructReport | None:
    """The report of a folder that is whole."""
    if not (out / REPORT).is_file() or (out / _UNFINISHED).exists():
        return None
    report = InstructReport.read(out / REPORT)
    different = difference(report.settings, settings)
    if different:
        raise DataError(
            f"{out} holds instructions of another run ({different}, kept against given): name another folder"
        )
    return report


class _Folder:
    """The folder that is written, held by this process alone.

    Args:
        path: made where it is missing.
        settings: of the run; those that a run before has kept must be equal.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self.path, self.unfinished = path, path / _UNFINISHED
        if path.exists() and not path.is_dir():
            raise DataError(f"{path} is a file; name a folder to write the instructions to")
        if (
            not (self.unfinished / SETTINGS).exists()
            and path.is_dir()
            and any(p.name != _UNFINISHED and not p.name.startswith(CACHE) for p in path.iterdir())
        ):
            raise DataError(f"{path} is not empty; name a new folder, or empty this one first")
        (path / IMAGES).mkdir(parents=True, exist_ok=True)
        self._shards = ShardFolder(self.unfinished, settings, path)
        self.shard, self.release = self._shards.shard, self._shards.release
        sweep(path)

    def store(self, shard: Shard, source: Path | None) -> None:
        """Keeps a shard; its pictures are there before its lines are."""
        for line in shard.lines.splitlines():
            entry = json.loads(line)
            if entry["left_out"] is None:
                self._show(entry["file"], shard.pictures.get(entry["file"]), source)
        write_whole(self.shard(shard.number, waiting=shard.waiting > 0), shard.lines)

    def _show(self, name: str, content: bytes | None, source: Path | None) -> None:
        target = self.path / IMAGES / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if content is not None:
            write_whole(target, content)
        elif source is not None and not target.exists():
            link_or_copy(source / name, target)


def _fill(
    config: InstructConfig, folder: _Folder, left: list[int], shards: Iterable[Shard], progress: Progress
) -> None:
    source, _ = opened(config)
    pictures, sizes = len(source), {number: len(shard_places(config, number)) for number in left}
    begun = done = pictures - sum(sizes.values())
    began, texts = time.monotonic(), 0
    progress(f"{done:,} of {pictures:,} pictures", done / pictures)
    for shard in shards:
        folder.store(shard, source.folder)
        done += sizes[shard.number]
        texts += shard.instructions
        seconds = max(time.monotonic() - began, 1e-6)
        minutes = seconds * (pictures - done) / (done - begun) / 60
        progress(
            f"{done:,} of {pictures:,} pictures, {texts / seconds:,.0f} instructions a second, "
            f"{minutes:,.0f} min left",
            done / pictures,
        )


def _join(
    config: InstructConfig, folder: _Folder, settings: Mapping[str, Any], progress: Progress
) -> InstructReport:
    progress("joining", 1.0)
    source, _ = opened(config)
    entries = _Entries(folder, shard_count(config))
    report = summed(entries, settings, source.notes)
    if not report.instructions and report.left_out:
        raise DataError(f"{config.source}: no picture could be used: {report.left_out[0]}")
    out = folder.path
    write_annotations(out / ANNOTATIONS, _Records(entries))
    with whole_file(out / QUEUE) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(item) + "\n" for entry in entries for item in entry.get("review", ()))
    draw_sheet(out / SHEET, out / IMAGES, _Records(entries), config.seed)
    report.write(out / REPORT)
    if not report.waiting:
        shutil.rmtree(folder.unfinished)
    return report


class _Entries:
    """What the shards hold, a picture at a time; can be gone through again."""

    def __init__(self, folder: _Folder, shards: int) -> None:
        done = map(folder.shard, range(shards))
        self.paths = [p if p.exists() else folder.shard(n, waiting=True) for n, p in enumerate(done)]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for path in self.paths:
            with path.open(encoding="utf-8") as lines:
                yield from map(json.loads, lines)


class _Records:
    """The records of all shards, numbered through; can be gone through again."""

    def __init__(self, entries: _Entries) -> None:
        self.entries = entries

    def __iter__(self) -> Iterator[Record]:
        found = (entry["annotations"] for entry in self.entries if entry["left_out"] is None)
        return numbered(record for content in found for record in from_json(content))
