"""The decoder: object queries and a presence token, with a separable box bias on the image attention.

Source: SAM3's DETR decoder (facebookresearch/sam3); the box bias is BoxRPB in "log" form (Plain DETR, Lin et
al. 2023, arXiv:2308.01904); adapters of SAM3-I (arXiv:2512.04585).
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from sam3i_edge.kernels.box_attention import box_attention
from sam3i_edge.model.adapters import DECODER_GATES, GatedAdapter, QueryAdapter
from sam3i_edge.model.attention import MASKED, MLP, Attention, FeedForward
from sam3i_edge.model.boxes import cxcywh_to_xyxy, inverse_sigmoid
from sam3i_edge.model.config import ModelConfig
from sam3i_edge.model.position import sine_boxes


def signed_log(distance: torch.Tensor) -> torch.Tensor:
    """sign(8 d) log2(1 + |8 d|) / 3, which is 1 at d = 7/8."""
    d = distance * 8.0
    return d.sign() * torch.log2(1.0 + d.abs()) / 3.0


class DecoderLayer(nn.Module):
    """Post-norm: self-attention, prompt and image attention, y = LN(E(h) + FFN(h)), E the adapters."""

    adapter: GatedAdapter | None

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, heads = config.d_model, config.n_heads
        self.self_attn = Attention(width, heads)
        self.self_norm = nn.LayerNorm(width)
        self.prompt_attn = Attention(width, heads)
        self.prompt_norm = nn.LayerNorm(width)
        self.image_attn = Attention(width, heads)
        self.image_norm = nn.LayerNorm(width)
        self.mlp = FeedForward(width, config.ffn_dim, gelu=False)
        self.mlp_norm = nn.LayerNorm(width)
        self.adapter = (
            GatedAdapter(width, config.adapter_dim, config.adapter_scale, DECODER_GATES)
            if config.adapter_dim
            else None
        )
        self.query_adapter = QueryAdapter(width, heads) if config.query_adapters else None

    def forward(
        self,
        h: torch.Tensor,
        query_position: torch.Tensor,
        prompt: torch.Tensor,
        prompt_bias: torch.Tensor,
        image_key: torch.Tensor,
        image: torch.Tensor,
        box_bias: tuple[torch.Tensor, torch.Tensor],
        level: torch.Tensor | None,
        self_bias: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """[B, 1 + Q, C], presence token first -> the same.

        `box_bias`: as `Decoder.box_bias` gives it; `self_bias`: [1, 1, 1, 1 + Q], on what queries attend to.
        """
        q = h + query_position
        h = self.self_norm(h + self.self_attn(q, q, h, self_bias))
        h = self.prompt_norm(h + self.prompt_attn(h + query_position, prompt, prompt, prompt_bias))
        q, k, v = self.image_attn.project(h + query_position, image_key, image)
        h = self.image_norm(h + self.image_attn.merge(box_attention(q, k, v, *box_bias)))
        skip = h
        if level is not None and self.query_adapter is not None:
            skip = self.query_adapter(skip, query_position, level)
        if level is not None and self.adapter is not None:
            skip = self.adapter(skip, level)
        return self.mlp_norm(skip + self.mlp(h))


class Decoder(nn.Module):
    """Refines boxes layer by layer."""

    self_bias: torch.Tensor | None

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.d_model
        self.grid = config.grid
        self.query_embed = nn.Embedding(config.num_queries, width)
        self.reference_points = nn.Embedding(config.num_queries, 4)  # logits of cxcywh
        self.presence = config.presence
        if config.presence == "none":  # a slot that no query sees
            alone = torch.zeros(1, 1, 1, 1 + config.num_queries)
            alone[..., 0] = MASKED
            self.register_buffer("self_bias", alone, persistent=False)
        else:
            self.presence_token = nn.Embedding(1, width)
            self.self_bias = None
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.decoder_layers))
        self.output_norm = nn.LayerNorm(width)
        self.box_head = MLP(width, width, width, 4)
        if config.presence == "score":
            self.presence_norm = nn.LayerNorm(width)
            self.presence_head = MLP(width, width, width, 1)
        self.ref_point_head = MLP(2 * width, width, width)
        self.box_bias_x = MLP(2, width, config.n_heads)
        self.box_bias_y = MLP(2, width, config.n_heads)
        self._spread_reference_points()

    def _spread_reference_points(self) -> None:
        """Small boxes on a grid of points: queries that start apart specialise sooner."""
        count = self.reference_points.num_embeddings
        columns = int(count**0.5 + 0.999)
        index = torch.arange(count)
        cx = (index % columns + 0.5) / columns
        cy = (index // columns + 0.5) / -(-count // columns)
        boxes = torch.stack((cx, cy, torch.full_like(cx, 0.2), torch.full_like(cx, 0.2)), dim=-1)
        with torch.no_grad():
            self.reference_points.weight.copy_(inverse_sigmoid(boxes))
            last = self.box_head.linears()[-1]
            last.weight.zero_()
            last.bias.zero_()

    def box_bias(self, reference: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The two factors of the bias: bias[b, h, q, i, j] = y[b, h, q, i] + x[b, h, q, j].

        The presence token has none.

        Args:
            reference: [B, Q, 4] cxcywh in 0..1.

        Returns:
            y, x: [B, heads, Q, grid] each.
        """
        x0, y0, x1, y1 = cxcywh_to_xyxy(reference).unbind(-1)
        cell = (
            torch.arange(self.grid, device=reference.device, dtype=reference.dtype) / self.grid
        )  # no half cell
        dx = torch.stack((cell - x0[..., None], cell - x1[..., None]), dim=-1)  # [B, Q, grid, 2]
        dy = torch.stack((cell - y0[..., None], cell - y1[..., None]), dim=-1)
        y, x = self.box_bias_y(signed_log(dy)), self.box_bias_x(signed_log(dx))  # [B, Q, grid, heads]
        return y.permute(0, 3, 1, 2), x.permute(0, 3, 1, 2)

    def forward(
        self,
        image: torch.Tensor,
        position: torch.Tensor,
        prompt: torch.Tensor,
        prompt_bias: torch.Tensor,
        level: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Runs all layers.

        Args:
            image: [B, N, C] fused image tokens.
            position: [N, C].
            prompt: [B, T, C].
            prompt_bias: [B, 1, 1, T].
            level: int64 [B], or None for the unadapted path.

        Returns:
            queries [L, B, Q, C] (normalised), boxes [L, B, Q, 4] cxcywh in 0..1, presence [L, B] logits, 0
            where scores leave it out.
        """
        batch = image.shape[0]
        queries = self.query_embed.weight
        first = queries.new_zeros(1, queries.shape[1])
        if self.self_bias is None:
            first = self.presence_token.weight
        h = torch.cat((first, queries))[None].expand(batch, -1, -1)
        reference = self.reference_points.weight.sigmoid()[None].expand(batch, -1, -1)
        image_key = image + position
        normalised, boxes, presence = [], [], []
        for layer in self.layers:
            query_position = self.ref_point_head(sine_boxes(reference, image.shape[-1]))
            query_position = F.pad(query_position, (0, 0, 1, 0))  # the presence token has none
            bias = self.box_bias(reference)
            h = layer(h, query_position, prompt, prompt_bias, image_key, image, bias, level, self.self_bias)
            normalised.append(self.output_norm(h[:, 1:]))
            refined = (self.box_head(normalised[-1]) + inverse_sigmoid(reference)).sigmoid()
            boxes.append(refined)
            presence.append(self._presence(h[:, 0]))
            reference = refined.detach()
        return torch.stack(normalised), torch.stack(boxes), torch.stack(presence)

    def _presence(self, token: torch.Tensor) -> torch.Tensor:
        """[B, C] -> logits [B]."""
        if self.presence != "score":
            return token.new_zeros(token.shape[0])
        return self.presence_head(self.presence_norm(token)).squeeze(-1)
