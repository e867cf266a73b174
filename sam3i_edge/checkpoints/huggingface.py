"""The layout of transformers' `Sam3Model` (`facebook/sam3`), as data. It holds no adapters."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sam3i_edge.checkpoints.keys import KeyLayout, compile_dropped, compile_rules

_P = r"(weight|bias)"
_VIT = r"vision_encoder\.backbone\."
_TEXT = r"text_encoder\.text_model\."
_BLOCK = _TEXT + r"encoder\.layers\.(\d+)\."
_DECODER = r"detr_decoder\.layers\.(\d+)\."
_HEADS = {
    "box_head": "box_head",
    "presence_head": "presence_head",
    "ref_point_head": "ref_point_head",
    "box_rpb_embed_x": "box_bias_x",
    "box_rpb_embed_y": "box_bias_y",
}


def _rules() -> list[tuple[str, str]]:
    rules = [
        (_VIT + r"embeddings\.position_embeddings", "image_encoder.backbone.pos_embed"),
        (
            _VIT + r"embeddings\.patch_embeddings\.projection\.weight",
            "image_encoder.backbone.patch_embed.weight",
        ),
        (_VIT + rf"layer_norm\.{_P}", r"image_encoder.backbone.norm_pre.\1"),
        (
            _VIT + rf"layers\.(\d+)\.layer_norm([12])\.{_P}",
            r"image_encoder.backbone.blocks.\1.norm\2.\3",
        ),
        (
            _VIT + rf"layers\.(\d+)\.attention\.([qkvo]_proj)\.{_P}",
            r"image_encoder.backbone.blocks.\1.attn.\2.\3",
        ),
        (_VIT + rf"layers\.(\d+)\.mlp\.(fc[12])\.{_P}", r"image_encoder.backbone.blocks.\1.mlp.\2.\3"),
        (
            rf"vision_encoder\.neck\.fpn_layers\.([012])\.scale_layers\.0\.{_P}",
            r"image_encoder.neck.\1.deconv.0.\2",
        ),
        (
            rf"vision_encoder\.neck\.fpn_layers\.([012])\.scale_layers\.2\.{_P}",
            r"image_encoder.neck.\1.deconv.1.\2",
        ),
        (
            rf"vision_encoder\.neck\.fpn_layers\.([012])\.proj([12])\.{_P}",
            r"image_encoder.neck.\1.conv\2.\3",
        ),
        (_TEXT + r"embeddings\.token_embedding\.weight", "text_encoder.token_embedding.weight"),
        (_TEXT + r"embeddings\.position_embedding\.weight", "text_encoder.position_embedding"),
        (_TEXT + rf"final_layer_norm\.{_P}", r"text_encoder.final_norm.\1"),
        (_BLOCK + rf"self_attn\.([qkv]_proj)\.{_P}", r"text_encoder.layers.\1.attn.\2.\3"),
        (_BLOCK + rf"self_attn\.out_proj\.{_P}", r"text_encoder.layers.\1.attn.o_proj.\2"),
        (_BLOCK + rf"layer_norm([12])\.{_P}", r"text_encoder.layers.\1.norm\2.\3"),
        (_BLOCK + rf"mlp\.(fc[12])\.{_P}", r"text_encoder.layers.\1.mlp.\2.\3"),
        (rf"text_projection\.{_P}", r"text_encoder.projection.\1"),
        (r"geometry_encoder\.(label_embed|cls_embed)\.weight", r"geometry_encoder.\1.weight"),
        (
            rf"geometry_encoder\.(boxes_(?:direct|pool|pos_enc)_project|final_proj)\.{_P}",
            r"geometry_encoder.\1.\2",
        ),
        (rf"geometry_encoder\.vision_layer_norm\.{_P}", r"geometry_encoder.image_norm.\1"),
        (rf"geometry_encoder\.prompt_layer_norm\.{_P}", r"geometry_encoder.norm.\1"),
        (rf"geometry_encoder\.output_layer_norm\.{_P}", r"geometry_encoder.output_norm.\1"),
        (
            r"detr_decoder\.(query_embed|reference_points|presence_token)\.weight",
            r"detector.decoder.\1.weight",
        ),
        (rf"detr_decoder\.output_layer_norm\.{_P}", r"detector.decoder.output_norm.\1"),
        (rf"detr_decoder\.presence_layer_norm\.{_P}", r"detector.decoder.presence_norm.\1"),
        (rf"dot_product_scoring\.text_mlp_out_norm\.{_P}", r"detector.scoring.prompt_norm.\1"),
        (rf"dot_product_scoring\.text_proj\.{_P}", r"detector.scoring.prompt_proj.\1"),
        (rf"dot_product_scoring\.query_proj\.{_P}", r"detector.scoring.query_proj.\1"),
        (
            rf"mask_decoder\.pixel_decoder\.(conv_layers|norms)\.([01])\.{_P}",
            r"detector.mask_decoder.pixel_decoder.\1.\2.\3",
        ),
        (
            rf"mask_decoder\.mask_embedder\.layers\.(\d)\.{_P}",
            r"detector.mask_decoder.mask_embedders.concept.layers.\1.\2",
        ),
        (
            rf"mask_decoder\.(instance|semantic)_projection\.{_P}",
            r"detector.mask_decoder.\1_proj.\2",
        ),
        (
            rf"mask_decoder\.prompt_cross_attn\.([qkvo]_proj)\.{_P}",
            r"detector.mask_decoder.prompt_attn.\1.\2",
        ),
        (rf"mask_decoder\.prompt_cross_attn_norm\.{_P}", r"detector.mask_decoder.prompt_norm.\1"),
    ]
    for theirs, ours in (
        ("geometry_encoder", "geometry_encoder"),
        ("detr_encoder", "detector.fusion_encoder"),
    ):
        layer = rf"{theirs}\.layers\.(\d+)\."
        rules += [
            (layer + rf"layer_norm([123])\.{_P}", rf"{ours}.layers.\1.norm\2.\3"),
            (layer + rf"(self_attn|cross_attn)\.([qkvo]_proj)\.{_P}", rf"{ours}.layers.\1.\2.\3.\4"),
            (layer + rf"mlp\.(fc[12])\.{_P}", rf"{ours}.layers.\1.mlp.\2.\3"),
        ]
    for theirs, ours in (
        ("self_attn", "self"),
        ("text_cross_attn", "prompt"),
        ("vision_cross_attn", "image"),
    ):
        rules += [
            (_DECODER + rf"{theirs}\.([qkvo]_proj)\.{_P}", rf"detector.decoder.layers.\1.{ours}_attn.\2.\3"),
            (_DECODER + rf"{theirs}_layer_norm\.{_P}", rf"detector.decoder.layers.\1.{ours}_norm.\2"),
        ]
    rules += [
        (_DECODER + rf"mlp_layer_norm\.{_P}", r"detector.decoder.layers.\1.mlp_norm.\2"),
        (_DECODER + rf"mlp\.(fc[12])\.{_P}", r"detector.decoder.layers.\1.mlp.\2.\3"),
    ]
    # Head MLPs are numbered from 1 there.
    for number in (1, 2, 3):
        rules += [
            (
                rf"detr_decoder\.{theirs}\.layer{number}\.{_P}",
                rf"detector.decoder.{ours}.layers.{number - 1}.\1",
            )
            for theirs, ours in _HEADS.items()
        ]
        rules.append(
            (
                rf"dot_product_scoring\.text_mlp\.layer{number}\.{_P}",
                rf"detector.scoring.prompt_mlp.layers.{number - 1}.\1",
            )
        )
    return rules


HUGGINGFACE = KeyLayout(
    name="transformers' Sam3Model",
    marker=re.compile(r"vision_encoder\.backbone\."),
    prefix=re.compile(r"^(?:detector_model\.)?"),
    rules=compile_rules((pattern, target, "copy") for pattern, target in _rules()),
    dropped=compile_dropped(
        (
            ("video tracker", r"tracker_(?:model|neck)\..*"),
            ("coarsest pyramid level, computed and thrown away", r"vision_encoder\.neck\.fpn_layers\.3\..*"),
            ("CLIP's pooled projection, unused", r"text_encoder\.text_projection\..*"),
            (
                "third pixel-decoder stage, never run",
                r"mask_decoder\.pixel_decoder\.(?:conv_layers|norms)\.2\..*",
            ),
            ("rotary tables, recomputed", r".*\.rotary_emb\..*"),
        )
    ),
)


def config_values(config: Mapping[str, Any]) -> dict[str, Any]:
    """What tensors cannot tell, from the `config.json` of a transformers directory, in our names.

    Args:
        config: of `Sam3Model`, or of `Sam3VideoModel`, which holds that under `detector_config`.
    """
    detector = config.get("detector_config", config)
    vit = detector.get("vision_config", {}).get("backbone_config", {})
    text = detector.get("text_config", {})
    found = {
        "image_size": vit.get("image_size"),
        "window_size": vit.get("window_size"),
        "vit_heads": vit.get("num_attention_heads"),
        "vit_global_blocks": vit.get("global_attn_indexes"),
        "text_heads": text.get("num_attention_heads"),
    }
    return {name: value for name, value in found.items() if value is not None}
