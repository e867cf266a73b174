"""Other tiles than a kernel's table names, tried on the GPU at hand within a step's time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import torch

from sam3i_edge.kernels._dispatch import ASKED_TILES, MEASURED, capability

_WINS = 0.97  # of the table's time; less is noise
_TOLERANCE = 2e-2  # relative, in the norm: another tile is another order of sums


def neighbours(tile: Any) -> list[Any]:
    """Half, equal and twice the first side, by warps and stages: the tile itself is not among them."""
    sides = sorted({max(16, tile[0] // 2), tile[0], min(256, 2 * tile[0])})
    found = [tile._replace(**{tile._fields[0]: n, "warps": w, "stages": s})
             for n, w, s in product(sides, (4, 8), (1, 2, 3, 4))]  # fmt: skip
    # Nearest first: a search that is cut off has tried what is most likely.
    found.sort(key=lambda other: sum(a != b for a, b in zip(other, tile, strict=True)))
    return found[1:]


def search(
    run: Any, work: Callable[[], tuple[torch.Tensor, ...]], failures: tuple[type[Exception], ...]
) -> Iterator[dict[str, Any]]:
    """Gives a row for every tile that was tried, and one for every kernel with the fastest.

    Args:
        run: with `times`, `until` and `has_time`, see `scripts/gpu_run.py`.
        work: runs the operator once and gives what it gives; forward and backward, as it is used.
        failures: what a tile that does not fit raises.
    """
    ASKED_TILES.clear()
    expected = [value.clone() for value in work()]
    asked, table = dict(ASKED_TILES), run.times(work)["median_ms"]
    tiles = MEASURED.setdefault(str(capability(expected[0].device)), {}).setdefault("tiles", {})
    for number, (kernel, default) in enumerate(asked.items()):
        until = run.until(len(asked) - number)  # each kernel gets its share of the time
        kept = tiles.get(kernel)
        best, best_ms = default, _WINS * table
        for tile in neighbours(default)[: 2 if run.dry_run else None]:
            if not run.has_time(until, kernel=kernel):
                break
            tiles[kernel] = list(tile)
            try:
                found = work()
                errors = [
                    (a - b).norm() / b.norm().clamp(min=1e-6) for a, b in zip(found, expected, strict=True)
                ]
                taken = run.times(work)["median_ms"] if max(errors) < _TOLERANCE else None
            except failures as error:
                yield {"kernel": kernel, "tile": list(tile), "problem": type(error).__name__}
                continue
            yield {"kernel": kernel, "tile": list(tile), "median_ms": taken}
            if taken is not None and taken < best_ms:
                best, best_ms = tile, taken
        if best == default and kept is None:
            del tiles[kernel]
        else:
            tiles[kernel] = kept if best == default else list(best)
        yield {"kernel": kernel, "winner": list(best), "table": list(default), "table_ms": table}
