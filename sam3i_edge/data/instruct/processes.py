"""Shards in several processes of this machine."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection

import cv2

from sam3i_edge.data.instruct.shards import InstructConfig, Map, Shard, work
from sam3i_edge.errors import DataError

_AHEAD = 2  # shards a process


def in_processes(count: int) -> Map:
    """A `Map` of as many processes, which end with this one.

    Args:
        count: at least 1.
    """

    def run(config: InstructConfig, numbers: Sequence[int]) -> Iterator[Shard]:
        pool = ProcessPoolExecutor(min(count, len(numbers)), initializer=_start)
        left = iter(numbers)
        try:
            waiting = {pool.submit(work, config, n) for n in itertools.islice(left, _AHEAD * count)}
            while waiting:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
                    waiting |= {pool.submit(work, config, n) for n in itertools.islice(left, 1)}
        except BrokenProcessPool as error:
            raise DataError(
                "a process that writes instructions has died: was it killed, or is the memory full? The same "
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
