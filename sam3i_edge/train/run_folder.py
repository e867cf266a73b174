"""What a run keeps on disk: its config, its last state, its metrics, and the weights of each finished stage.

Every file is written to a temporary name and renamed when whole, so a killed run leaves the one before.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from pickle import UnpicklingError
from typing import IO, Any

import torch
from torch import Tensor

from sam3i_edge.errors import TrainingError
from sam3i_edge.files import sweep, whole_file, write_whole
from sam3i_edge.model.sam3i import SAM3I
from sam3i_edge.model.weights import save_weights
from sam3i_edge.train.run_config import TrainConfig

_FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingState:
    """A run between two steps.

    Attributes:
        stage: index into the config's stages; equal to their number when the run is finished.
        step: steps done of that stage.
        model: the model's state.
        heads: that of the attribute heads.
        average: averaged weights and their number of updates; empty at the start of a stage.
        optimizer: the optimiser's state; empty at the start of a stage.
        sums: loss terms added up since the last line of metrics; "count" and "seconds" of their steps.
        projector: the projector's state; empty in files from before there was one.
    """

    stage: int
    step: int
    model: dict[str, Tensor]
    heads: dict[str, Tensor]
    average: dict[str, Any]
    optimizer: dict[str, Any]
    sums: dict[str, float]
    projector: dict[str, Tensor] = field(default_factory=dict)


class RunFolder:
    """The folder of one run.

    Args:
        path: created when missing.

    Attributes:
        reached: stage and step of the state that was read or written last.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.reached = path, (0, 0)
        self._lock: IO[bytes] | None = None

    def begin(self, config: TrainConfig, *, resume: bool) -> TrainingState | None:
        """Claims the folder for a config and gives the state to go on from, None at the very start.

        Raises:
            TrainingError: another process trains in the folder; or it holds a run and `resume` is False, a
                run of another config, or a damaged one.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        self._claim()
        sweep(self.path, self.path / "weights", self.path / "quant")
        kept = self.path / "config.json"
        if kept.exists():
            if not resume:
                raise TrainingError(f"{self.path} already holds a run: resume it, or choose another folder")
            before = replace(TrainConfig.read(kept), shard=False)  # the files are the same with and without
            difference = before.difference(replace(config, shard=False))
            if difference:
                raise TrainingError(
                    f"{self.path} holds a run of another config ({difference}, kept against given); "
                    "give the kept one, or choose another folder"
                )
        write_whole(kept, json.dumps(config.to_json(), indent=2) + "\n")
        checkpoint = self.load(mapped=config.shard) if self.has_checkpoint() else None
        self._drop_metrics_after(config, checkpoint)
        return checkpoint

    def release(self) -> None:
        """Lets others train in the folder."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _claim(self) -> None:
        """Locks the folder until `release`, or the end of the process."""
        self.release()
        self._lock = (self.path / ".lock").open("wb")
        try:
            # Not flock, which a worker process inherits and keeps when this one was killed.
            fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):  # by the system
            self.release()
            raise TrainingError(
                f"another process trains in {self.path}: wait for it, or choose another folder"
            ) from None

    def has_checkpoint(self) -> bool:
        """Whether there is a `last.pt` to load."""
        return (self.path / "last.pt").exists()

    def save(self, checkpoint: TrainingState) -> None:
        """Replaces `last.pt`.

        Raises:
            OSError: it cannot be written; the one before stays.
        """
        values = {name: getattr(checkpoint, name) for name in TrainingState.__slots__}
        path = self.path / "last.pt"
        with whole_file(path) as temporary:
            try:
                torch.save({"format": _FORMAT, **values}, temporary)
            except RuntimeError as error:  # its writer's word for a full disk, too
                raise OSError(f"cannot write {path} ({error}): is the disk full?") from error
        self.reached = checkpoint.stage, checkpoint.step

    def load(self, *, mapped: bool = False) -> TrainingState:
        """Reads `last.pt`.

        Args:
            mapped: leave the tensors in the file until they are used, so that ranks share them in memory.

        Raises:
            TrainingError: it is damaged or of another version.
        """
        path = self.path / "last.pt"
        try:
            values = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
            if values.pop("format") != _FORMAT:
                raise KeyError("format")
            state = TrainingState(**values)
        except (
            OSError,
            RuntimeError,
            UnpicklingError,
            EOFError,
            KeyError,
            TypeError,
            AttributeError,
        ) as error:
            raise TrainingError(
                f"{path} is damaged or of another version ({error}); choose another folder to start anew"
            ) from error
        self.reached = state.stage, state.step
        return state

    def log(self, row: Mapping[str, object]) -> None:
        """Appends a line to `metrics.jsonl`."""
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def _drop_metrics_after(self, config: TrainConfig, checkpoint: TrainingState | None) -> None:
        """Keeps the lines up to the checkpoint: the steps after it are done again."""
        path = self.path / "metrics.jsonl"
        if not path.exists():
            return
        order = {stage.name: index for index, stage in enumerate(config.stages)}
        reached = (checkpoint.stage, checkpoint.step) if checkpoint else (-1, 0)
        kept = []
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                break  # the line that the kill cut
            if (order[row["stage"]], row["step"]) <= reached:
                kept.append(line + "\n")
        write_whole(path, "".join(kept))

    def write_weights(self, model: SAM3I, state: Mapping[str, Tensor] | None = None) -> None:
        """Writes `weights/{base,simple,complex}.safetensors` and the model's sizes, `weights/model.json`."""
        save_weights(model, self.path / "weights", state)
