"""Box prompts and the learned CLS token that reads the image.

The official model always appends the CLS token, so a text-only prompt has 33 tokens; transformers leaves it
out without boxes, which changes the logits by 4 to 8 % on random weights.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from sam3i_edge.model.attention import Attention, FeedForward, padding_bias
from sam3i_edge.model.boxes import cxcywh_to_xyxy
from sam3i_edge.model.config import ModelConfig
from sam3i_edge.model.position import sine_centres, sine_grid


def roi_weights(low: torch.Tensor, high: torch.Tensor, bins: int, size: int) -> torch.Tensor:
    """RoIAlign along one axis, as a matrix: pooled = weights_y @ map @ weights_x.T.

    The operator is separable: each bin is the mean of bilinear samples on a grid. The official one takes
    ceil(extent / bins) samples a bin and axis, at most ceil(size / bins); the rest is masked, so shapes are
    static.

    Args:
        low: [..., ] start of the region, cells (no half-cell shift).
        high: [...] its end; the region counts as at least one cell wide.
        bins: bins along this axis.
        size: cells of the map along this axis.

    Returns:
        [..., bins, size].

    Source: Mask R-CNN (He et al. 2017, arXiv:1703.06870), section 3; torchvision.ops.roi_align,
    aligned=False.
    """
    most = -(-size // bins)
    extent = (high - low).clamp(min=1.0)
    bin_size = (extent / bins)[..., None, None]
    count = (extent / bins).ceil().clamp(max=most)[..., None, None]
    sample = torch.arange(most, device=low.device, dtype=low.dtype)
    start = torch.arange(bins, device=low.device, dtype=low.dtype)[:, None]
    position = low[..., None, None] + bin_size * (start + (sample + 0.5) / count)  # [..., bins, most]
    used = (sample < count) & (position >= -1.0) & (position <= size)
    cell = torch.arange(size, device=low.device, dtype=low.dtype)
    hat = (1.0 - (position.clamp(0.0, size - 1.0)[..., None] - cell).abs()).clamp(min=0.0)
    return ((hat * used[..., None]) / count[..., None]).sum(-2)


class GeometryLayer(nn.Module):
    """Pre-norm: self-attention of the prompt tokens, attention to the image, feed-forward."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, heads = config.d_model, config.n_heads
        self.norm1 = nn.LayerNorm(width)
        self.self_attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.cross_attn = Attention(width, heads)
        self.norm3 = nn.LayerNorm(width)
        self.mlp = FeedForward(width, config.ffn_dim, gelu=False)

    def forward(
        self, x: torch.Tensor, image: torch.Tensor, position: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        """Prompt [B, T, C], image [B, N, C], position [N, C] -> [B, T, C]."""
        h = self.norm1(x)
        x = x + self.self_attn(h, h, h, bias)
        x = x + self.cross_attn(self.norm2(x), image + position, image)
        return x + self.mlp(self.norm3(x))


class NoGeometry(nn.Module):
    """Stands in for a geometry encoder that a checkpoint lacks: its token is masked by the detector."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.width = config.d_model

    def forward(self, fpn_1x: torch.Tensor) -> torch.Tensor:
        """[B, C, grid, grid] -> zeros [B, 1, C]."""
        return fpn_1x.new_zeros(fpn_1x.shape[0], 1, self.width)


class GeometryEncoder(nn.Module):
    """Encodes boxes, if any, and the CLS token."""

    position: torch.Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.d_model
        self.grid, self.bins = config.grid, config.roi_size
        self.label_embed = nn.Embedding(2, width)
        self.cls_embed = nn.Embedding(1, width)
        self.boxes_direct_project = nn.Linear(4, width)
        self.boxes_pool_project = nn.Conv2d(width, width, config.roi_size)
        self.boxes_pos_enc_project = nn.Linear(width + 2, width)
        self.image_norm = nn.LayerNorm(width)
        self.final_proj = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.layers = nn.ModuleList(GeometryLayer(config) for _ in range(config.geometry_layers))
        self.output_norm = nn.LayerNorm(width)
        self.register_buffer("position", sine_grid(config.grid, width), persistent=False)

    def forward(
        self, fpn_1x: torch.Tensor, boxes: torch.Tensor | None = None, labels: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Geometry tokens.

        Args:
            fpn_1x: [B, C, grid, grid].
            boxes: [B, N, 4] cxcywh in 0..1, or None for the CLS token alone.
            labels: int64 [B, N]: 1 positive, 0 negative, -1 padding.

        Returns:
            [B, N + 1, C], boxes first, CLS last. Padding slots hold values that must be masked.
        """
        image = fpn_1x.flatten(2).transpose(1, 2)  # [B, N, C]
        tokens = self.cls_embed.weight[None].expand(image.shape[0], -1, -1)
        bias = None
        if boxes is not None and labels is not None:
            tokens = torch.cat((self.embed_boxes(image, boxes, labels), tokens), dim=1)
            bias = padding_bias(F.pad(labels >= 0, (0, 1), value=True))
        x = self.norm(self.final_proj(tokens))
        for layer in self.layers:
            x = layer(x, image, self.position, bias)
        return self.output_norm(x)

    def embed_boxes(self, image: torch.Tensor, boxes: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Sum of coordinate, pooled-feature, centre and label embeddings: [B, N, C]."""
        batch, count, _ = boxes.shape
        grid, bins = self.grid, self.bins
        x0, y0, x1, y1 = (cxcywh_to_xyxy(boxes) * grid).unbind(-1)
        rows, columns = roi_weights(y0, y1, bins, grid), roi_weights(x0, x1, bins, grid)  # [B, N, bins, grid]
        maps = self.image_norm(image).view(batch, grid, grid, -1)
        pooled = torch.einsum("bnpi,bijc->bnpjc", rows, maps)
        pooled = torch.einsum("bnqj,bnpjc->bncpq", columns, pooled).flatten(0, 1)
        pooled = self.boxes_pool_project(pooled).view(batch, count, -1)
        direct = self.boxes_direct_project(boxes)
        centre = self.boxes_pos_enc_project(sine_centres(boxes, image.shape[-1]))
        return direct + pooled + centre + self.label_embed(labels.clamp(min=0))
