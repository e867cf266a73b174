"""SAM3-I: the whole model, and its split into graphs.

Sources: SAM3 (facebookresearch/sam3) and SAM3-I (arXiv:2512.04585), reimplemented to be exported: static
shapes, real-valued rotary embedding, no data-dependent branches.
"""

from __future__ import annotations

import re
from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F

from sam3i_edge.levels import LEVELS, Level
from sam3i_edge.model.config import ModelConfig
from sam3i_edge.model.convnet import ConvEncoder
from sam3i_edge.model.detector import Detector, Prediction
from sam3i_edge.model.efficientnet import EfficientNetEncoder
from sam3i_edge.model.geometry_encoder import GeometryEncoder, NoGeometry
from sam3i_edge.model.student import StudentEncoder
from sam3i_edge.model.text_encoder import TextEncoder
from sam3i_edge.model.vit import ViTEncoder

PAD_ID = 0

_ENCODERS = {"vit": ViTEncoder, "conv": ConvEncoder, "efficientnet": EfficientNetEncoder}

_ADAPTER = re.compile(r"\.(?:adapter|query_adapter|mask_embedders)\.(simple|bridge|complex)\.")


def adapter_of(parameter: str) -> Literal["simple", "bridge", "complex"] | None:
    """Which adapter a parameter of `SAM3I` belongs to, by its name; None for the base model."""
    found = _ADAPTER.search(parameter)
    return found.group(1) if found else None  # type: ignore[return-value]


class SAM3I(nn.Module):
    """Images and instructions to boxes, scores and masks.

    Args:
        config: sizes; `adapter_dim=0` builds the plain SAM3.

    Attributes:
        every_level: run the text encoder for levels that no instruction has, too: ranks that share out its
            layers must all call them equally often.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.every_level = False
        encoder = _ENCODERS.get(config.backbone, StudentEncoder)
        self.image_encoder = encoder(config)
        self.geometry_encoder = (GeometryEncoder if config.geometry else NoGeometry)(config)
        self.text_encoder = TextEncoder(config)
        self.detector = Detector(config)

    @property
    def levels(self) -> tuple[Level, ...]:
        """The levels that it has adapters for; concept needs none."""
        return LEVELS if self.config.adapter_dim else LEVELS[:1]

    def encode_text(self, input_ids: torch.Tensor, level: torch.Tensor | None) -> torch.Tensor:
        """Int64 [P, T], levels int64 [P] or None (unadapted) -> [P, T, C]; T as in `TextEncoder`."""
        if level is None:
            return self.text_encoder(input_ids, "concept")
        count = len(level)
        rows = [torch.nonzero(level == i).flatten() for i in range(len(LEVELS))]
        if self.every_level:
            # Row `count` stands for the first one; it is sorted to the end, where it is cut off.
            rows = [row if len(row) else row.new_full((1,), count) for row in rows]
        parts = [
            self.text_encoder(input_ids[row % count], name)
            for row, name in zip(rows, LEVELS, strict=True)
            if len(row)
        ]
        return torch.cat(parts).index_select(0, torch.argsort(torch.cat(rows))[:count])

    def forward(
        self,
        pixel_values: torch.Tensor,
        input_ids: torch.Tensor,
        level: torch.Tensor | None,
        image_index: torch.Tensor | None = None,
        mask_index: torch.Tensor | None = None,
    ) -> Prediction:
        """Runs P instructions on B images, each image encoded once.

        Args:
            pixel_values: float32 [B, 3, S, S], normalised to -1..1.
            input_ids: int64 [P, T], padded with 0; T as in `TextEncoder`.
            level: int64 [P], index into `LEVELS`; None sends all through the unadapted path (the base model).
            image_index: int64 [P], the image of each instruction; None when P = B in order.
            mask_index: int64 [R], the pairs that get masks; None for all.

        Returns:
            Prediction.
        """
        if image_index is None:
            image_index = torch.arange(input_ids.shape[0], device=input_ids.device)
        fpn_4x, fpn_2x, fpn_1x = self.image_encoder(pixel_values)
        cls_token = self.geometry_encoder(fpn_1x)
        text = self.encode_text(input_ids, level)
        prompt, prompt_mask = join_prompt(text, input_ids, cls_token.index_select(0, image_index))
        return self.detector.predict(
            fpn_4x, fpn_2x, fpn_1x, prompt, prompt_mask, level, image_index, mask_index
        )

    @torch.no_grad()
    def fork_bridge(self) -> None:
        """Starts the complex path: bridge from simple; query adapters and mask embedder from the simple ones.

        The complex adapters keep their own start (last projection zero), so the path begins as the simple one
        does.
        """
        state = self.state_dict()
        for name, value in state.items():
            if ".adapter.bridge." in name:
                value.copy_(state[name.replace(".bridge.", ".simple.")])
            elif ".mask_embedders.complex." in name or ".query_adapter.complex." in name:
                value.copy_(state[name.replace(".complex.", ".simple.")])

    @torch.no_grad()
    def copy_mask_embedder(self) -> None:
        """Starts the adapted mask embedders from the base model's, as the official initialisation does."""
        embedders = self.detector.mask_decoder.mask_embedders
        for copy in (embedders.simple, embedders.complex):
            copy.load_state_dict(embedders.concept.state_dict())


