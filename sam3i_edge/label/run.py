"""From pictures to labels: shard by shard, each kept whole or not at all, then written in any format."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import sam3i_edge
from sam3i_edge.bundle.folder import Bundle, find_bundle, sha256_of
from sam3i_edge.data.annotations import ANNOTATIONS, IMAGES, write_annotations
from sam3i_edge.data.review.queue import LONGEST, QUEUE
from sam3i_edge.devices.profiles import choose
from sam3i_edge.errors import DataError
from sam3i_edge.files import link_or_copy, whole_file, write_whole
from sam3i_edge.label.formats import FORMATS, Labels
from sam3i_edge.label.review import items_of, standing_decisions, with_decisions
from sam3i_edge.label.shards import LabelConfig, pictures_of, shard_count, work
from sam3i_edge.outputs.coco import readable
from sam3i_edge.runtimes import Progress, untold
from sam3i_edge.shards.folder import ShardFolder
from sam3i_edge.shards.map import Map, one_by_one

_REPORT: Final = "report.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelReport:
    """Counts of a run.

    Attributes:
        pictures: that are labelled, also those in which nothing was found.
        labels: by instruction.
        dropped: duplicates, by instruction.
        uncertain: pairs of a picture and an instruction that a person should look at.
        decided: of those, what a person has decided.
        broken: name and reason of each picture that could not be read.
        written: format -> file or folder.
    """

    pictures: int
    labels: Mapping[str, int]
    dropped: Mapping[str, int]
    uncertain: int
    decided: int
    broken: Mapping[str, str] = field(default_factory=dict)
    written: Mapping[str, str] = field(default_factory=dict)


def label(
    config: LabelConfig,
    out: str | Path,
    *,
    formats: Sequence[str] = ("coco",),
    outlines: bool = False,
    review: bool = False,
    run: Map = one_by_one,
    progress: Progress = untold,
) -> LabelReport:
    """Labels pictures, and writes the labels.

    Killed at any time, the same call goes on: shards that are done are kept, none is done twice, and every
    picture has one line. The files are the same, to the byte, however the work was shared out.

    Args:
        config: what to label; `auto` is chosen here, for all processes alike.
        out: a folder, in which each format has its name; or a file, for one format, whose shards, report and
            review are in the folder `out` + ".labels".
        formats: of `FORMATS`. More of them, another time, ask nothing again.
        outlines: see `Labels`.
        review: write `review.jsonl` and link the pictures that it names, for 'sam3i-edge review'. What is
            decided there replaces labels, when the same call is made again.
        run: who does the work of the shards.
        progress: called after each shard.

    Returns:
        What was written.

    Raises:
        DataError: there are no pictures, the folder holds another run's shards, another process writes it, no
            picture could be read, or the disk is full.
        ValueError: a format is unknown, a file is to hold several, or an instruction is too long for review.
        ArtifactError, RuntimeUnavailable: as of `Segmenter`.
    """
    out = Path(out)
    folder, targets = _targets(out, formats)
    too_long = [text for text in config.instructions if len(text) > LONGEST]
    if review and too_long:
        raise ValueError(f"the page shows instructions of up to {LONGEST} characters, got {len(too_long[0])}")
    bundle = Bundle.open(find_bundle(config.model))
    choice = choose(bundle, config.device, config.precision, config.runtime)
    config = replace(
        config,
        model=str(bundle.root),
        device=choice.device,
        precision=choice.precision,
        runtime=choice.runtime,
    )
    shards = ShardFolder(folder / "shards", _settings(config, bundle), folder)
    try:
        left = [number for number in range(shard_count(config)) if not shards.shard(number).exists()]
        _fill(config, shards, left, run, progress)
        progress("writing", 1.0)
        standing = standing_decisions(folder)
        raw = _Lines([shards.shard(number) for number in range(shard_count(config))])
        lines = _Decided(raw, config, standing)
        report = _counted(config, lines, raw, len(standing))
        if not report.pictures:
            reason = next(iter(report.broken.values()))
            raise DataError(f"{config.pictures}: no picture could be read: {reason}")
        files = {picture.name: picture.image for picture in pictures_of(config)}
        labels = Labels(
            lines=lines,
            categories=config.instructions,
            picture=lambda name: Path(str(files[name])),
            model=bundle.manifest.name,
            outlines=outlines,
        )
        for name, target in targets.items():
            FORMATS[name][1](target, labels)
        if review:
            _write_review(folder, raw, config, labels)
        report = replace(report, written={name: str(target) for name, target in targets.items()})
        write_whole(folder / _REPORT, json.dumps(asdict(report), indent=2) + "\n")
        return report
    except OSError as error:
        raise DataError(f"{error}: make room, the same command goes on where it stopped") from error
    finally:
        shards.release()


def _targets(out: Path, formats: Sequence[str]) -> tuple[Path, dict[str, Path]]:
    """The folder of the work, and where each format goes."""
    for name in formats:
        if name not in FORMATS:
            raise ValueError(f"unknown format {name!r}; choose from {', '.join(FORMATS)}")
    if not out.suffix or out.is_dir():
        return out, {name: out / FORMATS[name][0] for name in formats}
    ending = Path(FORMATS[formats[0]][0]).suffix
    if len(formats) > 1 or out.suffix != ending:
        named = ", ".join(formats)
        raise ValueError(f"{out}: {named} wants a folder" + (f", or a file *{ending}" if ending else ""))
    if not out.parent.is_dir():
        raise FileNotFoundError(f"cannot write {str(out)!r}: make the folder {str(out.parent)!r} first")
    return out.with_name(f"{out.name}.labels"), {formats[0]: out}


def _settings(config: LabelConfig, bundle: Bundle) -> dict[str, Any]:
    """What decides the labels, as plain values: the model by its content, the pictures by their names."""
    kept = asdict(config) | {
        "version": sam3i_edge.__version__,
        "model": f"{bundle.manifest.name} {sha256_of(bundle.root / 'bundle.json')}",
        "names": [len(pictures_of(config)), _names_hash(config)],
        "instructions": list(config.instructions),
    }
    del kept["threads"]
    return kept


def _names_hash(config: LabelConfig) -> str:
    names = "\n".join(picture.name for picture in pictures_of(config))
    return hashlib.sha256(names.encode("utf-8", "surrogatepass")).hexdigest()


def _fill(config: LabelConfig, shards: ShardFolder, left: list[int], run: Map, progress: Progress) -> None:
    total, began = len(pictures_of(config)), time.monotonic()
    begun = done = total - sum(_size(config, number) for number in left)
    progress(f"{done:,} of {total:,} pictures", done / total)
    for shard in run(partial(work, config), left) if left else ():
        write_whole(shards.shard(shard.number), shard.lines)
        done += _size(config, shard.number)
        rate = (done - begun) / max(time.monotonic() - began, 1e-6)
        minutes = (total - done) / rate / 60
        progress(
            f"{done:,} of {total:,} pictures, {rate:,.1f} a second, {minutes:,.0f} min left", done / total
        )


def _size(config: LabelConfig, number: int) -> int:
    return min(config.shard, len(pictures_of(config)) - number * config.shard)


@dataclass(frozen=True, slots=True)
class _Lines:
    """What the shards hold, a picture at a time; can be gone through again."""

    paths: Sequence[Path]

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        for path in self.paths:
            with path.open(encoding="utf-8") as file:
                yield from map(json.loads, file)


@dataclass(frozen=True, slots=True)
class _Decided:
    """The lines with what was decided; can be gone through again."""

    lines: _Lines
    config: LabelConfig
    standing: Mapping[str, Any]

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return with_decisions(self.lines, self.config.instructions, self.standing)


def _counted(config: LabelConfig, lines: _Decided, raw: _Lines, decided: int) -> LabelReport:
    labels: Counter[str] = Counter()
    dropped: Counter[str] = Counter()
    pictures = uncertain = 0
    for line in readable(lines):
        pictures += 1
        for text, result in zip(config.instructions, line["results"], strict=True):
            labels[text] += len(result["instances"])
            dropped[text] += result["dropped"]
            uncertain += bool(result["why"])
    return LabelReport(
        pictures=pictures,
        labels={text: labels[text] for text in config.instructions},
        dropped={text: dropped[text] for text in config.instructions},
        uncertain=uncertain,
        decided=decided,
        broken={line["name"]: line["error"] for line in raw if "error" in line},
    )


def _write_review(folder: Path, raw: _Lines, config: LabelConfig, labels: Labels) -> None:
    """The queue, its pictures, and empty annotations, into which 'review --apply' puts what is decided."""
    with whole_file(folder / QUEUE) as temporary, temporary.open("w", encoding="utf-8") as file:
        for line in readable(raw):
            for item in items_of(line, config.instructions):
                target = folder / item["file"]
                if not target.exists():
                    target.parent.mkdir(parents=True, exist_ok=True)
                    link_or_copy(labels.picture(line["name"]), target)
                file.write(json.dumps(item) + "\n")
    (folder / IMAGES).mkdir(exist_ok=True)
    if not (folder / ANNOTATIONS).exists():
        write_annotations(folder / ANNOTATIONS, [])
