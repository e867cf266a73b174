"""Shards in several processes of this machine."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection
from typing import Literal, TypeVar

import cv2

from sam3i_edge.errors import DataError
from sam3i_edge.shards.map import Map

_AHEAD = 2  # shards a process
_Done = TypeVar("_Done")


def in_processes(count: int, *, start: Literal["fork", "spawn"] | None = None) -> Map:
    """A `Map` of as many processes, which end with this one.

    Args:
        count: at least 1.
        start: how they begin; None as Python does. A GPU cannot be used in forked ones.
    """

    def run(work: Callable[[int], _Done], numbers: Sequence[int], /) -> Iterator[_Done]:
        pool = ProcessPoolExecutor(
            min(count, len(numbers)), multiprocessing.get_context(start), initializer=_start
        )
        left = iter(numbers)
        try:
            waiting = {pool.submit(work, n) for n in itertools.islice(left, _AHEAD * count)}
            while waiting:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
                    waiting |= {pool.submit(work, n) for n in itertools.islice(left, 1)}
        except BrokenProcessPool as error:
            raise DataError(
                "a process that did the work has died: was it killed, or is the memory full? The same "
                "command goes on, with fewer --workers it needs less"
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    return run


def _start() -> None:
    """Ctrl+C is the first process's to answer; and nothing goes on without it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(0)
    threading.Thread(target=_end_with_the_first, daemon=True).start()


def _end_with_the_first() -> None:
    first = multiprocessing.parent_process()
    if first is not None:
        connection.wait([first.sentinel])
        os._exit(1)
