"""Tells the kinds of sources apart by what is in them."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from sam3i_edge.data.annotations import ANNOTATIONS
from sam3i_edge.data.sources.coco import CocoSource
from sam3i_edge.data.sources.colored import ColoredSource
from sam3i_edge.data.sources.json_elements import elements
from sam3i_edge.data.sources.parquet import ParquetSource
from sam3i_edge.data.sources.refcoco import RefCocoSource
from sam3i_edge.data.sources.sam3i_json import Sam3iSource
from sam3i_edge.data.sources.scene_file import SCENES, SceneFileSource
from sam3i_edge.data.sources.source import Source
from sam3i_edge.data.vocabulary import Vocabulary
from sam3i_edge.errors import DataError

_KNOWN: Final = (
    "want a scene file (a line of JSON for every picture), SAM3-I's annotations, the instances JSON of COCO, "
    "LVIS or PACO, or RefCOCO's references as JSON or Parquet"
)
_BOM: Final = b"\xef\xbb\xbf"  # as Windows tools write it
_PICKLES: Final = (b"\x80", b"(lp", b"(dp", b"]q", b"}q")  # lists and dicts by any protocol


def open_source(
    path: str | Path,
    vocabulary: Vocabulary,
    *,
    images: str | Path | None = None,
    instances: str | Path | None = None,
    split: str | None = None,
    pixel_colors: bool = False,
) -> Source:
    """Opens a file or folder of annotated pictures, whatever its kind.

    Args:
        path: a file; or a folder that holds `scenes.jsonl`, `annotations.json` or *.parquet.
        vocabulary: what its categories and attributes are mapped to.
        images: folder of the pictures; None looks for it beside the file.
        instances: COCO's instances JSON that RefCOCO's references belong to; None: `instances.json` beside.
        split: of RefCOCO, such as "train"; None takes all.
        pixel_colors: give objects of whose colour the source says nothing the one that their pixels show,
            where it is clear; see `pixel_color`.

    Raises:
        DataError: there is nothing, of no kind that is known, or it breaks the layout of its kind.
        RuntimeUnavailable: it is Parquet, and pyarrow is not installed.
        ValueError: `instances` or `split` is given for another kind than RefCOCO.
    """
    path, folder = _file(Path(path)), None if images is None else Path(images)
    kind = _kind(path)
    if kind not in (RefCocoSource, ParquetSource) and split is not None:
        raise ValueError(f"split is for RefCOCO, {path} has none: leave it out")
    if kind is not RefCocoSource and instances is not None:
        raise ValueError(f"instances are for RefCOCO's references as JSON, {path} has its own: leave it out")
    source: Source
    if kind is RefCocoSource:
        beside = None if instances is None else Path(instances)
        source = RefCocoSource(path, vocabulary, images=folder, instances=beside, split=split)
    elif kind is ParquetSource:
        source = ParquetSource(path, vocabulary, images=folder, split=split)
    else:
        source = kind(path, vocabulary, images=folder)
    return ColoredSource(source, vocabulary) if pixel_colors else source


def _file(path: Path) -> Path:
    """The file of a folder that says what it holds; the folder itself where it holds tables."""
    if not path.is_dir() or next(path.glob("*.parquet"), None) is not None:
        return path
    for name in (SCENES, ANNOTATIONS):
        if (path / name).is_file():
            return path / name
    raise DataError(f"{path} holds no {SCENES}, {ANNOTATIONS} or *.parquet; name the file of annotations")


_Kind = (
    type[CocoSource] | type[ParquetSource] | type[RefCocoSource] | type[Sam3iSource] | type[SceneFileSource]
)


def _kind(path: Path) -> _Kind:
    """The first thing that only one kind has decides; no file name does."""
    if path.is_dir():
        return ParquetSource
    try:
        with path.open("rb") as file:
            head = file.read(64).removeprefix(_BOM).lstrip()
    except OSError as error:
        raise DataError(
            f"{path}: {error.strerror or type(error).__name__}; name a file of annotations"
        ) from error
    if head.startswith(b"PAR1"):
        return ParquetSource
    if head.startswith(_PICKLES):
        raise DataError(
            f"{path} is a Python pickle, which can run code when it is read and is not read here; write it "
            "as JSON (docs/data-sources.md has the line)"
        )
    if head.startswith(b"["):
        return RefCocoSource
    for element in elements(path):
        if element.key in ("file", "objects", "complete"):
            return SceneFileSource
        if element.key == "images":
            image = element.value
            return Sam3iSource if isinstance(image, dict) and "text_inst_input" in image else CocoSource
    raise DataError(f"{path} is of no known kind; {_KNOWN}")
