"""What a run starts from: the weights of `start`, in a model that may have other sizes.

With a smaller image encoder all else is kept. Adapters are built where `start` has none, at the width and
depth of its own text encoder; details of masks likewise.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from sam3i_edge.errors import ArtifactError
from sam3i_edge.model.config import PRESETS, ModelConfig
from sam3i_edge.model.folding import site_gates, unfold, with_constants
from sam3i_edge.model.sam3i import SAM3I, adapter_of
from sam3i_edge.model.weights import build_model, load_weights, open_weights, read_config
from sam3i_edge.train.run_config import TrainConfig
from sam3i_edge.train.trunk_norms import add_norms

_DETAIL = "detector.mask_decoder.detail."
_BLOCK = re.compile(r"(?<=image_encoder\.backbone\.blocks\.)\d+(?=\.)")


def sizes_of(config: TrainConfig) -> ModelConfig:
    """The sizes of the model that a run trains.

    Raises:
        ArtifactError: `start` cannot be read. ValueError: the sizes do not fit together.
    """
    if config.model:
        return PRESETS[config.model]
    kept = read_config(Path(config.start))
    return ModelConfig.from_dict(kept.to_dict() | dict(config.sizes)) if config.sizes else kept


def new_model(config: TrainConfig, sizes: ModelConfig) -> SAM3I:
    """The model that a run trains, with fresh weights.

    A trunk that starts from nothing has batch norms. What a distilled teacher has as constants, made by
    `convert` of adapters that never learned, stays so.
    """
    model = SAM3I(sizes)
    if "backbone" in config.sizes:
        add_norms(model)
    if any(stage.name == "distill" for stage in config.stages):
        with_constants(model, open_weights(Path(config.start)))
    return model


def load_start(model: SAM3I, config: TrainConfig) -> None:
    """Copies what `config.start` has into a model of `sizes_of(config)`.

    Of an image encoder with other sizes, tensors of the same name are taken: whole, or their first channels
    where it is narrower. Adapters that `start` lacks are taken from the teacher in the detector, which both
    have alike, and stay new in the text encoder. Without a teacher all are new. So are details of masks.

    Raises:
        ArtifactError: a file cannot be read, or lacks a tensor that must be the same.
    """
    if not config.sizes:
        load_weights(model, Path(config.start))
        return
    given = open_weights(Path(config.start))
    has_adapters = any(map(adapter_of, given))
    own, taught = model.state_dict(), {}
    if config.teacher.weights:
        its = open_weights(Path(config.teacher.weights), "detector")
        taught = unfold(its, own, site_gates(model))
    new: dict[str, Tensor] = {}
    for name, value in own.items():
        if name.startswith("image_encoder."):
            source = given.get(_BLOCK.sub(lambda n: str(_kept(config, int(n[0]))), name))
            if source is not None and _covers(source, value):
                new[name] = source[tuple(map(slice, value.shape))]
        elif adapter_of(name) and not has_adapters:
            source = taught.get(name)
            if source is not None and source.shape == value.shape:
                new[name] = source
        elif name.startswith(_DETAIL) and name not in given:
            continue
        elif name not in given or given[name].shape != value.shape:
            raise ArtifactError(
                f"{config.start} has no {name} of {list(value.shape)}, which sizes ask for: they may change "
                "the image encoder, and add adapters and mask_detail"
            )
        else:
            new[name] = given[name]
    model.load_state_dict(new, strict=False)
    if model.config.adapter_dim and not has_adapters and not any(map(adapter_of, new)):
        model.copy_mask_embedder()


def _kept(config: TrainConfig, block: int) -> int:
    return config.kept_blocks[block] if config.kept_blocks else block


def _covers(source: Tensor, value: Tensor) -> bool:
    return source.ndim == value.ndim and all(s >= v for s, v in zip(source.shape, value.shape, strict=True))


def open_teacher(config: TrainConfig, image_size: int) -> SAM3I:
    """The teacher, mapped from its files, at the side of the student's images.

    Raises:
        ArtifactError: a file cannot be read. ValueError: the teacher cannot have that side.
    """
    folder = Path(config.teacher.weights)
    return build_model(replace(read_config(folder), image_size=image_size), open_weights(folder))
