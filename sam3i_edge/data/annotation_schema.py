"""The annotation file as pydantic models, and what is said of a wrong one; `annotations` has the layout."""

from __future__ import annotations

import logging
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from sam3i_edge.bundle.manifest import first_problem
from sam3i_edge.data.instructions import Granularity
from sam3i_edge.data.segmentation import Segmentation
from sam3i_edge.errors import DataError
from sam3i_edge.pipeline.preprocess import MAX_PIXELS

_log = logging.getLogger(__name__)

WANTED: Final = (
    "want SAM3-I's layout, COCO's with instructions on every image: "
    'text_inst_input: {"concept": [...], "simple_query": [...], "complex_query": [...]}; '
    "'sam3i-edge instruct FILE -o DIR' writes them for annotated pictures"
)
_LONGEST_NAME: Final = 255  # bytes, of file systems
_DEEPEST: Final = 12
_FARTHEST: Final = 100_000  # px: no picture of 64 megapixels has a longer side worth naming


def relative(name: object) -> object:
    """A file's name with forward slashes, as Windows tools do not write it.

    Raises:
        ValueError: it may leave its folder, or is longer than file systems allow.
    """
    if not isinstance(name, str):
        return name
    path = PurePosixPath(name.replace("\\", "/"))
    if not name.strip() or path.is_absolute() or ".." in path.parts or ":" in name or "\0" in name:
        raise ValueError(f"must be a path inside the folder of images, got {name!r}")
    longest = max(len(part.encode("utf-8", "surrogatepass")) for part in (*path.parts, ""))
    if longest > _LONGEST_NAME or len(path.parts) > _DEEPEST:
        raise ValueError(
            f"must have names of at most {_LONGEST_NAME} bytes in at most {_DEEPEST} folders, got one of "
            f"{longest} bytes in {len(path.parts)}"
        )
    return str(path)


def small_enough(width: int, height: int) -> None:
    """Refuses a picture of more pixels than are ever read."""
    if width * height > MAX_PIXELS:
        raise ValueError(f"width x height is {width} x {height}, at most {MAX_PIXELS:,} pixels are allowed")


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


Identity = Annotated[
    Annotated[int, Field(ge=-(2**63), lt=2**63)] | Annotated[str, Field(min_length=1, max_length=200)],
    Field(union_mode="left_to_right"),  # "7" is 7: some tools write every id as a text
]
FileName = Annotated[str, BeforeValidator(relative)]  # of a picture, inside the folder of images
Side = Annotated[int, Field(ge=1, le=MAX_PIXELS)]
Words = Annotated[str, Field(pattern=r"\S")]
_Texts = Annotated[list[Words], BeforeValidator(_listed)]
_Coordinate = Annotated[float, Field(ge=-_FARTHEST, le=_FARTHEST)]
_Polygon = Annotated[list[_Coordinate], Field(min_length=2)]
_Count = Annotated[int, Field(ge=0, le=MAX_PIXELS)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class Texts(_Part):
    """Instructions of an image by level."""

    concept: _Texts = []
    simple_query: _Texts = []
    complex_query: _Texts = []


class Image(_Part):
    """A picture with one set of targets."""

    id: Identity
    file_name: FileName
    width: Side
    height: Side
    granularity: Granularity | None = None
    text_inst_input: Texts

    @model_validator(mode="after")
    def _small_enough(self) -> Image:
        small_enough(self.width, self.height)
        return self


def _polygons(polygons: list[list[float]]) -> list[list[float]]:
    for number, polygon in enumerate(polygons):
        if len(polygon) % 2:
            raise ValueError(f"polygon {number} has {len(polygon)} numbers; want x0, y0, x1, y1, …")
    if max(map(len, polygons)) < 6:
        raise ValueError(f"no polygon has three points, the longest has {max(map(len, polygons)) // 2}")
    return polygons


_Polygons = Annotated[list[_Polygon], Field(min_length=1), AfterValidator(_polygons)]
# Tags of the forms that a segmentation and its run lengths have; they are no part of a field's name.
_POLYGONS, _RUNS, _LIST, _TEXT = _TAGS = "polygons", "run lengths", "plain", "compressed"


def _kind(value: object) -> str:
    return _POLYGONS if isinstance(value, list) else _RUNS


def _form(value: object) -> str:
    return _LIST if isinstance(value, list) else _TEXT


class RunLengths(_Part):
    """COCO's, compressed or not."""

    size: Annotated[list[Side], Field(min_length=2, max_length=2)]
    counts: Annotated[Annotated[str, Tag(_TEXT)] | Annotated[list[_Count], Tag(_LIST)], Discriminator(_form)]


class Target(_Part):
    """An entry of `annotations`."""

    id: Identity | None = None
    image_id: Identity
    category_id: Identity | None = None
    bbox: tuple[float, float, Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]] | None = None
    iscrowd: Literal[0, 1] = 0
    segmentation: Annotated[
        Annotated[_Polygons, Tag(_POLYGONS)] | Annotated[RunLengths, Tag(_RUNS)], Discriminator(_kind)
    ]

    @property
    def outline(self) -> Segmentation:
        """The segmentation as plain values."""
        shape = self.segmentation
        return shape if isinstance(shape, list) else {"size": shape.size, "counts": shape.counts}


