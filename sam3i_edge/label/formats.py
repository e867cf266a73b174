"""The formats of labels, by name. One more is one more line of `FORMATS`."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

from sam3i_edge.files import link_or_copy
from sam3i_edge.outputs.answer import inner_path
from sam3i_edge.outputs.coco import readable, write_coco
from sam3i_edge.outputs.cvat import write_cvat
from sam3i_edge.outputs.label_studio import write_label_studio
from sam3i_edge.outputs.yolo import write_yolo

Lines: TypeAlias = Iterable[Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """What is written.

    Attributes:
        lines: of the pictures; can be gone through again.
        categories: names, in the order of each line's results.
        picture: the file of a picture's name.
        model: what made the labels.
        outlines: polygons instead of run lengths, in COCO and FiftyOne.
    """

    lines: Lines
    categories: tuple[str, ...]
    picture: Callable[[str], Path]
    model: str
    outlines: bool = False


def _coco(path: Path, labels: Labels) -> None:
    write_coco(path, labels.lines, labels.categories, outlines=labels.outlines)


def _yolo(path: Path, labels: Labels) -> None:
    with _whole_folder(path) as folder:
        write_yolo(folder, labels.lines, labels.categories, labels.picture)


def _fiftyone(path: Path, labels: Labels) -> None:
    """A COCODetectionDataset: data/ and labels.json."""
    with _whole_folder(path) as folder:
        (folder / "data").mkdir()
        for line in readable(labels.lines):
            target = folder / "data" / inner_path(line["name"])
            target.parent.mkdir(parents=True, exist_ok=True)
            link_or_copy(labels.picture(line["name"]), target)
        write_coco(folder / "labels.json", labels.lines, labels.categories, outlines=labels.outlines)


@contextlib.contextmanager
def _whole_folder(path: Path) -> Iterator[Path]:
    """A folder beside `path` that takes its place when the block ends well."""
    unfinished = path.with_name(f".{path.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    yield unfinished
    if path.exists():
        shutil.rmtree(path)
    unfinished.rename(path)


# name -> the name of its file or folder, and what writes it
FORMATS: Final[dict[str, tuple[str, Callable[[Path, Labels], None]]]] = {
    "coco": ("coco.json", _coco),
    "yolo": ("yolo", _yolo),
    "label-studio": (
        "label-studio.json",
        lambda path, labels: write_label_studio(path, labels.lines, labels.categories, model=labels.model),
    ),
    "cvat": ("cvat.xml", lambda path, labels: write_cvat(path, labels.lines, labels.categories)),
    "fiftyone": ("fiftyone", _fiftyone),
}
