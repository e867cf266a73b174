"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def named(path: Path, temporary: Path | None = None) -> Iterator[None]:
    """Names the file in an OSError of the block that names none, as of a full disk, or a temporary one."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(temporary)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends well, and goes when it raises.

    Raises:
        OSError: the file cannot be written or take its place, with its name; what was there before is left.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(2)}.part")
    try:
        with named(path, temporary):
            yield temporary
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def link_or_copy(source: Path, target: Path) -> None:
    """Makes `target` the file `source`: a hard link, or a copy where there can be none. It appears whole.

    Raises:
        OSError: `source` cannot be read, or `target` not written.
    """
    with whole_file(target) as temporary:
        try:
            os.link(source.resolve(), temporary)
        except OSError:  # another file system, one without hard links, or files of another user
            shutil.copyfile(source, temporary)


def sweep(*folders: Path) -> None:
    """Removes what `whole_file` left of runs that were killed, in folders that no other run writes to."""
    for folder in folders:
        for left in folder.glob(".*.part"):
            if re.fullmatch(r"\..+\.\d+-[0-9a-f]{4}\.part", left.name):
                left.unlink(missing_ok=True)


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes text (UTF-8) or bytes as a whole file.

    Raises:
        OSError: the folder cannot be written, or the disk is full; what was there before is left.
    """
    with whole_file(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
