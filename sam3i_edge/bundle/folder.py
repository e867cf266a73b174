"""The model on disk: a folder with `bundle.json`, each file checked before it is opened.

bundle.json       schema version, model, preprocessing, tokenizer, thresholds, licence, provenance;
for every file its bytes and sha256; for every variant its graphs and figures
tokenizer.json    LICENSE
onnx-fp32/        one self-contained folder a variant (runtime x precision): graphs and their data
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import JsonValue, ValidationError

from sam3i_edge.bundle.data_files import data_files
from sam3i_edge.bundle.hub import fetch, is_hub_id
from sam3i_edge.bundle.manifest import (
    MANIFEST,
    FileRecord,
    License,
    Manifest,
    Preprocessing,
    Thresholds,
    TokenizerSpec,
    Variant,
    first_problem,
    read_manifest,
)
from sam3i_edge.errors import ArtifactError, UnknownModel
from sam3i_edge.pipeline.tokenizer import Tokenizer

BUNDLED = ("sam3i-nano",)

_ASSETS = Path(__file__).parents[1] / "assets"


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle, whose files are verified when they are asked for: presence, place, size and sha256, once.

    Attributes:
        root: its folder.
        manifest: its description.
    """

    root: Path
    manifest: Manifest
    _checked: set[str] = field(default_factory=set, init=False, repr=False, compare=False)

    @classmethod
    def open(cls, path: str | Path) -> Bundle:
        """Reads a bundle's manifest, and none of the files that it lists.

        Raises:
            ArtifactError: `path` is no bundle, its manifest is damaged, or a newer version wrote it.
        """
        root = Path(path)
        return cls(root, read_manifest(root))

    def verify(self) -> Bundle:
        """Verifies every file, which reads the whole bundle once, and that graphs name no others.

        Returns:
            This bundle.

        Raises:
            ArtifactError: a file is missing, changed or outside the folder, or a graph reads one that is not
                listed.
        """
        self._check(self.manifest.files)
        for name in self.manifest.variants:
            self.graphs(name)
        return self

    def file(self, name: str) -> Path:
        """Gives the path of a file that the manifest lists.

        Raises:
            ArtifactError: it lists none of that name, or the file is missing or changed.
        """
        if name not in self.manifest.files:
            raise ArtifactError(f"bundle {self.root} has no file {name!r}")
        self._check([name])
        return self.root / name

    def graphs(self, variant: str) -> dict[str, Path]:
        """Gives graph name to file for one variant, with all that these graphs read verified.

        Raises:
            ArtifactError: the bundle has no such variant, a file is missing or changed, or a graph reads one
                that the manifest does not list.
        """
        if variant not in self.manifest.variants:
            known = ", ".join(self.manifest.variants)
            raise ArtifactError(f"bundle {self.root} has no variant {variant!r}; it has {known}")
        chosen, listed = self.manifest.variants[variant], self.manifest.files
        for graph in chosen.graphs.values():
            self._check(self._below(graph) or [graph])
            self._check(data_files(self.root, chosen.runtime, graph, listed))
        return {graph: self.root / name for graph, name in chosen.graphs.items()}

    def weights(self) -> Path | None:
        """Gives the folder of the float weights, verified, or None where the bundle has none.

        Raises:
            ArtifactError: a file is missing or changed.
        """
        names = self._below("weights")
        self._check(names)
        return self.root / "weights" if names else None

    def _below(self, folder: str) -> list[str]:
        return [name for name in self.manifest.files if name.startswith(f"{folder}/")]

    def _check(self, names: Iterable[str]) -> None:
        for name in names:
            if name not in self._checked:
                _check_file(self.root, name, self.manifest.files[name])
                self._checked.add(name)

    def tokenizer(self) -> Tokenizer:
        """Opens the tokenizer.

        Raises:
            ArtifactError: the file is missing, changed or no tokenizer, or its ids do not fit.
        """
        spec = self.manifest.tokenizer
        file = self.file(spec.file)
        try:
            return Tokenizer.from_file(
                file,
                spec.context_length,
                start_id=spec.start_id,
                end_id=spec.end_id,
                pad_id=spec.pad_id,
            )
        except ValueError as error:
            raise ArtifactError(f"bundle {self.root}: tokenizer: {error}") from error


def _check_file(root: Path, name: str, record: FileRecord) -> None:
    again = "copy or export the bundle again"
    path = root / name
    if not path.is_file():
        raise ArtifactError(f"bundle {root}: {name} is missing: {again}")
    if not path.resolve().is_relative_to(root.resolve()):
        raise ArtifactError(
            f"bundle {root}: {name} is a link that leaves the bundle: replace it by a copy of the file"
        )
    size = path.stat().st_size
    if size != record.bytes:
        raise ArtifactError(f"bundle {root}: {name} has {size:,} bytes, want {record.bytes:,}: {again}")
    digest = _sha256(path)
    if digest != record.sha256:
        raise ArtifactError(
            f"bundle {root}: {name} was changed, its sha256 is {digest[:12]}... "
            f"and not {record.sha256[:12]}...: {again}"
        )


def _sha256(path: Path) -> str:
    digest, buffer = hashlib.sha256(), bytearray(1 << 20)
    view = memoryview(buffer)
    try:
        with path.open("rb", buffering=0) as source:
            while count := source.readinto(buffer):
                digest.update(view[:count])
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error}") from error
    return digest.hexdigest()


