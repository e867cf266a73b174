"""A training run in memory: stages, steps, validation, and the state that a later process goes on from."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

import torch

from sam3i_edge.data.batch import Batch, BatchShape, Encode
from sam3i_edge.data.batch_loading import load_batches
from sam3i_edge.data.dataset import Batches
from sam3i_edge.errors import TrainingError
from sam3i_edge.levels import LEVELS
from sam3i_edge.model.config import ModelConfig
from sam3i_edge.model.sam3i import SAM3I
from sam3i_edge.runtimes import Progress
from sam3i_edge.train import stages
from sam3i_edge.train.distillation import Distillation, check_teacher
from sam3i_edge.train.distributed import Ranks
from sam3i_edge.train.objective import Objective
from sam3i_edge.train.run_config import StageConfig, TrainConfig
from sam3i_edge.train.run_data import RunData
from sam3i_edge.train.run_folder import RunFolder, TrainingState
from sam3i_edge.train.sharding import Sharded, clip_gradients, gathered, optimizer_state
from sam3i_edge.train.start import load_start, new_model, open_teacher, sizes_of
from sam3i_edge.train.trunk_norms import folded

S = TypeVar("S", bound=dict[str, Any])
T = TypeVar("T")

# Streams of batches: one a stage, and one for validation that no stage comes near.
_VALIDATION_STREAM = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingReport:
    """What a run tells while it goes.

    Attributes:
        kind: "step" every `log_every` steps; "validation"; "stage" when one has ended; "paused" when the run
            stops at a checkpoint before its end; "finished".
        stage, step, steps: where it is.
        values: loss terms and speed, or validation figures; empty otherwise.
    """

    kind: Literal["step", "validation", "stage", "paused", "finished"]
    stage: str
    step: int
    steps: int
    values: Mapping[str, float] = field(default_factory=dict)


class Run:
    """A run from its start, or from a checkpoint, to its end.

    Args:
        config: the run.
        folder: where its weights, figures and checkpoints go.
        encode: text to token ids int64 [32].
        device: what it computes on.
        ranks: the processes that share it.
        progress: called with each report.

    Raises:
        DataError: a file of `config.data` is missing or breaks its layout.
    """

    def __init__(
        self,
        config: TrainConfig,
        folder: RunFolder,
        encode: Encode,
        device: torch.device,
        ranks: Ranks,
        progress: Callable[[TrainingReport], None],
    ) -> None:
        self.config, self.folder, self.encode = config, folder, encode
        self.device, self.ranks, self.progress = device, ranks, progress
        torch.manual_seed(config.seed)
        self.stage, self.step = 0, 0
        self.validates = ranks.rank == 0 or config.shard
        self.sharded: Sharded | None = None
        self.data = RunData(config)
        self.sizes = sizes_of(config)
        self.quantized = None
        if config.qat.recipe:
            # torchao is needed by these runs alone.
            from sam3i_edge.train.quantized_run import QuantizedRun

            self.quantized = QuantizedRun(config, self.sizes, encode, self.data, folder.path)
        else:
            self.model, self.objective = self._build(config.stages[0])
        self.sums: dict[str, float] = {}
        self.held_out: list[Batch] = []

    def start(self, checkpoint: TrainingState | None, preparing: Progress) -> None:
        """Takes the checkpoint's place, or the first one."""
        if self.quantized is not None:
            first = checkpoint is None
            if first and self.ranks.rank == 0:
                self.model = self.quantized.start(preparing)
            self.ranks.wait()
            if not first or self.ranks.rank:
                self.model = self.quantized.structure()
            self.model, self.objective = self._with_objective(self.model)
            self.ranks.from_first(self.model.state_dict().values())
        if checkpoint is not None:
            self.stage, self.step, self.sums = checkpoint.stage, checkpoint.step, dict(checkpoint.sums)
            if self.quantized is None and self.stage < len(self.config.stages):
                self.model, self.objective = self._build(self.current)
            self.model.load_state_dict(checkpoint.model)
            self.objective.heads.load_state_dict(checkpoint.heads)
            if checkpoint.projector:
                self.objective.projector.load_state_dict(checkpoint.projector)
        elif self.config.start and self.quantized is None:
            load_start(self.model, self.config)
        if self.stage < len(self.config.stages):
            self._open_stage(checkpoint)

    def train(self, stop: Callable[[], bool]) -> None:
        """Runs to the end, or until `stop` says so."""
        while self.stage < len(self.config.stages):
            if not self._run_stage(stop):
                self._tell("paused")
                return
            self._close_stage()
        self.stage -= 1
        self.step = self.current.steps
        self._tell("finished")

    @property
    def current(self) -> StageConfig:
        """The stage that it is in."""
        return self.config.stages[self.stage]

    def _sizes(self, stage: StageConfig) -> ModelConfig:
        return replace(self.sizes, image_size=stage.image_size or self.sizes.image_size)

    def _build(self, stage: StageConfig) -> tuple[SAM3I, Objective]:
        """The model at a stage's image size, with fresh weights, and its objective."""
        return self._with_objective(new_model(self.config, self._sizes(stage)))

    def _with_objective(self, model: SAM3I) -> tuple[SAM3I, Objective]:
        if not self.config.shard:  # else the parts of it move alone, and in the default format
            # Channels last: convolutions take 25 % less time on a CPU.
            model = model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.sharded = None
        config = self.config
        objective = Objective(
            model, config.losses, self.device, config.alignment, self.ranks, classes=self.data.classes
        )
        if self.quantized is not None:
            teacher = self.quantized.teacher()
            teacher.teacher.to(self.device)
            objective.learn_from(teacher, config.qat.supervision)
        elif config.teacher.weights:
            given = open_teacher(config, model.config.image_size)
            for stage in config.stages:
                check_teacher(
                    given.config, model.config, stage.level_weights if stage.route == "adapted" else ()
                )
            given = given.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
            teacher = Distillation(given, config.teacher.terms)
            objective.learn_from(teacher, config.teacher.supervision)
        return model, objective

    def _open_stage(self, checkpoint: TrainingState | None) -> None:
        if self.step == 0:
            stages.enter(self.model, self.current)
        if self.config.shard and self.sharded is None:
            parts = (self.objective.heads, self.objective.projector)
            self.sharded = Sharded(self.model, parts, self.device, self.ranks.size)
        learns = stages.freeze(self.model, self.current)
        self.parameters = learns | self.objective.parameters(self.current)
        self.average = stages.Average(self.model, self.config.ema_decay)
        self.optimizer = stages.optimizer(
            self.parameters, self.config.weight_decay, self.current.text_lr, muon=self.config.muon
        )
        if checkpoint is not None and checkpoint.step:
            self.average.load(checkpoint.average)
            self.optimizer.load_state_dict(optimizer_state(checkpoint.optimizer, self.optimizer))

    def _run_stage(self, stop: Callable[[], bool]) -> bool:
        """The steps left of the stage; False when stopped before its end, with a checkpoint written."""
        config, stage, ranks = self.config, self.current, self.ranks
        numbers = range(self.step * ranks.size + ranks.rank, stage.steps * ranks.size, ranks.size)
        batches = load_batches(self._batches(self.stage), numbers, workers=config.workers)
        if not self.held_out and self.validates:
            numbers = range(config.validation_batches)
            self.held_out = list(
                load_batches(self._batches(_VALIDATION_STREAM), numbers, workers=config.workers)
            )
        if self.quantized is not None and ranks.rank == 0 and self.stage == self.step == 0:
            self._validate()  # what post-training quantization gives: the start of the curve
        began = time.perf_counter()
        while self.step < stage.steps:
            if ranks.any(stop(), self.device):
                self._save()
                return False
            self._train_step(next(batches).to(self.device))
            self.sums["seconds"] = self.sums.get("seconds", 0.0) + time.perf_counter() - began
            if ranks.rank == 0 and (self.step % config.log_every == 0 or self.step == stage.steps):
                self._log()
            if self.validates and (self.step % config.validate_every == 0 or self.step == stage.steps):
                self._validate()
            if self.step % config.checkpoint_every == 0 and self.step < stage.steps:
                self._save()
            began = time.perf_counter()
        return True

    def _close_stage(self) -> None:
        """Ends with the averaged weights, writes them, and checkpoints the start of the next stage."""
        self.average.swap(self.model)
        self.ranks.from_first(self.model.state_dict().values())  # batch statistics are each rank's own
        unadapted = self.current.route == "unadapted" and self.current.name != "image"
        if unadapted and self.model.config.adapter_dim:
            # So that the adapted levels answer as the base does until they are trained.
            self.model.copy_mask_embedder()
        written: dict[str, float] = {}
        state = self._whole(self.model.state_dict())
        if self.ranks.rank == 0:
            if self.quantized is None:
                self.folder.write_weights(self.model, folded(state))
            else:
                written = self.quantized.write(self.model)
                self.folder.log({"stage": self.current.name, "step": self.step, **written})
        self._tell("stage", written)
        self.stage, self.step, self.sums = self.stage + 1, 0, {}
        self._save()
        if self.stage < len(self.config.stages):
            if self._sizes(self.current) != self.model.config:
                state = self._whole(self.model.state_dict(), everywhere=True)
                heads = self._whole(self.objective.heads.state_dict(), everywhere=True)
                projector = self._whole(self.objective.projector.state_dict(), everywhere=True)
                self.model, self.objective = self._build(self.current)
                self.model.load_state_dict(state)
                self.objective.heads.load_state_dict(heads)
                self.objective.projector.load_state_dict(projector)
                self.held_out = []
            self._open_stage(None)

    def _batches(self, stream: int) -> Batches:
        config, sizes = self.config, self.model.config
        held_out = stream == _VALIDATION_STREAM
        # Stage "image" reads no instruction.
        wordless = self.current.name == "image" and not held_out
        shape = BatchShape(
            images=config.images,
            instructions=1 if wordless else config.instructions,
            mask_instructions=1 if wordless else config.mask_instructions,
            image_size=sizes.image_size,
            mask_size=sizes.mask_size * (1 if held_out else config.mask_scale),
            pairs=0 if held_out else self.current.pairs,
        )
        return self.data.batches(
            shape,
            self.encode,
            stream=stream,
            # The same scenes and instructions in every stage, so that their figures compare.
            level_weights=dict.fromkeys(LEVELS, 1.0) if held_out else self.current.level_weights,
            none_share=self.current.none_share,
            part="validation" if held_out else "train",
        )

    def _train_step(self, batch: Batch) -> None:
        stage, step = self.current, self.step
        # Seeded by step: a resumed run draws the same dropout without a saved generator state.
        drawn = (self.config.seed * 16 + self.stage) * 10_000_000 + step + 1
        torch.manual_seed(drawn * self.ranks.size + self.ranks.rank)
        for group in self.optimizer.param_groups:
            group["lr"] = stages.learning_rate(stage, step) * group.get("lr_scale", 1.0)
        if self.quantized is not None:
            self.quantized.round(self.model, self.stage > 0 or step >= self.config.qat.delay)
        loss, terms = self._inside(lambda: self.objective.loss(batch, stage))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        learned = self.parameters.values()
        if self.sharded is not None:  # the backward pass has averaged them
            norm = clip_gradients(learned, self.config.clip)
        else:
            self.ranks.average_gradients(learned)
            norm = torch.nn.utils.clip_grad_norm_(learned, self.config.clip)
        names = ("loss", "grad_norm", *terms)
        values = torch.stack(
            [loss.detach(), norm.detach(), *terms.values()]
        ).tolist()  # one wait for the device
        if not all(map(math.isfinite, values)):
            shown = ", ".join(
                f"{n} {v:.3g}" for n, v in zip(names, values, strict=True) if not math.isfinite(v)
            )
            number = step * self.ranks.size + self.ranks.rank
            raise TrainingError(
                f"stage {stage.name!r}, step {step} (batch {number} of seed {self.config.seed}): {shown}; "
                f"lower lr or clip, the last checkpoint in {self.folder.path} is whole"
            )
        self.optimizer.step()
        self.average.update(self.model)
        self.step += 1
        for name, value in zip(names, values, strict=True):
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.sums["count"] = self.sums.get("count", 0.0) + 1

    def _log(self) -> None:
        count = self.sums.pop("count")
        seconds = self.sums.pop("seconds")
        values = {name: total / count for name, total in self.sums.items()}
        values["lr"] = stages.learning_rate(self.current, self.step - 1)
        values["seconds_per_step"] = round(seconds / count, 4)
        self.sums = {}
        self.folder.log({"stage": self.current.name, "step": self.step, **values})
        self._tell("step", values)

    def _validate(self) -> None:
        began = time.perf_counter()
        self.average.swap(self.model)
        if self.quantized is not None:
            # After the swap, which exchanges the fake-quantizers' switches too.
            self.quantized.round(self.model, True)
        figures = self._inside(lambda: self.objective.validate(self.held_out, self.current))
        self.average.swap(self.model)
        stages.freeze(self.model, self.current)
        if self.ranks.rank:
            return
        seconds = round(time.perf_counter() - began, 2)
        self.folder.log(
            {"stage": self.current.name, "step": self.step, "validation": figures, "seconds": seconds}
        )
        self._tell("validation", figures)

    def _save(self) -> None:
        """Writes the state; at the start of a stage without what its opening makes anew."""
        checkpoint = TrainingState(
            stage=self.stage,
            step=self.step,
            model=self._whole(self.model.state_dict()),
            heads=self._whole(self.objective.heads.state_dict()),
            projector=self._whole(self.objective.projector.state_dict()),
            average=self._whole(self.average.state()) if self.step else {},
            optimizer=self._whole(self.optimizer.state_dict()) if self.step else {},
            sums=self.sums,
        )
        if self.ranks.rank == 0:
            self.folder.save(checkpoint)

    def _inside(self, work: Callable[[], T]) -> T:
        """Does what uses the model's layers, where all of its parameters are to be had."""
        return work() if self.sharded is None else self.sharded(work)

    def _whole(self, state: S, *, everywhere: bool = False) -> S:
        """The state with whole tensors, on rank 0 or on every one; all ranks must come here."""
        if self.sharded is None:
            return state
        whole: S = gathered(state, keep=everywhere or self.ranks.rank == 0)
        return whole

    def _tell(
        self,
        kind: Literal["step", "validation", "stage", "paused", "finished"],
        values: Mapping[str, float] | None = None,
    ) -> None:
        if self.ranks.rank:
            return
        self.progress(
            TrainingReport(
                kind=kind,
                stage=self.current.name,
                step=self.step,
                steps=self.current.steps,
                values=values or {},
            )
        )
