"""`bundle.json`, the description of a bundle, schema version 1.

Unknown fields are errors: a field is added together with a new schema version, so that an old reader
never half-understands a new bundle.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from sam3i_edge.errors import ArtifactError
from sam3i_edge.install_hint import install_hint
from sam3i_edge.levels import LEVELS, Level
from sam3i_edge.pipeline.tokenizer import CONTEXT_LENGTH

SCHEMA_VERSION = 1
MANIFEST = "bundle.json"
ROUTER = "router.onnx"  # may be among `files`; without it instructions are routed by rules
NOTE = "note"  # the key of `provenance` for what users of the model must know; see `Manifest.notes`
_MOST_NOTE = 300  # characters
_NAME_BYTES = 255  # what file systems take as one name
# What every variant has. Adapters may be missing, box prompts too.
GRAPHS = ("image_encoder", f"text_encoder.{LEVELS[0]}", "detector")


# Bounds of what any model needs, far from what overflows NumPy or asks for gigabytes.
_Mean = Annotated[float, Field(ge=-1e3, le=1e3)]
_Deviation = Annotated[float, Field(ge=1e-6, le=1e3)]
_TokenId = Annotated[int, Field(ge=0, lt=2**24)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class FileRecord(_Part):
    """What a file of the bundle must be."""

    bytes: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Preprocessing(_Part):
    """How an image becomes `pixel_values`: square resize, / 255, then (x - mean) / std per channel."""

    image_size: Annotated[int, Field(gt=0, le=4096)]
    mean: tuple[_Mean, _Mean, _Mean] = (0.5, 0.5, 0.5)
    std: tuple[_Deviation, _Deviation, _Deviation] = (0.5, 0.5, 0.5)


class TokenizerSpec(_Part):
    """The tokenizer's file and the ids that `Tokenizer` places itself."""

    file: str = "tokenizer.json"
    context_length: Annotated[int, Field(ge=3, le=4096)] = CONTEXT_LENGTH
    start_id: _TokenId
    end_id: _TokenId
    pad_id: Literal[0] = 0


class Thresholds(_Part):
    """Defaults: least score of an instance (0 to 1), and least logit of a mask pixel."""

    score: Annotated[float, Field(ge=0, le=1)] = 0.5
    mask_logit: Annotated[float, Field(ge=-1e3, le=1e3)] = 0.0


class License(_Part):
    """The terms of the weights; the text travels with them."""

    name: str
    file: str = "LICENSE"


class Variant(_Part):
    """One exported form of the model: a runtime at a precision.

    Attributes:
        runtime: name in the table of `sam3i_edge.runtimes`.
        precision: "fp32", "fp16", "int8", ...
        graphs: graph name (all of `GRAPHS`, others allowed) to its file.
        boxes: box slots of the detector's prompt, which `box_encoder` fills; 0 where there is none.
        quant_spec: file of the integer weights, or None for a float variant.
        agreement: figures of the comparison with the float model in PyTorch.
        versions: package to version, of what made it.
    """

    runtime: str
    precision: str
    graphs: dict[str, str]
    boxes: Annotated[int, Field(ge=0, le=1024)] = 0
    quant_spec: str | None = None
    agreement: dict[str, float] = {}
    versions: dict[str, str] = {}

    @property
    def levels(self) -> tuple[Level, ...]:
        """The levels that there is a text encoder for; a model without adapters has concept alone."""
        return tuple(level for level in LEVELS if f"text_encoder.{level}" in self.graphs)


