"""Writing a bundle: whole or not at all, beside its place, with what did not change linked and not copied."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import JsonValue, ValidationError

from sam3i_edge.bundle.folder import Bundle, sha256_of
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
)
from sam3i_edge.errors import ArtifactError


@dataclass(slots=True)
class BundleFolder:
    """A bundle being written, in a temporary folder beside its place.

    Attributes:
        path: the folder to write files into.
        base: the manifest that is extended, or None for a new bundle.
        linked: names of the base's files that are the same file here, with its number and time of change.
        finished: whether `finish` was called.
    """

    path: Path
    base: Manifest | None = None
    linked: dict[str, tuple[int, int]] = field(default_factory=dict)
    finished: bool = field(default=False, init=False)

    def drop(self, *names: str) -> None:
        """Takes variants of the base out, with their folders; those that it does not have are passed over."""
        if self.base is None:
            return
        for name in self.base.variants.keys() & set(names):
            shutil.rmtree(self.path / name)
        kept = {name: variant for name, variant in self.base.variants.items() if name not in names}
        self.base = self.base.model_copy(update={"variants": kept})

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
            (name := found.relative_to(self.path).as_posix()): self._record(name)
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

    def _record(self, name: str) -> FileRecord:
        """What the manifest says of a file; one that is linked was verified where it comes from."""
        path = self.path / name
        if self.base is not None and name in self.linked and self.linked[name][0] == path.stat().st_ino:
            if self.linked[name] != _identity(path):
                raise RuntimeError(
                    f"{path} was written into, and is linked from another bundle: remove it first"
                )
            return self.base.files[name]
        self.linked.pop(name, None)
        return FileRecord(bytes=path.stat().st_size, sha256=sha256_of(path))


@contextlib.contextmanager
def new_bundle(
    target: str | Path, *, overwrite: bool = False, base: Bundle | None = None
) -> Iterator[BundleFolder]:
    """Writes a bundle whole or not at all.

    `with new_bundle(path) as folder:` write files into `folder.path`, then call `folder.finish(...)`.
    The files go to a temporary folder beside `target`. When the block ends after `finish`, the result is
    verified and then renamed; when it raises, the temporary folder is removed. What a killed run left beside
    `target` is removed first.

    A file that comes from `base` is a hard link where the file system has them: remove it before writing
    another in its place, and never write into it.

    Args:
        target: folder to make.
        overwrite: replace `target` when it is a bundle already. Nothing else is ever replaced.
        base: a bundle to start from, which is verified: its files are linked in first, and its manifest is
            extended. Adding a variant in place is `new_bundle(b.root, overwrite=True, base=b)`.

    Raises:
        ArtifactError: `target` exists and may not be replaced, it cannot be written, or the result or `base`
            does not verify.
        RuntimeError: the block ended without `finish`.
    """
    target = Path(target).absolute()
    if base is not None:
        base.verify()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(target.parent, wait=True):
            _sweep(target)
            check_target(target, overwrite)
            partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
            partial.mkdir()
            held = contextlib.ExitStack()
            held.enter_context(_locked(partial))
    except OSError as error:
        raise ArtifactError(f"cannot write {target}: {error}: choose another folder") from error
    with held:
        try:
            folder = BundleFolder(partial)
            if base is not None:
                folder.base = base.manifest
                folder.linked = _link(base, partial)
            yield folder
            if not folder.finished:
                raise RuntimeError("the bundle was not finished: call finish() before the block ends")
            Bundle.open(partial).verify(trusted=folder.linked)
            _move(partial, target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def check_target(target: Path, overwrite: bool = False) -> None:
    """Refuses what `new_bundle` would refuse, before the long work that comes before it.

    Raises:
        ArtifactError: `target` exists and may not be replaced, or it cannot be made where it is.
    """
    target = target.absolute()
    parent = next(folder for folder in target.parents if folder.exists())
    if not (parent.is_dir() and os.access(parent, os.W_OK)):
        raise ArtifactError(f"{target} cannot be written: {parent} takes no new folder; choose another place")
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not (target / MANIFEST).is_file():
        raise ArtifactError(
            f"{target} exists and is no bundle, it will not be replaced: choose another folder"
        )
    if not overwrite:
        raise ArtifactError(f"{target} exists already: choose another folder, or ask to overwrite it")


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_ino, found.st_mtime_ns


def _link(base: Bundle, folder: Path) -> dict[str, tuple[int, int]]:
    """Links the base's files, or copies them; gives those that are links."""
    linked = {}
    for name in base.manifest.files:
        # A bundle may hold links to its own files: what is linked here is the file.
        source, made = (base.root / name).resolve(), folder / name
        made.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source, made)
        except OSError:  # another file system, one without hard links, or files of another user
            shutil.copyfile(source, made)
        else:
            linked[name] = _identity(made)
    return linked


@contextlib.contextmanager
def _locked(folder: Path, *, wait: bool = False) -> Iterator[bool]:
    """Holds a lock on a folder, which ends with this process however that ends; gives whether it got it.

    Where the file system or the platform has no such locks nobody gets one, and nothing is swept.
    """
    try:
        import fcntl
    except ModuleNotFoundError:  # Windows
        yield False
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError:
            yield False
        else:
            yield True
    finally:
        os.close(handle)


def _sweep(target: Path) -> None:
    """Removes what killed runs left beside `target`: folders that no process holds.

    A run that was killed between its two renames left the bundle that it was replacing: that one is put back.
    """
    for leftover in target.parent.iterdir():
        name, number, kind = _parts(leftover.name)
        if name != target.name or not number.isdigit() or not leftover.is_dir():
            continue
        with _locked(leftover) as ours:
            if not ours:
                continue
            if kind == "old" and not target.exists():
                os.rename(leftover, target)
            elif kind in ("old", "partial"):
                shutil.rmtree(leftover)


def _parts(name: str) -> tuple[str, str, str]:
    """NAME, PID and KIND of ".NAME.PID.KIND"."""
    rest, _, kind = name.rpartition(".")
    rest, _, number = rest.rpartition(".")
    return rest.removeprefix("."), number, kind


def _move(partial: Path, target: Path) -> None:
    retired = partial.with_suffix(".old")
    if not target.exists():
        os.rename(partial, target)
        return
    with _locked(target):  # so that no other run takes it for a leftover
        os.rename(target, retired)
        try:
            os.rename(partial, target)
        except OSError:
            os.rename(retired, target)
            raise
        shutil.rmtree(retired, ignore_errors=True)
