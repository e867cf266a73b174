"""Shards on a Ray cluster."""

from __future__ import annotations

import logging
import os
import pickle
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar, cast

import ray
import ray.data
from ray.exceptions import RayError

from sam3i_edge.errors import DataError, RuntimeUnavailable
from sam3i_edge.shards.map import Map

_Done = TypeVar("_Done")


def on_cluster(address: str, *, gpu: bool = False) -> Map:
    """A `Map` of a cluster's actors, one a core or a GPU, through Ray Data.

    Every node needs this package, and the source and its pictures under the same path. What a node writes
    comes back here: only this process writes the folder. Work of a node that is lost is done again.

    Args:
        address: "auto" for the cluster of this machine, "host:port", or "ray://host:port".
        gpu: each actor has a GPU of its own.
    """

    def run(work: Callable[[int], _Done], numbers: Sequence[int], /) -> Iterator[_Done]:
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
            resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
            most = int(resources.get("GPU" if gpu else "CPU", 0))
            if not most:
                raise RuntimeUnavailable(
                    f"the Ray cluster at {address!r} has no {'GPU' if gpu else 'core'} for work"
                )
            done = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
                cast("Any", _Worker),  # its types know functions alone
                fn_constructor_args=(work,),
                compute=ray.data.ActorPoolStrategy(min_size=1, max_size=most),
                num_gpus=1 if gpu else None,
            )
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


class _Worker:
    """An actor. It gives back the error that stops the run: Ray would try again what can only fail again."""

    def __init__(self, work: Callable[[int], object]) -> None:
        self._work = work

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        found: object
        try:
            found = self._work(int(row["number"]))
        except DataError as error:
            found = error
        return {"found": pickle.dumps(found)}
