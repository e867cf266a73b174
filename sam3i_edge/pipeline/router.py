"""A bundle's learned router: which level an instruction is answered at."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sam3i_edge.errors import ArtifactError
from sam3i_edge.levels import LEVELS, Level
from sam3i_edge.pipeline.tokenizer import Tokenizer
from sam3i_edge.runtimes import open_runtime


class Router:
    """A bundle's router. Thread-safe. It runs in ONNX Runtime, whatever runs the other graphs."""

    def __init__(self, file: Path, tokenizer: Tokenizer) -> None:
        """Opens the graph: `input_ids` int64 [1, T] to `level_logits` float32 [1, 3].

        Raises:
            ArtifactError: the file is no graph that ONNX Runtime reads.
        """
        self._runtime = open_runtime("onnxruntime", file, "cpu", threads=1)
        self._file, self._tokenizer, self._turn = file, tokenizer, threading.Lock()

    def level(self, cleaned: str) -> Level:
        """The most probable level of a cleaned instruction; errors as in `logits`."""
        return LEVELS[int(self.logits(self._tokenizer.encode_cleaned(cleaned).ids).argmax())]

    def logits(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """The levels' logits, [3] float32 in the order of `LEVELS`, of token ids [T].

        Raises:
            ArtifactError: the graph is none of a router.
            RuntimeUnavailable: it was closed.
        """
        try:
            with self._turn:
                outputs = self._runtime.run({"input_ids": ids[None]})
        except ValueError as error:
            raise ArtifactError(f"{self._file} does not fit the bundle's tokenizer: {error}") from error
        found = outputs.get("level_logits")
        if found is None or found.shape != (1, len(LEVELS)) or not np.isfinite(found).all():
            raise ArtifactError(f"{self._file} is no router: make it again with 'sam3i-edge router'")
        return np.asarray(found[0], np.float32)

    def close(self) -> None:
        """Frees the graph."""
        with self._turn:
            self._runtime.close()
