"""Shards on a Ray cluster."""

from __future__ import annotations

import logging
import os
import pickle
import socket
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import ray
import ray.data
from ray.exceptions import RayError

from sam3i_edge.data.instruct.shards import InstructConfig, Map, Shard, work
from sam3i_edge.errors import DataError, RuntimeUnavailable


def on_cluster(address: str) -> Map:
    """A `Map` of a cluster's processes, through Ray Data.

    Every node needs this package, and the source and its pictures under the same path. What a node writes
    comes back here: only this process writes the folder. Work of a node that is lost is done again.

    Args:
        address: "auto" for the cluster of this machine, "host:port", or "ray://host:port".
    """

    def run(config: InstructConfig, numbers: Sequence[int]) -> Iterator[Shard]:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing leaves the machine unasked
        try:
            _look(address)
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (OSError, RuntimeError, ValueError) as error:
            raise RuntimeUnavailable(
                f"no Ray cluster at {address!r} ({error}): start one with 'ray start --head', or name another"
            ) from error
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        try:
            ray.data.DataContext.get_current().enable_progress_bars = False
            rows = [{"number": number} for number in numbers]
            done = ray.data.from_items(rows, override_num_blocks=len(rows)).map(partial(_work, config))
            for row in done.iter_rows():
                found = pickle.loads(row["found"])
                if isinstance(found, DataError):
                    raise found
                yield found
        except RayError as error:
            said = str(error).splitlines()[0]
            raise DataError(
                f"the Ray cluster could not do the work ({said}); the same command goes on"
            ) from error
        finally:
            ray.shutdown()

    return run


def _look(address: str) -> None:
    """Raises OSError where nobody listens; Ray itself would try for minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if host and port.isdecimal():
        with socket.create_connection((host.strip("[]"), int(port)), timeout=10):
            pass


def _work(config: InstructConfig, row: dict[str, Any]) -> dict[str, Any]:
    """The shard, or the error that stops the run: Ray would try again what can only fail again."""
    found: Shard | DataError
    try:
        found = work(config, int(row["number"]))
    except DataError as error:
        found = error
    return {"found": pickle.dumps(found)}