class Manifest(_Part):
    """The content of `bundle.json`.

    `provenance` is free: any key, so that a bundle can tell more without a new schema version. One key has a
    meaning here: "note", a sentence of at most 300 characters that every answer of the model carries.
    """

    schema_version: Literal[1] = 1
    name: Annotated[str, Field(min_length=1)]
    model: dict[str, JsonValue]
    preprocessing: Preprocessing
    tokenizer: TokenizerSpec
    thresholds: Thresholds = Thresholds()
    license: License
    provenance: dict[str, str | int | float] = {}
    files: dict[str, FileRecord]
    variants: Annotated[dict[str, Variant], Field(min_length=1)]

    @property
    def notes(self) -> tuple[str, ...]:
        """What users of the model must know, such as what it was trained on; most bundles have none."""
        note = self.provenance.get(NOTE)
        return () if note is None else (str(note),)

    @model_validator(mode="after")
    def _is_consistent(self) -> Manifest:
        used = {"tokenizer.file": self.tokenizer.file, "license.file": self.license.file}
        for name, variant in self.variants.items():
            missing = [graph for graph in GRAPHS if graph not in variant.graphs]
            if missing:
                raise ValueError(f"variant {name!r} lacks the graph {missing[0]}")
            if (variant.boxes > 0) != ("box_encoder" in variant.graphs):
                has = "has" if "box_encoder" in variant.graphs else "lacks"
                raise ValueError(f"variant {name!r} takes {variant.boxes} boxes and {has} box_encoder")
            used |= {f"variants.{name}.graphs.{graph}": path for graph, path in variant.graphs.items()}
            if variant.quant_spec is not None:
                used[f"variants.{name}.quant_spec"] = variant.quant_spec
        for place, path in used.items():
            # A Core ML package is a folder.
            if path not in self.files and not any(file.startswith(f"{path}/") for file in self.files):
                raise ValueError(f"{place} names {path!r}, which `files` does not list")
        for path in self.files:
            _check_relative(path)
        check_note(self.provenance.get(NOTE, "-"))
        return self


def check_note(note: object) -> None:
    """Raises ValueError where what users must know is not one line that fits."""
    if not isinstance(note, str) or not note.isprintable() or not 0 < len(note.strip()) <= _MOST_NOTE:
        raise ValueError(f"provenance.{NOTE} must be one line of 1 to {_MOST_NOTE} characters")


def _check_relative(path: str) -> None:
    pure = PurePosixPath(path)
    if (
        pure.is_absolute()
        or ".." in pure.parts
        or "\\" in path
        or ":" in path
        or str(pure) != path
        or path == "."
    ):
        raise ValueError(
            f"the path {path!r} leaves the bundle or is not plain; want a path such as 'a/b.onnx'"
        )
    if max(len(part.encode()) for part in pure.parts) > _NAME_BYTES:
        raise ValueError(f"the path {path[:40]!r}... has a part of more than {_NAME_BYTES} bytes")
    if path == MANIFEST:
        raise ValueError(f"{MANIFEST} cannot list itself")


class _Version(BaseModel):
    model_config = ConfigDict(strict=True)
    schema_version: int


def first_problem(error: ValidationError, place: str | None = None) -> str:
    """Gives the first complaint of pydantic as "place: what is wrong, got what", on one line.

    Args:
        error: what pydantic raised.
        place: in place of the one that the complaint names, such as "stages[2].lr".
    """
    first = error.errors(include_url=False)[0]
    if place is None:
        place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
    reason = first["msg"].removeprefix("Value error, ").replace("Input should", "must", 1)
    if first["type"] == "unexpected_keyword_argument":
        reason = "no such field"
    elif first["type"] not in ("value_error", "missing", "json_invalid"):
        reason += f", got {_shown(first['input'])}"
    return f"{place.lstrip('.')}: {reason}" if place else reason


def _shown(value: object) -> str:
    if isinstance(value, list | dict):
        return f"a list of {len(value)}" if isinstance(value, list) else "an object"
    if isinstance(value, int) and value.bit_length() > 200:
        return "a number of more than 60 digits"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def read_manifest(root: Path) -> Manifest:
    """Reads `root`/bundle.json and checks it, without looking at the files that it lists.

    Raises:
        ArtifactError: it is missing, damaged, of a newer schema, or names a path that leaves the bundle.
    """
    source = root / MANIFEST
    if not source.is_file():
        found = f"a folder without {MANIFEST}" if root.is_dir() else "a file" if root.exists() else "nothing"
        raise ArtifactError(
            f"{root} is no bundle but {found}: give a bundle's folder, or make one with 'sam3i-edge export'"
        )
    try:
        text = source.read_text(encoding="utf-8")
        version = _Version.model_validate_json(text).schema_version
        if version > SCHEMA_VERSION:
            raise ArtifactError(
                f"{source} has schema version {version}, this sam3i-edge reads up to {SCHEMA_VERSION}: "
                f"upgrade with {install_hint(options='-U')}"
            )
        return Manifest.model_validate_json(text)
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactError(f"cannot read {source}: {error}") from error
    except ValidationError as error:
        raise ArtifactError(
            f"{source} is damaged or no manifest: {first_problem(error)}; copy or export the bundle again"
        ) from error
