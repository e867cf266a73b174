"""What a run keeps on disk: its config, its last state, its metrics, and the weights of each finished stage.

Every file is written to a temporary name and renamed when whole, so a killed run leaves the one before.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from pickle import UnpicklingError
from typing import IO, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from sam3i_edge.errors import TrainingError
from sam3i_edge.model.config import ModelConfig
from sam3i_edge.model.sam3i import SAM3I
from sam3i_edge.train.config import TrainConfig
from sam3i_edge.train.plain_json import read_json
from sam3i_edge.train.stages import group_of

_FORMAT = 1
# The groups that each weights file holds. `complex` needs bridge and complex, and nothing of simple.
WEIGHT_FILES: Mapping[str, tuple[str, ...]] = {
    "base": ("base",),
    "simple": ("simple",),
    "complex": ("bridge", "complex"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
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
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: IO[bytes] | None = None

    def begin(self, config: TrainConfig, *, resume: bool) -> Checkpoint | None:
        """Claims the folder for a config and gives the state to go on from, None at the very start.

        Raises:
            TrainingError: another process trains in the folder; or it holds a run and `resume` is False, a
                run of another config, or a damaged one.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        self._claim()
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
        with _whole(kept) as temporary:
            temporary.write_text(json.dumps(config.to_json(), indent=2) + "\n", encoding="utf-8")
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

    def save(self, checkpoint: Checkpoint) -> None:
        """Replaces `last.pt`."""
        values = {name: getattr(checkpoint, name) for name in Checkpoint.__slots__}
        with _whole(self.path / "last.pt") as temporary:
            torch.save({"format": _FORMAT, **values}, temporary)

    def load(self, *, mapped: bool = False) -> Checkpoint:
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
            return Checkpoint(**values)
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

    def log(self, row: Mapping[str, object]) -> None:
        """Appends a line to `metrics.jsonl`."""
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def _drop_metrics_after(self, config: TrainConfig, checkpoint: Checkpoint | None) -> None:
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
        with _whole(path) as temporary:
            temporary.write_text("".join(kept), encoding="utf-8")

    def write_weights(self, model: SAM3I, state: Mapping[str, Tensor] | None = None) -> None:
        """Writes `weights/{base,simple,complex}.safetensors` and the model's sizes, `weights/model.json`."""
        save_weights(model, self.path / "weights", state)


def save_weights(model: SAM3I, folder: Path, state: Mapping[str, Tensor] | None = None) -> None:
    """Writes one file a group of levels, with the names of `SAM3I.state_dict`.

    Args:
        model: any; without adapters only `base.safetensors` is written.
        folder: created when missing.
        state: whole tensors, where the model holds a part of each.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kept = model.state_dict() if state is None else state
    state = {name: value.detach().cpu().contiguous() for name, value in kept.items()}
    for name, groups in WEIGHT_FILES.items():
        part = {key: value for key, value in state.items() if group_of(key) in groups}
        if part:
            with _whole(folder / f"{name}.safetensors") as temporary:
                save_file(part, temporary)
    with _whole(folder / "model.json") as temporary:
        temporary.write_text(json.dumps(model.config.to_dict(), indent=2) + "\n", encoding="utf-8")


def load_weights(model: SAM3I, folder: Path) -> None:
    """Loads what `save_weights` wrote: the base, and the adapters where there are files for them.

    Raises:
        TrainingError: `base.safetensors` is missing, or a file is damaged or does not fit the model.
    """
    wanted = model.state_dict()
    for name, groups in WEIGHT_FILES.items():
        path = folder / f"{name}.safetensors"
        if not path.exists():
            if name == "base":
                raise TrainingError(f"{path} is missing; train the base first, or correct start")
            continue
        try:
            part = load_file(path)
        except (SafetensorError, OSError) as error:
            raise TrainingError(f"{path} cannot be read: {error}") from error
        expected = {key: value.shape for key, value in wanted.items() if group_of(key) in groups}
        wrong = sorted(
            key
            for key in expected.keys() | part.keys()
            if key not in part or part[key].shape != expected.get(key)
        )
        if wrong:
            raise TrainingError(
                f"{path} does not fit this model: {len(wrong)} tensors differ, the first is {wrong[0]}"
            )
        model.load_state_dict(part, strict=False)


def read_config(folder: Path) -> ModelConfig:
    """The sizes that `save_weights` wrote beside the weights.

    Raises:
        TrainingError: there is none, or it holds something else.
    """
    values = read_json(folder / "model.json")
    if not isinstance(values, dict):
        raise TrainingError(
            f"{folder / 'model.json'} holds a {type(values).__name__}, want an object of sizes"
        )
    return ModelConfig.from_dict(values)


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends well."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