def join_prompt(
    text: torch.Tensor, input_ids: torch.Tensor, geometry: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Text features [P, T, C] and geometry tokens [P, G, C] -> prompt [P, T + G, C] and its mask, bool."""
    always = torch.ones(geometry.shape[:2], dtype=torch.bool, device=geometry.device)
    return torch.cat((text, geometry), dim=1), torch.cat((input_ids != PAD_ID, always), dim=1)


class ImageGraph(nn.Module):
    """The `image_encoder` graph: the pyramid and the image's CLS token."""

    def __init__(self, model: SAM3I) -> None:
        super().__init__()
        self.image_encoder, self.geometry_encoder = model.image_encoder, model.geometry_encoder

    def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """[1, 3, S, S] -> fpn_4x, fpn_2x, fpn_1x, cls_token [1, 1, C]."""
        maps = self.image_encoder(pixel_values)
        return (*maps, self.geometry_encoder(maps[-1]))


class TextGraph(nn.Module):
    """A `text_encoder` graph: one level, a constant."""

    def __init__(self, model: SAM3I, level: Level) -> None:
        super().__init__()
        self.text_encoder, self.level = model.text_encoder, level

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Int64 [1, T] -> [1, T, C]."""
        return self.text_encoder(input_ids, self.level)


class BoxGraph(nn.Module):
    """The `box_encoder` graph: a fixed number of box prompts, the unused ones masked."""

    def __init__(self, model: SAM3I) -> None:
        super().__init__()
        self.geometry_encoder = model.geometry_encoder

    def forward(
        self, boxes: torch.Tensor, labels: torch.Tensor, fpn_1x: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Geometry tokens of boxes on an image.

        Args:
            boxes: [1, B, 4] cxcywh in 0..1.
            labels: int64 [1, B]: 1 positive, 0 negative, -1 padding.
            fpn_1x: [1, C, grid, grid].

        Returns:
            geometry_tokens [1, B + 1, C], boxes first, CLS last; geometry_mask bool [1, B + 1], True for real
            tokens.
        """
        return self.geometry_encoder(fpn_1x, boxes, labels), F.pad(labels >= 0, (0, 1), value=True)


class GraphModel(nn.Module):
    """The model as its graphs, each callable by the inputs and outputs that the exported one has.

    Attributes:
        config: sizes.
        levels: what it was trained for: all three, or concept alone.
        image_encoder: pixel_values [1, 3, S, S] -> fpn_4x, fpn_2x, fpn_1x, cls_token.
        text_encoder: input_ids int64 [B, T] and `level` -> text features [B, T, C].
        box_encoder: boxes, labels, fpn_1x -> geometry_tokens, geometry_mask; None without a geometry encoder.
        detector: maps, prompt, prompt_mask, level -> scores, boxes xyxy in 0..1, mask_logits, presence logit.
    """

    def __init__(self, model: SAM3I) -> None:
        super().__init__()
        self.config, self.levels = model.config, model.levels
        self.image_encoder = ImageGraph(model)
        self.text_encoder = model.text_encoder
        self.box_encoder = BoxGraph(model) if model.config.geometry else None
        self.detector = model.detector
