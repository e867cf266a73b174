"""A model and a run small enough for tests; also loaded by the processes that tests start."""

from __future__ import annotations

import zlib
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from sam3i_edge.model.config import SAM3I_NANO
from sam3i_edge.train.run_config import StageConfig, TrainConfig

TINY = replace(
    SAM3I_NANO,
    image_size=64,
    conv_widths=(8, 8, 16, 16),
    text_width=16,
    text_layers=1,
    text_heads=2,
    text_mlp_dim=32,
    vocab_size=512,
    d_model=16,
    n_heads=2,
    ffn_dim=32,
    encoder_layers=1,
    decoder_layers=2,
    num_queries=8,
    adapter_dim=8,
    adapter_heads=2,
)


def words(text: str) -> NDArray[np.int64]:
    """A tokenizer of whole words: start 1, end 2, padding 0."""
    ids = np.zeros(32, np.int64)
    known = [3 + zlib.crc32(word.encode()) % 500 for word in text.split()[:30]]
    ids[: len(known) + 2] = [1, *known, 2]
    return ids


def tiny_config() -> TrainConfig:
    """Six stages of four steps; checkpoints fall neither on stage ends nor on lines of metrics."""

    def stage(name, route, trainable, *levels, image_size=0):
        return StageConfig(
            name=name,
            steps=4,
            lr=1e-3,
            warmup=1,
            route=route,
            trainable=trainable,
            level_weights=dict.fromkeys(levels, 1.0),
            image_size=image_size,
        )

    return TrainConfig(
        model="tiny",
        images=1,
        instructions=2,
        mask_instructions=1,
        log_every=2,
        validate_every=4,
        validation_batches=1,
        checkpoint_every=3,
        threads=1,
        workers=0,
        stages=(
            stage("image", "unadapted", ("image",), "concept", image_size=32),
            stage("base", "unadapted", ("base",), "concept", "simple", "complex", image_size=32),
            stage("detail", "unadapted", ("base",), "concept", "simple", "complex"),
            stage("1", "adapted", ("simple",), "simple"),
            stage("2", "adapted", ("bridge", "complex"), "complex"),
            stage("3", "adapted", ("simple", "bridge", "complex"), "simple", "complex"),
        ),
    )
