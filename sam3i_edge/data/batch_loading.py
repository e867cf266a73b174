"""Batches made ahead of time, by processes of their own."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import pickle
import signal
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection
from multiprocessing.connection import Connection
from typing import Final

import cv2
import torch
from torch.utils.data import Dataset

from sam3i_edge.data.batch import Batch
from sam3i_edge.errors import TrainingError


def load_batches(data: Dataset[Batch], numbers: range, *, workers: int) -> Iterator[Batch]:
    """The batches of these numbers, in order.

    They come from the workers through pipes: a container's /dev/shm is often too small for them.

    Args:
        data: batches by number; what it raises is raised here.
        numbers: which.
        workers: processes that make them ahead of time; 0 makes them here.

    Raises:
        TrainingError: the processes cannot start, or one has died.
    """
    if not workers:
        yield from (data[number] for number in numbers)
        return
    ended, running = multiprocessing.Pipe(duplex=False)
    try:
        # Python's own pool tells when a process dies; PyTorch's loader may wait for ever.
        pool = ProcessPoolExecutor(workers, initializer=_start_worker, initargs=(data, ended, running))
    except OSError as error:
        raise TrainingError(
            f"cannot start {workers} processes that make batches ({error}): they need a writable /dev/shm; "
            "make it so, or set workers to 0"
        ) from error
    waiting: deque[Future[bytes]] = deque()
    left = iter(numbers)
    try:
        for _ in numbers:
            for number in itertools.islice(left, _AHEAD * workers - len(waiting)):
                waiting.append(pool.submit(_pickled_batch, number))
            batch: Batch = pickle.loads(waiting.popleft().result())
            yield batch
    except BrokenProcessPool as error:
        raise TrainingError(
            "a process that makes batches has died: was it killed, or is the memory full? With fewer images "
            "or workers the run needs less; the same command goes on from the last checkpoint"
        ) from error
    finally:
        running.close()
        ended.close()
        pool.shutdown(wait=False, cancel_futures=True)


_AHEAD: Final = 4  # batches a worker
_data: Dataset[Batch]  # of this process, where it is a worker


def _pickled_batch(number: int) -> bytes:
    return pickle.dumps(_data[number], pickle.HIGHEST_PROTOCOL)


def _start_worker(data: Dataset[Batch], ended: Connection, running: Connection) -> None:
    """One thread a worker; and signals to the whole process group are the trainer's to answer."""
    global _data
    _data = data
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    running.close()
    threading.Thread(target=_end_with_the_run, args=(ended,), daemon=True).start()
    torch.set_num_threads(1)
    # 0 runs serially. 1 would rebuild OpenCV's pool and wait forever for threads that the fork did not copy.
    cv2.setNumThreads(0)


def _end_with_the_run(ended: Connection) -> None:
    """Whatever the worker is at: nobody waits for it when the trainer has closed its end, or was killed."""
    trainer = multiprocessing.parent_process()
    connection.wait([ended] if trainer is None else [ended, trainer.sentinel])
    os._exit(1)
