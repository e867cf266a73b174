"""The page, a bundle that it runs, and pictures to try: served, or written as a folder to host."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sam3i_edge.bundle.folder import Bundle
from sam3i_edge.bundle.manifest import MANIFEST
from sam3i_edge.errors import ArtifactError
from sam3i_edge.files import write_whole

_STATIC: Final = Path(__file__).with_name("static")
_RUNTIME: Final = "onnxruntime"
_MODEL: Final = "model/"
_EXAMPLES: Final = "examples/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A picture to try.

    Attributes:
        png: the file's content.
        instructions: what to ask of it, the first first.
    """

    png: bytes
    instructions: tuple[str, ...]


class Site:
    """Every file of the page, by its path below the page's address; "" is the page itself.

    Attributes:
        files: path to a file, or to what it holds.
    """

    def __init__(self, bundle: Bundle | None, examples: Sequence[Example]) -> None:
        """Collects the files.

        Args:
            bundle: what the page runs; None where it asks the server that it came from.
            examples: pictures to try.

        Raises:
            ArtifactError: the bundle has no variant that a browser runs.
        """
        self.files: dict[str, Path | bytes] = {path.name: path for path in sorted(_STATIC.iterdir())}
        self.files[""] = self.files["index.html"]
        precisions = [] if bundle is None else self._add_bundle(bundle)
        listed = []
        for number, example in enumerate(examples):
            name = f"{_EXAMPLES}{number}.png"
            self.files[name] = example.png
            listed.append({"file": name, "instructions": list(example.instructions)})
        site = {"bundle": _MODEL if bundle else None, "precisions": precisions, "examples": listed}
        self.files["site.json"] = json.dumps(site).encode()

    def _add_bundle(self, bundle: Bundle) -> list[str]:
        manifest = bundle.manifest
        variants = [one for one in manifest.variants.values() if one.runtime == _RUNTIME]
        if not variants:
            raise ArtifactError(
                f"bundle {bundle.root} has no variant that a browser runs, it has "
                f"{', '.join(manifest.variants)}: add one with 'sam3i-edge export --to onnx'"
            )
        folders = {graph.rpartition("/")[0] for one in variants for graph in one.graphs.values()}
        beside = {manifest.tokenizer.file, manifest.license.file}
        self.files[_MODEL + MANIFEST] = bundle.root / MANIFEST
        for name in manifest.files:
            if name in beside or name.rpartition("/")[0] in folders:
                self.files[_MODEL + name] = bundle.root / name
        return sorted((one.precision for one in variants), key=lambda precision: precision != "fp32")

    def read(self, path: str) -> bytes | None:
        """What the file at a path holds, or None where there is none."""
        found = self.files.get(path)
        return found.read_bytes() if isinstance(found, Path) else found

    def write(self, folder: Path) -> Path:
        """Writes all files into a folder, which any web server can host.

        Raises:
            ValueError: the folder holds something else.
            OSError: it cannot be written.
        """
        if folder.exists() and not (folder / "site.json").is_file() and any(folder.iterdir()):
            raise ValueError(f"{folder} holds something else than this page: name another folder")
        for name in filter(None, self.files):
            content = self.read(name)
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            write_whole(folder / name, content or b"")
        return folder
