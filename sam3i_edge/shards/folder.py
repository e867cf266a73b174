"""The folder in which shards are kept until their work is whole."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from sam3i_edge.errors import DataError
from sam3i_edge.files import sweep, write_whole

SETTINGS: Final = "settings.json"


class ShardFolder:
    """Shards by number, in a folder that this process alone writes.

    Args:
        path: made where it is missing.
        settings: what decides the work, as plain values; those of a run before must be equal.
        name: of what is written, for messages.

    Raises:
        DataError: another process writes it, or it holds shards of other settings.
        OSError: it cannot be written.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], name: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._lock = (path / ".lock").open("wb")
        try:
            fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            self.release()
            raise DataError(f"another process writes {name}: wait for it, or name another folder") from None
        sweep(path)
        kept = path / SETTINGS
        if kept.exists():
            different = difference(json.loads(kept.read_text(encoding="utf-8")), settings)
            if different:
                self.release()
                raise DataError(
                    f"{name} holds an unfinished run of other settings ({different}, kept against given): "
                    "name another folder"
                )
        write_whole(kept, json.dumps(settings))

    def shard(self, number: int, *, waiting: bool = False) -> Path:
        """Where a shard's lines are kept, or those of one that waits for more."""
        return self.path / f"{number:06d}{'.waiting' if waiting else ''}.jsonl"

    def release(self) -> None:
        """Lets others write the folder."""
        self._lock.close()


def difference(kept: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    """The first of the settings in which two runs differ, with both values, or ""."""
    names = [name for name in {**given, **kept} if kept.get(name) != given.get(name)]
    return f"{names[0]} {kept.get(names[0])!r} against {given.get(names[0])!r}" if names else ""
