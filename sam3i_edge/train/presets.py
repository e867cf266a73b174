"""Training runs by name: the nanos' curricula, fine-tuning, and quantization-aware training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sam3i_edge.errors import TrainingError
from sam3i_edge.levels import LEVELS, Level
from sam3i_edge.train.distillation import DistillationWeights
from sam3i_edge.train.losses import LossWeights
from sam3i_edge.train.run_config import (
    STAGES,
    DataSource,
    Group,
    QatConfig,
    StageConfig,
    StageName,
    TeacherConfig,
    TrainConfig,
)

# The base learns all three levels through the unadapted path; docs/results/curricula.md has it beside one
# that knows concepts alone. What words mean is learned at 160 px, where a step costs less than half of one at
# the model's 224; the stages after that need few steps.
_BASE_LEVELS: Mapping[Level, float] = {"concept": 0.25, "simple": 0.375, "complex": 0.375}

NANO = TrainConfig(
    losses=LossWeights(grounding=10.0),
    mask_instructions=1,
    stages=(
        StageConfig(
            name="image",
            steps=1_500,
            lr=1.5e-3,
            warmup=50,
            route="unadapted",
            trainable=("image",),
            level_weights={"concept": 1.0},
            image_size=160,
        ),
        StageConfig(
            name="base",
            steps=12_000,
            route="unadapted",
            trainable=("base",),
            level_weights=_BASE_LEVELS,
            none_share=0.25,
            image_size=160,
        ),
        StageConfig(
            name="detail",
            steps=2_000,
            lr=3e-4,
            warmup=100,
            route="unadapted",
            trainable=("base",),
            level_weights=_BASE_LEVELS,
            none_share=0.25,
        ),
        StageConfig(
            name="1",
            steps=450,
            warmup=50,
            route="adapted",
            trainable=("simple",),
            level_weights={"simple": 1.0},
            none_share=0.25,
        ),
        StageConfig(
            name="2",
            steps=600,
            warmup=50,
            route="adapted",
            trainable=("bridge", "complex"),
            level_weights={"complex": 1.0},
            none_share=0.25,
        ),
        StageConfig(
            name="3",
            steps=250,
            lr=2e-4,
            warmup=25,
            route="adapted",
            trainable=("simple", "bridge", "complex"),
            level_weights={"simple": 0.5, "complex": 0.5},
            none_share=0.25,
        ),
    ),
)


# Tables and drawn shapes, rendered by `make tabletop-data`. What it starts from, `make train-table` makes.
_TABLES = (
    DataSource(weight=0.2),
    DataSource(path="tabletop-data/train", weight=0.35, validation="tabletop-data/held-out"),
    DataSource(path="tabletop-data/thin", weight=0.15, validation="tabletop-data/held-out"),
    DataSource(path="tabletop-data/cycles-train", weight=0.3),
)

TABLE_IMAGE = TrainConfig(
    model="",
    start="runs/start",
    data=_TABLES,
    images=12,
    threads=1,
    validate_every=200,
    stages=(
        StageConfig(
            name="image",
            steps=800,
            lr=1e-3,
            warmup=50,
            route="unadapted",
            trainable=("image",),
            level_weights={"concept": 1.0},
            renew=False,
        ),
    ),
)

# Presence alone told .70 of what is not there rightly; with `absent` the scores of the queries help.
_TABLE_BASE = replace(
    NANO.stages[1],
    steps=4_800,
    lr=7e-4,
    warmup=150,
    level_weights={"concept": 0.3, "simple": 0.4, "complex": 0.3},
    image_size=192,
)

TABLE = TrainConfig(
    model="",
    start="runs/warm",
    data=_TABLES,
    images=10,
    instructions=5,
    mask_instructions=2,
    muon=True,
    losses=LossWeights(
        grounding=10.0,
        presence=3.0,
        absent=1.0,
        classification=1.0,
        class_alpha=0.5,
        class_gamma=0.0,
        mask_bce=15.0,
        mask_dice=8.0,
    ),
    threads=1,
    validate_every=400,
    stages=(
        _TABLE_BASE,
        replace(_TABLE_BASE, name="detail", steps=26_100, lr=6e-4, warmup=60, image_size=0),
        *NANO.stages[3:],
    ),
)


_TRAINS: Mapping[StageName, tuple[Group, ...]] = {
    "base": ("base",),
    "1": ("simple",),
    "2": ("bridge", "complex"),
    "3": ("simple", "bridge", "complex"),
}


def fine_tuning(
    stages: Sequence[str], start: str, data: str = "", *, adapters: int = 0, teacher: str = ""
) -> TrainConfig:
    """Further stages of a trained model: its adapters alone, unless stage "base" is asked for.

    Args:
        stages: some of "base", "1" (level simple), "2" (complex), "3" (both).
        start: folder of the trained weights.
        data: as in `TrainConfig`.
        adapters: bottleneck of those to build, for a model that has none; 0 goes on with what there is.
        teacher: folder of the weights of a model to learn from; "" for none.

    Raises:
        ValueError: a stage is unknown.
    """
    weights: Mapping[StageName, Mapping[Level, float]] = {
        "base": dict.fromkeys(LEVELS, 1.0),
        "1": {"simple": 1.0},
        "2": {"complex": 1.0},
        "3": {"simple": 0.5, "complex": 0.5},
    }
    for name in stages:
        if name not in _TRAINS:
            raise ValueError(f"unknown stage {name!r}; choose from {', '.join(_TRAINS)}")
    return TrainConfig(
        model="",
        start=start,
        data=data,
        sizes={"adapter_dim": adapters} if adapters else {},
        teacher=TeacherConfig(weights=teacher),
        losses=LossWeights(attributes=0.0),
        images=4,
        validate_every=100,
        stages=tuple(
            StageConfig(
                name=name,
                steps=500,
                lr=8e-4 if adapters else 2e-4,
                warmup=50,
                route="adapted",
                trainable=_TRAINS[name],
                level_weights=weights[name],
                # New ones of level complex go on from those of simple; a teacher's in the detector stay.
                renew=name == "2" and bool(adapters) and not teacher,
            )
            for name in STAGES
            if name in stages
        ),
    )


def distillation(
    start: str,
    images: str,
    sizes: Mapping[str, Any],
    kept_blocks: Sequence[int] = (),
    *,
    levels: int = len(LEVELS),
    vocabulary: str = "coco",
) -> TrainConfig:
    """A smaller image encoder learns what a model makes of pictures; all else is kept.

    Args:
        start: folder of the model's weights.
        images: folder of pictures.
        sizes: of the image encoder, where they differ.
        kept_blocks: blocks of a ViT that are kept; () for all.
        levels: how many the model has, 1 or 3.
        vocabulary: of what is asked; name or JSON file.
    """
    return TrainConfig(
        model="",
        start=start,
        sizes=sizes,
        kept_blocks=tuple(kept_blocks),
        teacher=TeacherConfig(weights=start, terms=DistillationWeights(maps=20.0, text=0.0), supervision=0.0),
        data=(DataSource(path=images, vocabulary=vocabulary),),
        losses=LossWeights(attributes=0.0),
        images=4,
        instructions=3,
        mask_instructions=2,
        validate_every=500,
        stages=(
            StageConfig(
                name="distill",
                steps=20_000,
                # What is kept of the teacher's blocks is nearly right already.
                lr=1e-4 if kept_blocks else 1e-3,
                route="adapted",
                trainable=("image",),
                level_weights=dict(zip(LEVELS[:levels], (0.5, 0.25, 0.25), strict=False)),
            ),
        ),
    )


def quantization_aware(recipe: str, start: str, data: str = "") -> TrainConfig:
    """Quantization-aware training of a trained model: first the base under all levels, then the adapters.

    The base, its integers and its ranges are fixed before the adapters train, so level concept is the same
    before and after.

    Args:
        recipe: what to quantize, and how.
        start: folder of the trained weights.
        data: as in `TrainConfig`.

    Raises:
        ValueError: the recipe is unknown.
    """
    if recipe not in ("int8", "int8w", "int4"):
        raise ValueError(f"unknown recipe {recipe!r}; choose from int8, int8w, int4")
    even: Mapping[Level, float] = dict.fromkeys(LEVELS, 1.0)
    adapted: Mapping[Level, float] = {"simple": 1.0, "complex": 1.0}
    return TrainConfig(
        model="",
        start=start,
        data=data,
        images=3,
        instructions=3,
        losses=LossWeights(grounding=0.0, attributes=0.0),
        qat=QatConfig(recipe=recipe),  # type: ignore[arg-type]
        validate_every=300,
        validation_batches=32,
        checkpoint_every=100,
        stages=(
            StageConfig(
                name="base",
                steps=1_200,
                lr=3e-5,
                warmup=20,
                route="adapted",
                trainable=("base",),
                level_weights=even,
                renew=False,
            ),
            StageConfig(
                name="3",
                steps=300,
                lr=3e-5,
                warmup=20,
                route="adapted",
                trainable=("simple", "bridge", "complex"),
                level_weights=adapted,
                renew=False,
            ),
        ),
    )


PRESETS = {"sam3i-nano": NANO, "sam3i-nano-256-image": TABLE_IMAGE, "sam3i-nano-256": TABLE}


def preset(name: str) -> TrainConfig:
    """A config by name.

    Raises:
        TrainingError: there is none of that name.
    """
    if name not in PRESETS:
        raise TrainingError(
            f"no training preset {name!r}; choose from {', '.join(PRESETS)}, or give a JSON file"
        )
    return PRESETS[name]
