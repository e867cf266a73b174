"""A bounded, thread-safe cache: least recently used first out."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

_V = TypeVar("_V")


class Lru(Generic[_V]):
    """Keeps up to `size` values; with 0 it keeps none. Thread-safe."""

    def __init__(self, size: int) -> None:
        if size < 0:
            raise ValueError(f"a cache's size must be at least 0, got {size}")
        self.size = size
        self._values: OrderedDict[Hashable, _V] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> _V | None:
        """Gives the value, which becomes the most recently used, or None."""
        with self._lock:
            if key not in self._values:
                return None
            self._values.move_to_end(key)
            return self._values[key]

    def put(self, key: Hashable, value: _V) -> None:
        """Keeps a value, and drops the least recently used ones beyond `size`."""
        with self._lock:
            self._values[key] = value
            self._values.move_to_end(key)
            while len(self._values) > self.size:
                self._values.popitem(last=False)

    def clear(self) -> None:
        """Drops everything."""
        with self._lock:
            self._values.clear()

    def __len__(self) -> int:
        return len(self._values)