@dataclass(slots=True)
class BundleFolder:
    """A bundle being written, in a temporary folder beside its place.

    Attributes:
        path: the folder to write files into.
        base: the manifest that is extended, or None for a new bundle.
        finished: whether `finish` was called.
    """

    path: Path
    base: Manifest | None = None
    finished: bool = field(default=False, init=False)

    def finish(
        self,
        *,
        variants: Mapping[str, Variant],
        name: str | None = None,
        model: Mapping[str, JsonValue] | None = None,
        preprocessing: Preprocessing | None = None,
        tokenizer: TokenizerSpec | None = None,
        thresholds: Thresholds | None = None,
        license: License | None = None,
        provenance: Mapping[str, str | int | float] | None = None,
    ) -> Manifest:
        """Hashes every file in the folder and writes the manifest.

        What is not given is taken from `base`; a new bundle needs all but `thresholds` and `provenance`.
        `variants` are added to those of `base`, replacing equal names.

        Raises:
            ArtifactError: a field is missing or does not fit the files.
        """
        given = {
            "name": name,
            "model": model,
            "preprocessing": preprocessing,
            "tokenizer": tokenizer,
            "thresholds": thresholds,
            "license": license,
            "provenance": provenance,
        }
        fields: dict[str, object] = {} if self.base is None else dict(self.base)
        fields |= {key: value for key, value in given.items() if value is not None}
        fields["variants"] = {**(self.base.variants if self.base else {}), **variants}
        fields["files"] = {
            found.relative_to(self.path).as_posix(): FileRecord(
                bytes=found.stat().st_size, sha256=_sha256(found)
            )
            for found in sorted(self.path.rglob("*"))
            if found.is_file() and found != self.path / MANIFEST
        }
        try:
            manifest = Manifest.model_validate(fields)
        except ValidationError as error:
            raise ArtifactError(f"the bundle's manifest does not fit: {first_problem(error)}") from error
        (self.path / MANIFEST).write_text(manifest.model_dump_json(indent=1) + "\n", encoding="utf-8")
        self.finished = True
        return manifest


@contextlib.contextmanager
def new_bundle(
    target: str | Path, *, overwrite: bool = False, base: Bundle | None = None
) -> Iterator[BundleFolder]:
    """Writes a bundle whole or not at all.

    `with new_bundle(path) as folder:` write files into `folder.path`, then call `folder.finish(...)`.
    The files go to a temporary folder beside `target`. When the block ends after `finish`, the result is
    read back as `Bundle.open` reads it and then renamed; when it raises, the temporary folder is removed.

    Args:
        target: folder to make.
        overwrite: replace `target` when it is a bundle already. Nothing else is ever replaced.
        base: a bundle to start from: its files are copied in first, and its manifest is extended. Adding a
            variant in place is `new_bundle(b.root, overwrite=True, base=b)`.

    Raises:
        ArtifactError: `target` exists and may not be replaced, or the result does not verify.
        RuntimeError: the block ended without `finish`.
    """
    target = Path(target).absolute()
    occupied = target.exists() and not (target.is_dir() and not any(target.iterdir()))
    if occupied and not (target / MANIFEST).is_file():
        raise ArtifactError(
            f"{target} exists and is no bundle, it will not be replaced: choose another folder"
        )
    if occupied and not overwrite:
        raise ArtifactError(f"{target} exists already: choose another folder, or ask to overwrite it")
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        partial.mkdir()
        if base is not None:
            for name in base.manifest.files:
                (partial / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(base.root / name, partial / name)
        folder = BundleFolder(partial, None if base is None else base.manifest)
        yield folder
        if not folder.finished:
            raise RuntimeError("the bundle was not finished: call finish() before the block ends")
        Bundle.open(partial).verify()
        _move(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _move(partial: Path, target: Path) -> None:
    retired = partial.with_suffix(".old")
    replaces = target.exists()
    if replaces:
        os.rename(target, retired)
    try:
        os.rename(partial, target)
    except OSError:
        if replaces:
            os.rename(retired, target)
        raise
    shutil.rmtree(retired, ignore_errors=True)


def find_bundle(
    model: str | Path, revision: str | None = None, *, token: str | None = None, offline: bool = False
) -> Path:
    """Gives the folder of a model, fetching it from the Hub when needed. Verifies nothing.

    Args:
        model: a bundled name ("sam3i-nano"; it wins over a folder of that name), a bundle's folder, or a
            Hub id "org/name".
        revision: branch, tag or commit; for a Hub id only.
        token: of the Hub; None uses the one that 'hf auth login' stored.
        offline: use only what was fetched before.

    Returns:
        The folder. A Hub bundle lies in the user's cache folder as plain files.

    Raises:
        UnknownModel: `model` is none of these (an ArtifactError and a ValueError).
        ArtifactError: the bundled model is not installed, or the Hub cannot give the bundle.
    """
    name = str(model)
    if isinstance(model, str) and name in BUNDLED:
        if not (_ASSETS / name / MANIFEST).is_file():
            raise ArtifactError(
                f"the bundled model {name!r} is not part of this installation: reinstall sam3i-edge"
            )
        return _ASSETS / name
    try:
        folder = Path(model).expanduser()
        if name and folder.exists():
            return folder
    except (OSError, RuntimeError) as error:  # a name too long, a home that does not exist
        raise UnknownModel(f"unknown model {name[:80]!r}: {error}") from error
    if isinstance(model, str) and is_hub_id(name):
        return fetch(name, "bundles", "a bundle", revision=revision, token=token, offline=offline)
    raise UnknownModel(
        f"unknown model {name!r}: want {', '.join(BUNDLED)}, the folder of a bundle, or a Hub id 'org/name'"
    )
