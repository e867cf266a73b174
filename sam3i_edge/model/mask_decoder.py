"""Scores and masks of the queries."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from sam3i_edge.model.attention import MLP, Attention
from sam3i_edge.model.config import ModelConfig

CLAMP = 12.0  # of the score logits


class Scoring(nn.Module):
    """Dot product of each query with the mean of the prompt."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.d_model
        self.prompt_mlp = MLP(width, config.score_dim or config.ffn_dim, width)
        self.prompt_norm = nn.LayerNorm(width)
        self.prompt_proj = nn.Linear(width, width)
        self.query_proj = nn.Linear(width, width)

    def forward(self, queries: torch.Tensor, prompt: torch.Tensor, prompt_mask: torch.Tensor) -> torch.Tensor:
        """Queries [..., B, Q, C], prompt [B, T, C], mask [B, T] bool -> logits [..., B, Q] in -12..12."""
        p = self.prompt_norm(prompt + self.prompt_mlp(prompt))
        valid = prompt_mask.to(p.dtype)[..., None]
        mean = (p * valid).sum(1) / valid.sum(1)  # the CLS token is always valid: never 0 / 0
        direction = self.prompt_proj(mean)[..., None]  # [B, C, 1]
        logits = torch.matmul(self.query_proj(queries), direction).squeeze(-1)
        return (logits * queries.shape[-1] ** -0.5).clamp(-CLAMP, CLAMP)


class PixelDecoder(nn.Module):
    """Nearest upsampling from the 1x to the 4x level, adding the pyramid on the way.

    The official module holds a third stage that never runs.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv_layers = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        self.norms = nn.ModuleList(nn.GroupNorm(8, width) for _ in range(2))

    def forward(self, x: torch.Tensor, *levels: torch.Tensor) -> torch.Tensor:
        """[B, C, g, g] with fpn_2x and fpn_4x -> [B, C, 4g, 4g]."""
        for level, conv, norm in zip(levels, self.conv_layers, self.norms, strict=True):
            x = level + F.interpolate(x, scale_factor=2.0, mode="nearest")
            x = F.relu(norm(conv(x)))
        return x


class MaskEmbedders(nn.Module):
    """One query MLP for each level; the concept one is the base model's."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.d_model
        self.concept = MLP(width, width, width, width)
        self.levels = bool(config.adapter_dim)
        if self.levels:
            self.simple = MLP(width, width, width, width)
            self.complex = MLP(width, width, width, width)
            for copy in (self.simple, self.complex):
                copy.load_state_dict(self.concept.state_dict())

    def forward(self, x: torch.Tensor, level: torch.Tensor | None) -> torch.Tensor:
        """[B, Q, C], level int64 [B] or None -> [B, Q, C]."""
        if level is None or not self.levels:
            return self.concept(x)
        mlps = [embedder.linears() for embedder in (self.concept, self.simple, self.complex)]
        depth = len(mlps[0])
        for i in range(depth):
            weight = torch.stack([mlp[i].weight for mlp in mlps]).index_select(0, level)  # [B, out, in]
            bias = torch.stack([mlp[i].bias for mlp in mlps]).index_select(0, level)
            x = torch.matmul(x, weight.transpose(1, 2)) + bias[:, None]
            if i + 1 < depth:
                x = F.relu(x)
        return x


class MaskDetail(nn.Module):
    """What a mask gains at twice the 4x grid: starts as nothing, so a model without it can go on with it."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.pixel_proj = nn.ConvTranspose2d(config.d_model, config.mask_detail, 2, stride=2)
        self.query_proj = nn.Linear(config.d_model, config.mask_detail)
        nn.init.zeros_(self.query_proj.weight)
        nn.init.zeros_(self.query_proj.bias)

    def forward(self, masks: torch.Tensor, pixels: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        """Mask logits [B, Q, M, M], pixels [B, C, M, M], queries' embedding [B, Q, C] -> [B, Q, 2M, 2M]."""
        coarse = F.interpolate(masks, scale_factor=2.0, mode="bilinear", align_corners=False)
        detail = self.pixel_proj(pixels).flatten(2)  # [B, D, 4 M M]
        return coarse + torch.matmul(self.query_proj(embedding), detail).view_as(coarse)


class MaskDecoder(nn.Module):
    """Masks of the queries, at the 4x level or twice that, and the semantic map at the 4x level."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.d_model
        self.prompt_norm = nn.LayerNorm(width)
        self.prompt_attn = Attention(width, config.n_heads)
        self.pixel_decoder = PixelDecoder(width)
        self.instance_proj = nn.Conv2d(width, width, 1)
        self.semantic_proj = nn.Conv2d(width, 1, 1)
        self.mask_embedders = MaskEmbedders(config)
        self.detail = MaskDetail(config) if config.mask_detail else None

    def pixels(
        self,
        image: torch.Tensor,
        fpn_2x: torch.Tensor,
        fpn_4x: torch.Tensor,
        prompt: torch.Tensor,
        prompt_bias: torch.Tensor,
    ) -> torch.Tensor:
        """Fused image tokens [B, N, C] and the pyramid -> pixel embedding [B, C, M, M]."""
        x = image + self.prompt_attn(self.prompt_norm(image), prompt, prompt, prompt_bias)
        grid = fpn_2x.shape[-1] // 2
        x = x.transpose(1, 2).contiguous().view(-1, image.shape[-1], grid, grid)
        return self.pixel_decoder(x, fpn_2x, fpn_4x)

    def masks(self, pixels: torch.Tensor, queries: torch.Tensor, level: torch.Tensor | None) -> torch.Tensor:
        """Pixel embedding [B, C, M, M], queries [B, Q, C] -> mask logits [B, Q, M, M], 2M with detail."""
        embedding = self.mask_embedders(queries, level)
        size = pixels.shape[-1]
        instance = self.instance_proj(pixels).flatten(2)  # [B, C, M M]
        masks = torch.matmul(embedding, instance).view(pixels.shape[0], -1, size, size)
        return masks if self.detail is None else self.detail(masks, pixels, embedding)

    def semantic(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pixel embedding [B, C, M, M] -> logits of the union of all targets [B, M, M]."""
        return self.semantic_proj(pixels).squeeze(1)
