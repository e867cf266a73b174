"""The user's cache folder: engines, compiled graphs and fetched models, put there by nobody else."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import platformdirs

from sam3i_edge.errors import RuntimeUnavailable


def user_cache(name: str) -> Path:
    """Gives a folder of this package's cache, whether or not it is there.

    Raises:
        RuntimeUnavailable: this user has no home folder, and no other place was named.
    """
    try:
        folder = platformdirs.user_cache_path("sam3i-edge")
    except RuntimeError:  # neither HOME nor an entry of this user's id
        folder = Path("sam3i-edge")
    if not folder.is_absolute():
        raise RuntimeUnavailable(
            "this user has no home folder to keep a cache in: set XDG_CACHE_HOME (or HOME) to a folder that "
            "can be written"
        )
    return folder / name


def private_folder(folder: Path) -> Path:
    """Makes a folder that no other user may enter, or checks one that is there, with its files.

    Raises:
        RuntimeUnavailable: others may have changed it or a file in it.
        OSError: it cannot be made.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    check_private(folder)
    if os.access(folder, os.W_OK):
        folder.chmod(0o700)
    return folder


def check_private(folder: Path) -> None:
    """Checks that only this user, or the machine's owner, could write a folder and the files in it.

    Raises:
        RuntimeUnavailable: others could.
    """
    for path in (folder, *folder.iterdir()):
        why = _others(path)
        if why is not None:
            raise RuntimeUnavailable(
                f"the cache {path} {why}, and what lies there is run as code: remove {folder}, and it is "
                "made again"
            )


def _others(path: Path) -> str | None:
    """Says why another user could have written a file or folder, or None."""
    if not hasattr(os, "geteuid"):
        return None  # Windows keeps other users out of this one's folders
    found = path.stat()
    if found.st_uid not in (0, os.geteuid()):
        return f"belongs to the user id {found.st_uid}"
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"may be written by others (mode {stat.S_IMODE(found.st_mode):o})"
    return None
