"""Everything that decides a training run, as data that reads from and writes to JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, ClassVar, Final, Literal

from pydantic import ConfigDict, Discriminator, Tag, TypeAdapter, ValidationError

from sam3i_edge.bundle.manifest import first_problem
from sam3i_edge.errors import TrainingError
from sam3i_edge.levels import LEVELS, Level
from sam3i_edge.model.config import ModelConfig, check_sizes
from sam3i_edge.runtimes import MOST_THREADS
from sam3i_edge.train.alignment import AlignmentWeights
from sam3i_edge.train.distillation import DistillationWeights
from sam3i_edge.train.losses import LossWeights

Group = Literal["image", "base", "simple", "bridge", "complex"]
StageName = Literal["image", "distill", "base", "detail", "1", "2", "3"]

STAGES: tuple[StageName, ...] = ("image", "distill", "base", "detail", "1", "2", "3")

# More than anybody means: what is beyond is a slip, and would end in no memory or no end.
_STEPS: Final = 1_000_000_000
_BATCH: Final = 100_000
_SIDE: Final = 8_192  # pixels
_PROCESSES: Final = MOST_THREADS


@dataclass(frozen=True, slots=True, kw_only=True)
class StageConfig:
    """One stage of the curriculum.

    Stage "image" teaches the image encoder what objects look like, without a word: see `AttributeHeads`.
    "distill" teaches a smaller image encoder what a teacher makes of pictures, without annotations. "base"
    trains the model without adapters, and "detail" goes on with that, after a base stage with smaller images.
    "1", "2" and "3" are SAM3-I's: simple, complex, both. On entry, "1" starts the adapted mask embedders from
    the base model's, and "2" the complex path from the simple one, as the official initialisation does.

    Attributes:
        name: which stage.
        steps: optimiser steps.
        lr: highest learning rate; it rises linearly over `warmup` steps and falls to 0 on a cosine.
        warmup: steps.
        route: "unadapted" sends every instruction through the concept path, "adapted" each through its own.
        trainable: the parameters that learn, "image" being those of the image encoder alone; all others are
            frozen, with their batch statistics.
        level_weights: relative frequency of the instructions' levels.
        none_share: share of the instructions of drawn scenes that match nothing.
        image_size: side of the images, pixels; 0 for the model's own. Smaller ones cost less, and no weight
            depends on it.
        pairs: pairs of a simple and a complex instruction for the same targets, an image: what the alignment
            losses of stage 3 compare. They come first among an image's instructions and always get masks.
        text_lr: of `lr`, for the text encoder.
        freeze_image: the image encoder keeps its weights and batch statistics, where "base" learns.
        renew: start the stage's adapters anew on entry; False goes on with those of `start`.
    """

    name: StageName
    steps: int
    lr: float = 8e-4
    warmup: int = 300
    route: Literal["unadapted", "adapted"]
    trainable: tuple[Group, ...]
    level_weights: Mapping[Level, float]
    none_share: float = 0.2
    image_size: int = 0
    pairs: int = 0
    text_lr: float = 1.0
    freeze_image: bool = False
    renew: bool = True

    def __post_init__(self) -> None:
        _positive(self, _STEPS, "steps", "lr", "text_lr")
        _at_least_zero(self, _STEPS, "warmup", "none_share")
        _at_least_zero(self, _SIDE, "image_size")
        _at_least_zero(self, _BATCH, "pairs")
        if self.pairs and self.route != "adapted":
            raise ValueError("pairs align the paths of simple and complex: set route to 'adapted'")
        if self.none_share >= 1:
            raise ValueError(f"none_share must be below 1, got {self.none_share}")
        if not self.trainable:
            raise ValueError("trainable must name at least one of image, base, simple, bridge, complex")
        encoder = self.name in ("image", "distill")
        if encoder != ("image" in self.trainable) or ("image" in self.trainable[1:]):
            raise ValueError(
                "stages 'image' and 'distill' train [\"image\"] and no other does, got "
                f"{self.name!r} with {list(self.trainable)}"
            )
        if not set(self.level_weights) <= set(LEVELS) or sum(self.level_weights.values()) <= 0:
            raise ValueError(
                f"level_weights must weigh some of {', '.join(LEVELS)}, got {dict(self.level_weights)}"
            )
        if encoder and self.freeze_image:
            raise ValueError(f"stage {self.name!r} trains the image encoder: leave freeze_image false")
        if self.route == "unadapted" and self.trainable not in (("base",), ("image",)):
            raise ValueError(
                "route 'unadapted' trains the base alone: set trainable to [\"base\"], or route to 'adapted'"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSource:
    """Where a share of a run's pictures comes from.

    Attributes:
        path: folder with `images/` and either SAM3-I's `annotations.json` or scene files, `scenes.jsonl`, of
            which attributes and instructions are drawn anew each time; for stage "distill" a folder of
            pictures; "" for drawn scenes, of which no two are the same.
        weight: of its pictures, beside the other sources'.
        vocabulary: name or JSON file, for scene files, and of what pictures are asked for.
        validation: folder of scene files to validate on; "" keeps a twentieth of `path` for that.
    """

    path: str = ""
    weight: float = 1.0
    vocabulary: str = "tabletop"
    validation: str = ""

    def __post_init__(self) -> None:
        _positive(self, _BATCH, "weight")
        if self.validation and not self.path:
            raise ValueError("validation is for folders; drawn scenes are always new: leave it out")


def _kind(data: object) -> str:
    return "folder" if isinstance(data, str) else "sources"


_Data = Annotated[
    Annotated[str, Tag("folder")] | Annotated[tuple[DataSource, ...], Tag("sources")], Discriminator(_kind)
]


@dataclass(frozen=True, slots=True, kw_only=True)
class QatConfig:
    """Quantization-aware training: a run whose layers compute as the quantized model's will.

    It begins with post-training quantization of the weights in `start`; the float model that they were is the
    teacher.

    Attributes:
        recipe: name in `sam3i_edge.quantize.recipes.RECIPES`, or "" for float training.
        delay: steps of the first stage before rounding begins.
        calibration_pairs: drawn (image, instruction) pairs that activations are measured on.
        teacher: weights of the distillation terms.
        supervision: weight of the ordinary losses beside them. With 0.2 the model stayed as good but moved
            away from its float teacher, which is what the agreement gate measures.
    """

    recipe: Literal["", "int8", "int8w", "int4"] = ""
    delay: int = 10
    calibration_pairs: int = 400
    teacher: DistillationWeights = field(default_factory=DistillationWeights)
    supervision: float = 0.0

    def __post_init__(self) -> None:
        _positive(self, _BATCH, "calibration_pairs")
        _at_least_zero(self, _STEPS, "delay", "supervision")


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherConfig:
    """A trained model that the run learns from. It has the same queries and reads the same tokens.

    Attributes:
        weights: folder of its weights; "" for no teacher.
        terms: weights of what is learned from it.
        supervision: weight of the ordinary losses beside them; stage "distill" has none.
    """

    weights: str = ""
    terms: DistillationWeights = field(default_factory=DistillationWeights)
    supervision: float = 1.0

    def __post_init__(self) -> None:
        _at_least_zero(self, _STEPS, "supervision")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """One run: two runs of equal configs on one machine write equal weights.

    Attributes:
        model: name of a preset in `sam3i_edge.model.config.PRESETS`; "" takes the sizes of `start`.
        seed: of the weights, the scenes and the dropout.
        stages: in order; each starts from the averaged weights that the one before ended with.
        start: folder with `base.safetensors` (and adapters, if any) to start from; "" for random weights.
        sizes: of the model, by the names of `ModelConfig`, where they differ from those of `start`: another
            image encoder, or adapters; see `train.start`.
        kept_blocks: blocks of the ViT of `start` that the model keeps, ascending; () for all.
        teacher: whether the run learns from another model, too.
        data: where the pictures come from: one folder, "" for drawn scenes, or several sources.
        images, instructions, mask_instructions: images a step and rank, instructions an image, and how many
            get masks.
        mask_scale: how many times finer the targets' masks are than the model's, whose logits are enlarged
            bilinearly before they are compared.
        losses: weights of the terms.
        alignment: weights of the terms between the two instructions of a pair, in stages that have pairs.
        qat: whether layers are trained as quantized ones.
        weight_decay: on matrices and kernels; none on norms and biases.
        muon: train large matrices and kernels by Muon instead of AdamW; see `train.muon`.
        clip: largest L2 norm of the gradient.
        ema_decay: of the averaged weights, which are validated and written; warms up as (1 + n) / (10 + n).
        log_every, validate_every, checkpoint_every: steps.
        validation_batches: batches of the same shape, with seeds apart from training's.
        threads: of the CPU. workers: processes that draw scenes.
        shard: split the parameters over the ranks that `torchrun` starts, for a model that one device cannot
            hold; a run may go on with another value.
    """

    # For everything in it too.
    __pydantic_config__: ClassVar = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    model: str = "sam3i-nano"
    seed: int = 0
    stages: tuple[StageConfig, ...]
    start: str = ""
    sizes: Mapping[str, bool | int | float | str | tuple[int, ...]] = field(default_factory=dict)
    kept_blocks: tuple[int, ...] = ()
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    data: _Data = ""
    images: int = 8
    instructions: int = 6
    mask_instructions: int = 2
    mask_scale: int = 1
    losses: LossWeights = field(default_factory=LossWeights)
    alignment: AlignmentWeights = field(default_factory=AlignmentWeights)
    qat: QatConfig = field(default_factory=QatConfig)
    weight_decay: float = 1e-4
    muon: bool = False
    clip: float = 1.0
    ema_decay: float = 0.998
    log_every: int = 50
    validate_every: int = 500
    validation_batches: int = 16
    checkpoint_every: int = 200
    threads: int = 2
    workers: int = 1
    shard: bool = False

    def __post_init__(self) -> None:
        _positive(
            self, _BATCH, "images", "instructions", "mask_instructions", "mask_scale", "validation_batches"
        )
        _positive(self, _STEPS, "clip", "log_every", "validate_every", "checkpoint_every")
        _positive(self, _PROCESSES, "threads")
        _at_least_zero(self, _PROCESSES, "workers")
        _at_least_zero(self, _STEPS, "seed", "weight_decay", "ema_decay")
        if self.ema_decay >= 1:
            raise ValueError(f"ema_decay must be below 1, got {self.ema_decay}")
        if self.mask_instructions > self.instructions:
            raise ValueError(f"mask_instructions must be at most instructions ({self.instructions})")
        names = [stage.name for stage in self.stages]
        if not names or names != [name for name in STAGES if name in names]:
            raise ValueError(
                f"stages must be some of {', '.join(STAGES)}, in that order and once each, got {names}"
            )
        if names[0] not in ("image", "base") and not self.start:
            raise ValueError(
                f"stage {names[0]!r} needs trained weights: name their folder in start, or begin with base"
            )
        if not self.model and not self.start:
            raise ValueError("model is empty: name a preset, or the folder of weights in start")
        if self.shard and (self.qat.recipe or self.teacher.weights or self.sizes or self.muon):
            raise ValueError(
                "quantization-aware training, a teacher, other sizes and muon need the whole model on every "
                "rank: set shard to false"
            )
        self._check_start(names)
        if self.qat.recipe:
            if not self.start:
                raise ValueError("quantization-aware training goes on from trained weights: set start")
            for stage in self.stages:
                if stage.name == "image" or stage.image_size or stage.renew:
                    raise ValueError(
                        f"stage {stage.name!r}: quantization-aware training keeps the model's image size and "
                        "adapters, and has no stage 'image': set image_size 0 and renew false"
                    )
        if "image" in names and not self.losses.attributes:
            raise ValueError("stage 'image' needs losses.attributes above 0")
        if not self.sources:
            raise ValueError('data is an empty list: name a source, or "" for drawn scenes')
        for stage in self.stages:
            if 2 * stage.pairs > self.mask_instructions:
                raise ValueError(
                    f"stage {stage.name!r}: every pair is two of an image's mask_instructions "
                    f"({self.mask_instructions}), got {stage.pairs} pairs"
                )
        if self.alignment.on and not any(stage.pairs for stage in self.stages):
            raise ValueError("alignment has weights above 0, but no stage has pairs: set pairs in stage '3'")

    def _check_start(self, names: list[StageName]) -> None:
        """Whether start, sizes and teacher go together."""
        unknown = sorted(self.sizes.keys() - ModelConfig.__dataclass_fields__.keys())
        if unknown:
            raise ValueError(f"sizes names {', '.join(unknown)}, which no model has; see ModelConfig")
        check_sizes(self.sizes)
        if self.sizes and (self.model or not self.start):
            raise ValueError("sizes are those that differ from start's: name start, and leave model empty")
        if list(self.kept_blocks) != sorted(set(self.kept_blocks)):
            raise ValueError(f"kept_blocks must ascend, got {list(self.kept_blocks)}")
        if self.kept_blocks and self.sizes.get("vit_depth") != len(self.kept_blocks):
            raise ValueError(f"{len(self.kept_blocks)} kept_blocks want vit_depth of that number in sizes")
        if "distill" in names and not self.teacher.weights:
            raise ValueError("stage 'distill' learns from a teacher: name its weights")
        if self.teacher.weights and "mask_detail" in self.sizes:
            raise ValueError("a teacher has masks of the student's side: leave mask_detail out of sizes")
        if self.teacher.weights and self.qat.recipe:
            raise ValueError(
                "quantization-aware training has a teacher of its own, its float start: leave teacher out"
            )
        if self.teacher.weights and "image" in names:
            raise ValueError("stage 'image' asks no instruction, so it learns from no teacher: leave it out")

    @property
    def sources(self) -> tuple[DataSource, ...]:
        """What `data` stands for."""
        return (DataSource(path=self.data),) if isinstance(self.data, str) else self.data

    def to_json(self) -> dict[str, object]:
        """Plain values, for `json.dump`."""
        values: dict[str, object] = _adapter().dump_python(self, mode="json")
        return values

    @classmethod
    def from_json(cls, values: object) -> TrainConfig:
        """The inverse of `to_json`; missing fields take their defaults.

        Raises:
            TrainingError: a field is unknown, missing, of another type or out of range; the message names it.
        """
        return _checked(json.dumps(values), "the config")

    @classmethod
    def read(cls, path: Path) -> TrainConfig:
        """Reads a JSON file.

        Raises:
            TrainingError: the file cannot be read, is not JSON, or `from_json` refuses it.
        """
        try:
            return _checked(path.read_bytes().removeprefix(b"\xef\xbb\xbf"), str(path))
        except OSError as error:
            raise TrainingError(f"cannot read {path}: {error.strerror}") from error

    def difference(self, other: TrainConfig) -> str | None:
        """The first field in which two configs differ, with both values, or None for equal ones."""
        return _difference(self.to_json(), other.to_json(), "")


def _difference(one: object, other: object, where: str) -> str | None:
    if isinstance(one, dict) and isinstance(other, dict):
        pairs = [(f"{where}.{key}", one.get(key), other.get(key)) for key in one | other]
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = [(f"{where}[{i}]", a, b) for i, (a, b) in enumerate(zip(one, other, strict=True))]
    else:
        return None if one == other else f"{where.lstrip('.')}: {one!r} against {other!r}"
    return next(filter(None, (_difference(a, b, key) for key, a, b in pairs)), None)


@cache
def _adapter() -> TypeAdapter[TrainConfig]:
    return TypeAdapter(TrainConfig)


def _checked(content: str | bytes, name: str) -> TrainConfig:
    try:
        return _adapter().validate_json(content)
    except ValidationError as error:
        raise TrainingError(f"{name}: {first_problem(error)}") from error


def _positive(config: object, most: float, *names: str) -> None:
    for name in names:
        if not getattr(config, name) > 0:  # nor is NaN
            raise ValueError(f"{name} must be above 0, got {getattr(config, name)}")
    _at_least_zero(config, most, *names)


def _at_least_zero(config: object, most: float, *names: str) -> None:
    for name in names:
        if not getattr(config, name) >= 0:
            raise ValueError(f"{name} must be at least 0, got {getattr(config, name)}")
        if getattr(config, name) > most:
            raise ValueError(f"{name} must be at most {most:,}, got {getattr(config, name)!r:.60}")
