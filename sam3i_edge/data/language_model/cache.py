"""Answers on disk, by the content of what was asked, and what they cost. Processes may share a file."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sam3i_edge.errors import DataError

_PATIENCE: Final = 60  # seconds for another process's writing
_TABLES: Final = """
CREATE TABLE IF NOT EXISTS answers (
    key TEXT, attempt INTEGER, text TEXT NOT NULL, tokens INTEGER NOT NULL, seconds REAL NOT NULL,
    PRIMARY KEY (key, attempt)
);
CREATE TABLE IF NOT EXISTS paid (id INTEGER PRIMARY KEY CHECK (id = 0), calls INTEGER, tokens INTEGER);
INSERT OR IGNORE INTO paid VALUES (0, 0, 0);
"""


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer and what it cost.

    Attributes:
        text: what the model wrote.
        tokens: of the prompt and the answer.
        seconds: from the request to the answer, retries included.
    """

    text: str
    tokens: int
    seconds: float


class AnswerCache:
    """A file of answers. Each is on the disk before `put` returns, so a killed process pays for none twice.

    Attributes:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        """Opens the file, or makes it.

        Raises:
            DataError: the file is no cache of this kind.
            OSError: it cannot be opened or written, as on a full disk.
        """
        self.path = path
        self._lock = threading.Lock()
        with self._told():
            # Statements end at once; threads take turns by the lock.
            self._file = sqlite3.connect(
                path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False
            )
            self._file.executescript(f"PRAGMA synchronous = FULL; BEGIN IMMEDIATE; {_TABLES} COMMIT;")

    def get(self, key: str, attempt: int) -> Kept | None:
        """The answer to a request, by the number of the attempt; None where it was not asked yet."""
        with self._told():
            row = self._file.execute(
                "SELECT text, tokens, seconds FROM answers WHERE key = ? AND attempt = ?", (key, attempt)
            ).fetchone()
        return None if row is None else Kept(*row)

    def put(self, key: str, attempt: int, kept: Kept) -> None:
        """Keeps an answer; one that another process has kept since stays, and both are paid for."""
        with self._told(), self._file:  # commits, or takes back what an error left half done
            self._file.execute("BEGIN IMMEDIATE")
            row = (key, attempt, kept.text, kept.tokens, kept.seconds)
            self._file.execute("INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?, ?)", row)
            self._file.execute("UPDATE paid SET calls = calls + 1, tokens = tokens + ?", (kept.tokens,))

    def paid(self) -> tuple[int, int]:
        """Calls and tokens so far, of every run and process that used the file."""
        with self._told():
            calls, tokens = self._file.execute("SELECT calls, tokens FROM paid").fetchone()
        return int(calls), int(tokens)

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            self._file.close()

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Holds the lock, and turns SQLite's complaints into a line that says what to do."""
        with self._lock:
            try:
                yield
            except sqlite3.OperationalError as error:  # a full disk, no permission, a lock that was not freed
                raise OSError(f"{self.path} cannot be used: {error}") from error
            except sqlite3.DatabaseError as error:
                raise DataError(
                    f"{self.path} is no cache of answers ({error}): move it away; what it held is asked again"
                ) from error
