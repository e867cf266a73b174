"""Who does the work of shards."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

_Done = TypeVar("_Done")


class Map(Protocol):
    """Does the work of shards, by number."""

    def __call__(self, work: Callable[[int], _Done], numbers: Sequence[int], /) -> Iterator[_Done]:
        """Gives each when it is done, in any order.

        Args:
            work: what can be pickled, and raises DataError where it would fail again.
            numbers: of the shards.
        """


def one_by_one(work: Callable[[int], _Done], numbers: Sequence[int], /) -> Iterator[_Done]:
    """A `Map` of this process alone."""
    return (work(number) for number in numbers)
