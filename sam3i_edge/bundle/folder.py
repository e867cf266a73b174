"""The model on disk: a folder with `bundle.json`, each file checked before it is opened.

bundle.json       schema version, model, preprocessing, tokenizer, thresholds, licence, provenance;
for every file its bytes and sha256; for every variant its graphs and figures
tokenizer.json    LICENSE
onnx-fp32/        one self-contained folder a variant (runtime x precision): graphs and their data
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from sam3i_edge.bundle.data_files import data_files
from sam3i_edge.bundle.hub import fetch, is_hub_id
from sam3i_edge.bundle.manifest import (
    MANIFEST,
    ROUTER,
    FileRecord,
    Manifest,
    read_manifest,
)
from sam3i_edge.errors import ArtifactError, UnknownModel
from sam3i_edge.pipeline.tokenizer import Tokenizer

BUNDLED = ("sam3i-nano", "sam3i-table")

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

    def verify(self, trusted: Iterable[str] = ()) -> Bundle:
        """Verifies every file, which reads the whole bundle once, and that graphs name no others.

        Args:
            trusted: files that are known to be as they should, which are not read.

        Returns:
            This bundle.

        Raises:
            ArtifactError: a file is missing, changed or outside the folder, or a graph reads one that is not
                listed.
        """
        self._checked.update(trusted)
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

    def router(self) -> Path | None:
        """Gives the graph that routes instructions, verified, or None where the bundle has none.

        Raises:
            ArtifactError: the file is missing or changed.
        """
        return self.file(ROUTER) if ROUTER in self.manifest.files else None

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
            tokenizer = Tokenizer.from_file(
                file,
                spec.context_length,
                start_id=spec.start_id,
                end_id=spec.end_id,
                pad_id=spec.pad_id,
            )
        except ValueError as error:
            raise ArtifactError(f"bundle {self.root}: tokenizer: {error}") from error
        rows = self.manifest.model.get("vocab_size")
        if isinstance(rows, int) and tokenizer.vocab_size > rows:
            raise ArtifactError(
                f"bundle {self.root}: tokenizer: its ids go to {tokenizer.vocab_size - 1:,}, the model has "
                f"{rows:,} tokens: copy tokenizer.json from where the model came from"
            )
        return tokenizer


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
    digest = sha256_of(path)
    if digest != record.sha256:
        raise ArtifactError(
            f"bundle {root}: {name} was changed, its sha256 is {digest[:12]}... "
            f"and not {record.sha256[:12]}...: {again}"
        )


def sha256_of(path: Path) -> str:
    """Hashes a file.

    Raises:
        ArtifactError: it cannot be read.
    """
    digest, buffer = hashlib.sha256(), bytearray(1 << 20)
    view = memoryview(buffer)
    try:
        with path.open("rb", buffering=0) as source:
            while count := source.readinto(buffer):
                digest.update(view[:count])
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error}") from error
    return digest.hexdigest()


def find_bundle(
    model: str | Path, revision: str | None = None, *, token: str | None = None, offline: bool = False
) -> Path:
    """Gives the folder of a model, fetching it from the Hub when needed. Verifies nothing.

    Args:
        model: a bundled name ("sam3i-nano", "sam3i-table"; it wins over a folder of that name), a
            bundle's folder, or a Hub id "org/name".
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
            archive = next((path for path in _ASSETS.parents if path.is_file()), None)
            what = "reinstall sam3i-edge"
            if archive is not None:  # ONNX Runtime reads files alone
                inside = _ASSETS.relative_to(archive) / name
                what = f"it lies in {archive}: unpack {inside} from there, and name that folder as the model"
            raise ArtifactError(f"the bundled model {name!r} is no folder of this installation: {what}")
        return _ASSETS / name
    try:
        folder = Path(model).expanduser()
        if name and folder.exists():
            return folder
    except (OSError, RuntimeError) as error:  # a name too long, a home that does not exist
        raise UnknownModel(f"unknown model {name[:80]!r}: {error}") from error
    if isinstance(model, str) and is_hub_id(name):
        return fetch(name, "bundles", "a bundle", revision=revision, token=token, offline=offline)
    what = "no such folder" if "/" in name or name.startswith((".", "~")) else "unknown model"
    raise UnknownModel(
        f"{what} {name!r}: want {', '.join(BUNDLED)}, the folder of a bundle, or a Hub id 'org/name'"
    )
