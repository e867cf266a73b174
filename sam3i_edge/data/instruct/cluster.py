"""Shards on a Ray cluster."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
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
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise RuntimeUnavailable(
                f"no Ray cluster at {address!r} ({error}): start one with 'ray start --head', or name another"
            ) from error
        try:
            ray.data.DataContext.get_current().enable_progress_bars = False
            rows = [{"number": number} for number in numbers]
            shards = ray.data.from_items(rows, override_num_blocks=len(rows)).map(partial(_work, config))
            for row in shards.iter_rows():
                yield Shard(**row)
        except RayError as error:
            raise _own(error) from error
        finally:
            ray.shutdown()

    return run


def _work(config: InstructConfig, row: dict[str, Any]) -> dict[str, Any]:
    return asdict(work(config, int(row["number"])))


def _own(error: RayError) -> Exception:
    """This package's error inside of Ray's, or one that says what Ray did."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, DataError):
            return DataError(str(cause).splitlines()[0])
        cause = getattr(cause, "cause", None) or cause.__cause__
    return DataError(
        f"the Ray cluster could not do the work ({str(error).splitlines()[0]}); the same command goes on"
    )
