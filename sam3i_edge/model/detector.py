"""The detector: everything that runs once per (image, instruction)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from sam3i_edge.model.attention import padding_bias
from sam3i_edge.model.boxes import cxcywh_to_xyxy
from sam3i_edge.model.config import ModelConfig
from sam3i_edge.model.decoder import Decoder
from sam3i_edge.model.fusion_encoder import FusionEncoder
from sam3i_edge.model.mask_decoder import MaskDecoder, Scoring
from sam3i_edge.model.position import sine_grid


@dataclass(frozen=True, slots=True)
class Prediction:
    """Raw outputs for P (image, instruction) pairs, R of them with masks.

    Attributes:
        logits: [L, P, Q] score logits after every decoder layer; the last is final.
        boxes: [L, P, Q, 4] cxcywh in 0..1.
        presence: [L, P] logits.
        mask_logits: [R, Q, M, M].
        semantic_logits: [R, 4g, 4g], the union of all targets; M is 4g too, 8g with `mask_detail`.
        queries: [P, Q, C] normalised output of the last layer.
        fused: [P, N, C] image tokens after the fusion encoder, rows in reading order.
        token_logits: [P, N] each image token scored as if it were a query. Training only: it gives the fusion
            encoder a dense target for every pair at no cost.
    """

    logits: torch.Tensor
    boxes: torch.Tensor
    presence: torch.Tensor
    mask_logits: torch.Tensor
    semantic_logits: torch.Tensor
    queries: torch.Tensor
    fused: torch.Tensor
    token_logits: torch.Tensor


class Detector(nn.Module):
    """Fusion encoder, decoder, scores and masks: `forward` is the exported graph, `predict` trains."""

    position: torch.Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.detections = config.detections
        self.reads_geometry, self.scores_presence = config.geometry, config.presence == "score"
        self.fusion_encoder = FusionEncoder(config)
        self.decoder = Decoder(config)
        self.scoring = Scoring(config)
        self.mask_decoder = MaskDecoder(config)
        self.register_buffer("position", sine_grid(config.grid, config.d_model), persistent=False)

    def predict(
        self,
        fpn_4x: torch.Tensor,
        fpn_2x: torch.Tensor,
        fpn_1x: torch.Tensor,
        prompt: torch.Tensor,
        prompt_mask: torch.Tensor,
        level: torch.Tensor | None,
        image_index: torch.Tensor | None = None,
        mask_index: torch.Tensor | None = None,
    ) -> Prediction:
        """All layers' outputs, for training and tests.

        Args:
            fpn_4x: [B, C, 4g, 4g].
            fpn_2x: [B, C, 2g, 2g].
            fpn_1x: [B, C, g, g].
            prompt: [P, T, C].
            prompt_mask: [P, T] bool, True for real tokens.
            level: int64 [P], index into `LEVELS`; None skips all adapters (the base model's path).
            image_index: int64 [P], which image each prompt looks at; None when P = B in order.
            mask_index: int64 [R], which pairs get masks; None for all.

        Returns:
            Prediction.
        """
        if image_index is None:
            image_index = torch.arange(prompt.shape[0], device=prompt.device)
        prompt_mask = self._readable(prompt_mask)
        bias = padding_bias(prompt_mask)
        image = fpn_1x.index_select(0, image_index).flatten(2).transpose(1, 2)
        fused = self.fusion_encoder(image, self.position, prompt, bias, level)
        queries, boxes, presence = self.decoder(fused, self.position, prompt, bias, level)
        logits = self.scoring(queries, prompt, prompt_mask)
        if mask_index is None:
            mask_index = torch.arange(prompt.shape[0], device=prompt.device)
        images = image_index.index_select(0, mask_index)
        pixels = self.mask_decoder.pixels(
            fused.index_select(0, mask_index),
            fpn_2x.index_select(0, images),
            fpn_4x.index_select(0, images),
            prompt.index_select(0, mask_index),
            bias.index_select(0, mask_index),
        )
        mask_level = None if level is None else level.index_select(0, mask_index)
        masks = self.mask_decoder.masks(pixels, queries[-1].index_select(0, mask_index), mask_level)
        tokens = F.layer_norm(fused, fused.shape[-1:])
        return Prediction(
            logits=logits,
            boxes=boxes,
            presence=presence,
            mask_logits=masks,
            semantic_logits=self.mask_decoder.semantic(pixels),
            queries=queries[-1],
            fused=fused,
            token_logits=self.scoring(tokens, prompt, prompt_mask),
        )

    def forward(
        self,
        fpn_4x: torch.Tensor,
        fpn_2x: torch.Tensor,
        fpn_1x: torch.Tensor,
        prompt: torch.Tensor,
        prompt_mask: torch.Tensor,
        level: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """The exported graph: the K best queries of one (image, instruction), best first.

        The K are chosen before the mask product: 200 masks of 288 x 288 would be 66 MB.

        Args:
            fpn_4x: [1, C, 4g, 4g].
            fpn_2x: [1, C, 2g, 2g].
            fpn_1x: [1, C, g, g].
            prompt: [1, T, C].
            prompt_mask: [1, T] bool.
            level: int64 [1].

        Returns:
            scores [1, K] in 0..1, boxes [1, K, 4] xyxy in 0..1, mask_logits [1, K, M, M], presence [1, 1]
            logit, 0 where scores leave it out.
        """
        prompt_mask = self._readable(prompt_mask)
        bias = padding_bias(prompt_mask)
        fused = self.fusion_encoder(fpn_1x.flatten(2).transpose(1, 2), self.position, prompt, bias, level)
        queries, boxes, presence = self.decoder(fused, self.position, prompt, bias, level)
        queries, boxes, presence = queries[-1], boxes[-1], presence[-1][:, None]
        scores = self.scoring(queries, prompt, prompt_mask).sigmoid()
        if self.scores_presence:
            scores = scores * presence.sigmoid()
        scores, best = torch.topk(scores, self.detections, dim=1)
        queries = torch.gather(queries, 1, best[..., None].expand(-1, -1, queries.shape[-1]))
        boxes = torch.gather(boxes, 1, best[..., None].expand(-1, -1, 4))
        pixels = self.mask_decoder.pixels(fused, fpn_2x, fpn_4x, prompt, bias)
        masks = self.mask_decoder.masks(pixels, queries, level)
        return scores, cxcywh_to_xyxy(boxes), masks, presence

    def _readable(self, prompt_mask: torch.Tensor) -> torch.Tensor:
        """[P, T] bool; without the last slot, the image's CLS token, where no geometry encoder made it."""
        return prompt_mask if self.reads_geometry else F.pad(prompt_mask[:, :-1], (0, 1), value=False)