class Category(_Part):
    """An entry of `categories`."""

    id: Identity
    name: Words


class AnnotationFile(_Part):
    """The whole file; what else it holds is not read."""

    images: list[Image]
    annotations: list[Target]
    categories: list[Category] = []


def read_file(path: Path) -> AnnotationFile:
    """Reads and checks an annotation file.

    Raises:
        DataError: it is missing, no JSON, or a record breaks the layout; names file, record and field.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise DataError(f"{path}: {reason}; name an annotation file in the SAM3-I layout") from error
    content = content.removeprefix(b"\xef\xbb\xbf")  # as Windows tools write it
    try:
        found = AnnotationFile.model_validate_json(content)
    except ValidationError as error:
        raise DataError(_complaint(path, content, error)) from error
    short = [
        t for t in found.annotations if isinstance(t.segmentation, list) and min(map(len, t.segmentation)) < 6
    ]
    if short:
        _log.warning(
            "%s: %d annotations have a polygon of one or two points beside a whole one, the first is %s; "
            "they are drawn as pycocotools draws them",
            path, len(short), short[0].id,
        )  # fmt: skip
    return found


def field_path(error: ValidationError) -> list[int | str]:
    """Names and numbers that lead to the first thing that is wrong, as the file has them."""
    return [part for part in error.errors(include_url=False)[0]["loc"] if part not in (*_TAGS, "int")]


def field_name(path: list[int | str]) -> str:
    """The same as text, to follow the name of a record."""
    return "".join(f"[{part}]" if isinstance(part, int) else f": {part}" for part in path)


def _complaint(path: Path, content: bytes, error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    if first["type"] == "json_invalid":
        return f"{path} is not valid JSON ({first['ctx']['error']}); was it copied to its end?"
    raw = TypeAdapter(Any).validate_json(content)
    images = raw.get("images") if isinstance(raw, dict) else None
    if (
        isinstance(images, list)
        and images
        and not any(isinstance(i, dict) and "text_inst_input" in i for i in images)
    ):
        return f"{path}: no image has instructions, as in COCO's own files; {WANTED}"
    place = field_path(error)
    record = ""
    if len(place) > 1 and place[0] in ("images", "annotations"):
        entry = raw[place[0]][place[1]]
        if isinstance(entry, dict) and isinstance(entry.get("id"), int | str):
            record = f"{str(place[0]).removesuffix('s')} {entry['id']}"
            place = place[2:]
    return f"{path}: {first_problem(error, (record + field_name(place)).removeprefix(': '))}"
