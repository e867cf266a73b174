"""Training batches of several sources, each with its share of the images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from sam3i_edge.data.batch import Sample
from sam3i_edge.data.dataset import Batches

_PERIOD: Final = 1_000  # images after which the sources follow each other in the same order again


class MixedBatches(Batches):
    """Batches in which the sources take turns, as evenly as their weights allow.

    Each source keeps its own order: what it shows does not depend on the others.

    Args:
        sources: all of one shape, seed, stream and classes; those of the first are the mixture's.
        weights: of the sources; relative shares of the images.

    Raises:
        ValueError: a weight that is not above 0, or would give a source less than one image in 1,000.
    """

    def __init__(self, sources: Sequence[Batches], weights: Sequence[float]) -> None:
        first = sources[0]
        super().__init__(
            first.shape,
            first.encode,
            seed=first.seed,
            stream=first.stream,
            classes=first.classes,
            augment=first.augment,
        )
        total = sum(weights)
        if len(weights) != len(sources) or min(weights) <= 0 or min(weights) * _PERIOD < total:
            raise ValueError(
                f"every source needs a weight above 0 and an image in {_PERIOD:,}, got {list(weights)} for "
                f"{len(sources)} sources"
            )
        self.sources = tuple(sources)
        shares = np.array(weights, np.float64) / total
        counts = np.zeros((_PERIOD + 1, len(shares)), np.int64)  # of images of each source before a place
        for place in range(_PERIOD):
            counts[place + 1] = counts[place]
            counts[place + 1, np.argmax(shares * (place + 1) - counts[place])] += 1
        self._counts = counts

    def sample(self, position: int, rng: np.random.Generator) -> Sample:
        """See `Batches.sample`."""
        turn, place = divmod(position, _PERIOD)
        before = self._counts[place]
        source = int(np.argmax(self._counts[place + 1] - before))
        return self.sources[source].sample(turn * int(self._counts[-1, source]) + int(before[source]), rng)
