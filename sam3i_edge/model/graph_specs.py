"""The graphs that a model is cut into: what every exporter and the eager runtime run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from sam3i_edge.levels import LEVELS
from sam3i_edge.model.config import ModelConfig
from sam3i_edge.model.sam3i import SAM3I, BoxGraph, ImageGraph, TextGraph


@dataclass(frozen=True, slots=True)
class GraphSpec:
    """One graph to export.

    Attributes:
        name: as in the bundle: "image_encoder", "text_encoder.simple", ….
        module: what is traced.
        inputs: input name -> example tensor; shapes are static.
        outputs: output names in order.
    """

    name: str
    module: nn.Module
    inputs: dict[str, torch.Tensor]
    outputs: tuple[str, ...]

    @torch.no_grad()
    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Runs the graph in PyTorch where its parameters are, which must be a CPU."""
        found = self.module(*(torch.from_numpy(np.ascontiguousarray(inputs[name])) for name in self.inputs))
        values = found if isinstance(found, tuple) else (found,)
        return {name: value.numpy() for name, value in zip(self.outputs, values, strict=True)}


def graph_names(config: ModelConfig, boxes: int = 0) -> list[str]:
    """The names of the graphs that a model of this config has, in the order of export."""
    levels = LEVELS if config.adapter_dim else LEVELS[:1]
    texts = [f"text_encoder.{level}" for level in levels]
    return ["image_encoder", *texts, *(["box_encoder"] if boxes else []), "detector"]


def graph_specs(model: SAM3I, boxes: int = 0) -> list[GraphSpec]:
    """The graphs of `model` with zero-filled examples of their inputs.

    Args:
        model: in eval mode.
        boxes: most boxes of one prompt, B; 0 leaves `box_encoder` out. The detector's prompt has a slot for
            each: text, B boxes, CLS.
    """
    c = model.config
    width, grid, size = c.d_model, c.grid, c.image_size
    tokens = c.text_context + boxes + 1
    maps = {f"fpn_{factor}x": torch.zeros(1, width, factor * grid, factor * grid) for factor in (4, 2, 1)}
    ids = torch.zeros(1, c.text_context, dtype=torch.int64)
    return [
        GraphSpec(
            "image_encoder",
            ImageGraph(model),
            {"pixel_values": torch.zeros(1, 3, size, size)},
            (*maps, "cls_token"),
        ),
        *(
            GraphSpec(
                f"text_encoder.{level}", TextGraph(model, level), {"input_ids": ids}, ("text_features",)
            )
            for level in model.levels
        ),
        *(
            [
                GraphSpec(
                    "box_encoder",
                    BoxGraph(model),
                    {
                        "boxes": torch.zeros(1, boxes, 4),
                        "labels": torch.zeros(1, boxes, dtype=torch.int64),
                        "fpn_1x": maps["fpn_1x"],
                    },
                    ("geometry_tokens", "geometry_mask"),
                )
            ]
            if boxes
            else []
        ),
        GraphSpec(
            "detector",
            model.detector,
            {
                **maps,
                "prompt": torch.zeros(1, tokens, width),
                "prompt_mask": torch.ones(1, tokens, dtype=torch.bool),
                "level": torch.zeros(1, dtype=torch.int64),
            },
            ("scores", "boxes", "mask_logits", "presence"),
        ),
    ]
