"""Training: starts a run, or goes on with it after an interruption."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path

import torch

from sam3i_edge.data.batch import Encode
from sam3i_edge.errors import TrainingError
from sam3i_edge.model.config import PRESETS as MODELS
from sam3i_edge.runtimes import Progress, untold
from sam3i_edge.train.alignment import check_samples
from sam3i_edge.train.distributed import joined
from sam3i_edge.train.interruption import PATIENCE, Overdue, stop_on_signal
from sam3i_edge.train.run import Run, TrainingReport
from sam3i_edge.train.run_config import TrainConfig
from sam3i_edge.train.run_folder import RunFolder


def run_training(
    config: TrainConfig,
    out: Path,
    encode: Encode,
    *,
    resume: bool = True,
    device: str = "auto",
    progress: Callable[[TrainingReport], None] | None = None,
    preparing: Progress = untold,
    max_minutes: float | None = None,
) -> Path:
    """Trains a model, or goes on where an earlier call with this folder stopped.

    A run that was killed goes on from its last checkpoint; on a CPU it then computes the same numbers as one
    that never stopped. SIGTERM and SIGINT (once, in the main thread) end it at a checkpoint, or, where the
    step takes longer than 4 s, at the one before. Started by `torchrun`, every rank takes batches of its own,
    gradients are averaged, and rank 0 validates and writes. With `config.shard` every rank holds a part of
    the model, and all take part in validation and writing.

    Args:
        config: the run.
        out: folder of the run: `config.json`, `last.pt`, `metrics.jsonl`, and after each stage
            `weights/{base,simple,complex}.safetensors`.
        encode: text to token ids int64 [32]; with workers it must pickle where processes are not forked.
        resume: go on with a run in `out`; False refuses a folder that holds one.
        device: "cpu", "cuda", "cuda:1", or "auto" for CUDA where there is one. CUDA computes in bfloat16.
        progress: called in the training thread.
        preparing: called after each pair and layer while a quantization-aware run calibrates.
        max_minutes: stop at a checkpoint after this time.

    Returns:
        `out`. Whether the run is finished, the last call of `progress` told.

    Raises:
        TrainingError: the folder belongs to another run, a file is damaged, the device is missing, the model
            should be shared out and there is one process, or the loss is no longer finite; the last
            checkpoint stays.
        DataError: a file of `config.data` is missing or breaks its layout.
    """
    if config.model and config.model not in MODELS:
        raise TrainingError(f"unknown model {config.model!r}; choose from {', '.join(MODELS)}")
    where = _device(device)
    folder = RunFolder(out)
    threads = torch.get_num_threads()
    torch.set_num_threads(config.threads)
    try:
        with (
            torch.random.fork_rng(enabled=True),
            joined(where) as ranks,
            stop_on_signal(patience=PATIENCE if ranks.size == 1 else None) as stop,
        ):
            deadline = math.inf if max_minutes is None else time.monotonic() + 60 * max_minutes
            if config.shard and ranks.size == 1:
                raise TrainingError(
                    "shard splits the model over several processes, and this is the only one: start it with "
                    "torchrun --nproc-per-node N, or set shard to false"
                )
            for stage in config.stages:
                if stage.pairs:
                    check_samples(config.images * stage.pairs * ranks.size, config.alignment)
            checkpoint = folder.begin(config, resume=resume) if ranks.rank == 0 else None
            ranks.wait()
            if ranks.rank and folder.has_checkpoint():
                checkpoint = folder.load(mapped=config.shard)
            run = Run(config, folder, encode, where, ranks, progress or _ignore)

            def before_the_first_step(words: str, share: float) -> None:
                if ranks.size == 1 and stop.noticed():  # there is nothing to keep yet
                    raise Overdue
                preparing(words, share)

            run.start(checkpoint, before_the_first_step)
            run.train(lambda: stop.noticed() or time.monotonic() >= deadline)
    except Overdue:
        number, step = folder.reached
        stage = config.stages[min(number, len(config.stages) - 1)]
        (progress or _ignore)(TrainingReport(kind="paused", stage=stage.name, step=step, steps=stage.steps))
    finally:
        torch.set_num_threads(threads)
        folder.release()
    return out


def _ignore(_: TrainingReport) -> None:
    pass


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise TrainingError(f"unknown device {name!r}; choose cpu, cuda or auto") from error
    if device.type not in ("cpu", "cuda"):
        raise TrainingError(f"training runs on cpu and cuda, got device {name!r}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise TrainingError(
            f"device {name!r} is not there ({torch.cuda.device_count()} CUDA devices); choose cpu"
        )
    return device
