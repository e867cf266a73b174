"""What every source of scenes offers, and what they share: names, places of pictures, notes."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from sam3i_edge.data.records import Record
from sam3i_edge.data.scene import Scene, SceneObject
from sam3i_edge.data.vocabulary import Vocabulary
from sam3i_edge.errors import DataError

_NAMED: Final = 3  # examples in a note
_TRIED: Final = 200  # names that are looked for in a folder before it is given up

_Id = TypeVar("_Id", int, str, int | str)


@dataclass(frozen=True, slots=True)
class Note:
    """Something that a source left out or could not place.

    Attributes:
        count: how many.
        what: of what: "pictures missing, left out".
        first: the first three, by name.
    """

    count: int
    what: str
    first: tuple[str, ...]

    def __str__(self) -> str:
        more = ", …" if self.count > len(self.first) else ""
        return f"{self.what}: {self.count:,} ({', '.join(self.first)}{more})"


class Source(Protocol):
    """Pictures with what is known of them; each is a scene, made when it is asked for.

    It can be pickled, and what a process then opens of it is small.

    Attributes:
        path: the file or folder that was opened.
        folder: what file names are relative to; None where the pictures lie inside the source.
        notes: what was left out or is not known, counted when the source was opened.
    """

    path: Path
    folder: Path | None
    notes: tuple[Note, ...]

    def __len__(self) -> int:
        """Pictures."""
        ...

    def file_name(self, number: int) -> str:
        """The picture's name, unique in the source, with forward slashes."""
        ...

    def scene(self, number: int) -> Scene:
        """The picture and its objects.

        Raises:
            DataError: an outline does not decode, or the file has changed since it was opened.
            ImageError: its pixels were needed and cannot be read.
        """
        ...

    def records(self, number: int) -> tuple[Record, ...]:
        """Instructions that the source itself has for the picture; ids are unique in the source."""
        ...


def noted(what: str, names: Iterable[str]) -> tuple[Note, ...]:
    """A note of these names, or nothing where there are none."""
    every = list(names)
    return (Note(len(every), what, tuple(every[:_NAMED])),) if every else ()


def missing_pictures(names: Iterable[str], found: Iterable[str | None]) -> tuple[Note, ...]:
    """A note of the names that were not found."""
    return noted(
        "pictures missing, left out",
        (name for name, there in zip(names, found, strict=True) if there is None),
    )


def unknown_categories(vocabulary: Vocabulary, names: Iterable[str]) -> tuple[Note, ...]:
    """A note of the categories that the vocabulary does not know."""
    return noted(f"categories unknown to the vocabulary {vocabulary.name}, asked for by name alone", names)


class Names:
    """Categories of a file, each under the name of the vocabulary's category or, unknown to it, its own.

    Args:
        vocabulary: has the categories.
        names: of the file, by id; "_" is a space, and "(fruit)" is left out where the whole is unknown.
    """

    def __init__(self, vocabulary: Vocabulary, names: Mapping[_Id, str]) -> None:
        self.by_id: dict[int | str, str] = {}
        self._ids: dict[str, set[int | str]] = {}
        unknown = []
        for identity, name in names.items():
            category, is_known = category_of(vocabulary, name)
            unknown += [] if is_known else [category]
            self.by_id[identity] = category
            self._ids.setdefault(category, set()).add(identity)
        self.notes = unknown_categories(vocabulary, unknown)

    def listed(self, known: Collection[int | str]) -> frozenset[str]:
        """Categories of which all that the file has under that name are known, by their ids."""
        return frozenset(category for category, ids in self._ids.items() if all(i in known for i in ids))

    def of(self, ids: Iterable[int | str]) -> frozenset[str]:
        """The categories of these ids."""
        return frozenset(self.by_id[identity] for identity in ids)


def category_of(vocabulary: Vocabulary, name: str) -> tuple[str, bool]:
    """The category of a file's name, and whether the vocabulary knows it."""
    words = " ".join(name.replace("_", " ").lower().split())
    short = " ".join(re.sub(r"\([^()]*\)", " ", words).split()) or words
    for form in (words, short):
        category = vocabulary.category_of(form)
        if category is not None:
            return category, True
    return short, False


def find_pictures(
    path: Path, images: Path | None, names: Sequence[str], extra: Iterable[Path] = ()
) -> tuple[Path, list[str | None]]:
    """The folder of the pictures, and each one's name in it; None for those that are missing.

    Where no folder is given, it is `images` beside the file, the file's own folder or the one above, or one
    named as the end of the file's name ("instances_val2017.json": `../val2017`). A name may have folders that
    are not there, such as "train2017/" of LVIS.

    Raises:
        DataError: none of the pictures is there.
    """
    if not names:
        raise DataError(f"{path} has no pictures")
    beside = path.parent
    part = path.stem.rpartition("_")[2]
    candidates = (
        [images]
        if images is not None
        else [beside / "images", *extra, beside.parent / part, beside / part, beside, beside.parent]
    )
    step = max(1, len(names) // _TRIED)
    for folder in candidates:
        for shorten in (str, _last_part):
            if any((folder / shorten(name)).is_file() for name in names[::step]):
                return folder, _present(folder, names, shorten)
    where = ", ".join(dict.fromkeys(str(folder) for folder in candidates))
    raise DataError(
        f"{path}: none of its {len(names):,} pictures is in {where}, the first is {names[0]!r}; "
        "give the folder of the pictures"
    )


def _last_part(name: str) -> str:
    return name.rpartition("/")[2]


def _present(folder: Path, names: Sequence[str], shorten: Callable[[str], str]) -> list[str | None]:
    root = str(folder)
    return [short if os.path.isfile(f"{root}/{short}") else None for short in map(shorten, names)]


def visible_object(
    category: str, attributes: Mapping[str, str | None], mask: NDArray[np.bool_]
) -> SceneObject:
    """An object of which only the visible part is known, bool [H, W], at least one pixel."""
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    rows, columns = np.nonzero(mask[y : y + height, x : x + width])
    return SceneObject(
        category=category,
        attributes=attributes,
        box=(x, y, x + width, y + height),
        center=(x + float(columns.mean()) + 0.5, y + float(rows.mean()) + 0.5),
        mask=mask,
    )
