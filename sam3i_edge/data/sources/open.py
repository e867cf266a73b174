"""Tells the kinds of sources apart by what is in them."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from sam3i_edge.data.annotations import ANNOTATIONS
from sam3i_edge.data.sources.coco import CocoSource
from sam3i_edge.data.sources.json_elements import elements
from sam3i_edge.data.sources.sam3i_json import Sam3iSource
from sam3i_edge.data.sources.scene_file import SCENES, SceneFileSource
from sam3i_edge.data.sources.source import Source
from sam3i_edge.data.vocabulary import Vocabulary
from sam3i_edge.errors import DataError

_KNOWN: Final = (
    "want a scene file (a line of JSON for every picture), COCO's instances JSON, LVIS, PACO or SAM3-I's "
    "annotations"
)


def open_source(path: str | Path, vocabulary: Vocabulary, *, images: str | Path | None = None) -> Source:
    """Opens a file or folder of annotated pictures, whatever its kind.

    Args:
        path: a file, or a folder that holds `scenes.jsonl` or `annotations.json`.
        vocabulary: what its categories and attributes are mapped to.
        images: folder of the pictures; None looks for it beside the file.

    Raises:
        DataError: there is nothing, of no kind that is known, or it breaks the layout of its kind.
    """
    path, folder = Path(path), None if images is None else Path(images)
    if path.is_dir():
        path = next((path / name for name in (SCENES, ANNOTATIONS) if (path / name).is_file()), path)
        if path.is_dir():
            raise DataError(f"{path} holds neither {SCENES} nor {ANNOTATIONS}; name the file of annotations")
    return _kind(path)(path, vocabulary, images=folder)


def _kind(path: Path) -> type[CocoSource] | type[Sam3iSource] | type[SceneFileSource]:
    """The first thing that only one kind has decides; no file name does."""
    for element in elements(path):
        if element.key in ("file", "objects", "complete"):
            return SceneFileSource
        if element.key == "images":
            image = element.value
            return Sam3iSource if isinstance(image, dict) and "text_inst_input" in image else CocoSource
    raise DataError(f"{path} is of no known kind; {_KNOWN}")
