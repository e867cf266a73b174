"""A source whose objects have the colours that their pixels show, where it says nothing of them."""

from __future__ import annotations

from pathlib import Path

from sam3i_edge.data.pixel_color import with_pixel_colors
from sam3i_edge.data.records import Record
from sam3i_edge.data.scene import Scene
from sam3i_edge.data.sources.source import Note, Source
from sam3i_edge.data.vocabulary import Vocabulary


class ColoredSource:
    """Another source with colours; see `pixel_color` and `source.Source`."""

    def __init__(self, source: Source, vocabulary: Vocabulary) -> None:
        self._source, self._vocabulary = source, vocabulary
        self.path: Path = source.path
        self.folder: Path | None = source.folder
        self.notes: tuple[Note, ...] = source.notes

    def __len__(self) -> int:
        """Pictures."""
        return len(self._source)

    def file_name(self, number: int) -> str:
        """As the source has it."""
        return self._source.file_name(number)

    def records(self, number: int) -> tuple[Record, ...]:
        """As the source has them."""
        return self._source.records(number)

    def scene(self, number: int) -> Scene:
        """The source's scene with colours.

        Raises:
            DataError: as the source.
            ImageError: the picture cannot be read.
        """
        return with_pixel_colors(self._source.scene(number), self._vocabulary)
