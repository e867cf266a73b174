"""The layout of `sam3.pt` and of the SAM3-I trainer, as data: which key becomes which of our tensors."""

from __future__ import annotations

import re

from sam3i_edge.checkpoints.keys import KeyLayout, compile_dropped, compile_rules

_ADAPTERS = {"adapter1": "simple", "adapter12": "bridge", "adapter2": "complex"}

_TRUNK = r"backbone\.vision_backbone\.trunk\."
_TEXT = r"backbone\.language_backbone\.encoder\."
_BLOCK = _TEXT + r"transformer\.resblocks\.(\d+)\."
_P = r"(weight|bias)"

_RULES: tuple[tuple[str, str, str], ...] = (
    # Image encoder.
    (_TRUNK + "pos_embed", "image_encoder.backbone.pos_embed", "no_cls"),
    (_TRUNK + r"patch_embed\.proj\.weight", "image_encoder.backbone.patch_embed.weight", "copy"),
    (_TRUNK + rf"ln_pre\.{_P}", r"image_encoder.backbone.norm_pre.\1", "copy"),
    (_TRUNK + rf"blocks\.(\d+)\.norm([12])\.{_P}", r"image_encoder.backbone.blocks.\1.norm\2.\3", "copy"),
    (
        _TRUNK + rf"blocks\.(\d+)\.attn\.qkv\.{_P}",
        r"image_encoder.backbone.blocks.\1.attn.{qkv}_proj.\2",
        "split",
    ),
    (
        _TRUNK + rf"blocks\.(\d+)\.attn\.proj\.{_P}",
        r"image_encoder.backbone.blocks.\1.attn.o_proj.\2",
        "copy",
    ),
    (_TRUNK + rf"blocks\.(\d+)\.mlp\.(fc[12])\.{_P}", r"image_encoder.backbone.blocks.\1.mlp.\2.\3", "copy"),
    (
        rf"backbone\.vision_backbone\.convs\.([012])\.dconv_2x2(?:_0)?\.{_P}",
        r"image_encoder.neck.\1.deconv.0.\2",
        "copy",
    ),
    (
        rf"backbone\.vision_backbone\.convs\.([012])\.dconv_2x2_1\.{_P}",
        r"image_encoder.neck.\1.deconv.1.\2",
        "copy",
    ),
    (
        rf"backbone\.vision_backbone\.convs\.([012])\.conv_1x1\.{_P}",
        r"image_encoder.neck.\1.conv1.\2",
        "copy",
    ),
    (
        rf"backbone\.vision_backbone\.convs\.([012])\.conv_3x3\.{_P}",
        r"image_encoder.neck.\1.conv2.\2",
        "copy",
    ),
    # Text encoder.
    (_TEXT + r"token_embedding\.weight", "text_encoder.token_embedding.weight", "copy"),
    (_TEXT + "positional_embedding", "text_encoder.position_embedding", "copy"),
    (_TEXT + rf"ln_final\.{_P}", r"text_encoder.final_norm.\1", "copy"),
    (_BLOCK + rf"attn\.in_proj_{_P}", r"text_encoder.layers.\1.attn.{qkv}_proj.\2", "split"),
    (_BLOCK + rf"attn\.out_proj\.{_P}", r"text_encoder.layers.\1.attn.o_proj.\2", "copy"),
    (_BLOCK + rf"ln_([12])\.{_P}", r"text_encoder.layers.\1.norm\2.\3", "copy"),
    (_BLOCK + rf"mlp\.c_fc\.{_P}", r"text_encoder.layers.\1.mlp.fc1.\2", "copy"),
    (_BLOCK + rf"mlp\.c_proj\.{_P}", r"text_encoder.layers.\1.mlp.fc2.\2", "copy"),
    (rf"backbone\.language_backbone\.resizer\.{_P}", r"text_encoder.projection.\1", "copy"),
    # Geometry encoder.
    (r"geometry_encoder\.(label_embed|cls_embed)\.weight", r"geometry_encoder.\1.weight", "copy"),
    (
        rf"geometry_encoder\.(boxes_(?:direct|pool|pos_enc)_project|final_proj|norm)\.{_P}",
        r"geometry_encoder.\1.\2",
        "copy",
    ),
    (rf"geometry_encoder\.img_pre_norm\.{_P}", r"geometry_encoder.image_norm.\1", "copy"),
    (rf"geometry_encoder\.encode_norm\.{_P}", r"geometry_encoder.output_norm.\1", "copy"),
    # Decoder tables and heads.
    (
        r"transformer\.decoder\.(query_embed|reference_points|presence_token)\.weight",
        r"detector.decoder.\1.weight",
        "copy",
    ),
    (rf"transformer\.decoder\.norm\.{_P}", r"detector.decoder.output_norm.\1", "copy"),
    (rf"transformer\.decoder\.presence_token_out_norm\.{_P}", r"detector.decoder.presence_norm.\1", "copy"),
    (rf"transformer\.decoder\.bbox_embed\.(layers\.\d)\.{_P}", r"detector.decoder.box_head.\1.\2", "copy"),
    (
        rf"transformer\.decoder\.presence_token_head\.(layers\.\d)\.{_P}",
        r"detector.decoder.presence_head.\1.\2",
        "copy",
    ),
    (
        rf"transformer\.decoder\.ref_point_head\.(layers\.\d)\.{_P}",
        r"detector.decoder.ref_point_head.\1.\2",
        "copy",
    ),
    (
        rf"transformer\.decoder\.boxRPB_embed_([xy])\.(layers\.\d)\.{_P}",
        r"detector.decoder.box_bias_\1.\2.\3",
        "copy",
    ),
    # Scores and masks.
    (rf"dot_prod_scoring\.prompt_mlp\.(layers\.\d)\.{_P}", r"detector.scoring.prompt_mlp.\1.\2", "copy"),
    (rf"dot_prod_scoring\.prompt_mlp\.out_norm\.{_P}", r"detector.scoring.prompt_norm.\1", "copy"),
    (rf"dot_prod_scoring\.prompt_proj\.{_P}", r"detector.scoring.prompt_proj.\1", "copy"),
    (rf"dot_prod_scoring\.hs_proj\.{_P}", r"detector.scoring.query_proj.\1", "copy"),
    (
        rf"segmentation_head\.pixel_decoder\.(conv_layers|norms)\.([01])\.{_P}",
        r"detector.mask_decoder.pixel_decoder.\1.\2.\3",
        "copy",
    ),
    (
        rf"segmentation_head\.mask_predictor\.mask_embed\.(layers\.\d)\.{_P}",
        r"detector.mask_decoder.mask_embedders.concept.\1.\2",
        "copy",
    ),
    (
        rf"segmentation_head\.mask_predictor_adapter1\.mask_embed\.(layers\.\d)\.{_P}",
        r"detector.mask_decoder.mask_embedders.simple.\1.\2",
        "copy",
    ),
    (
        rf"segmentation_head\.mask_predictor_adapter2\.mask_embed\.(layers\.\d)\.{_P}",
        r"detector.mask_decoder.mask_embedders.complex.\1.\2",
        "copy",
    ),
    (rf"segmentation_head\.instance_seg_head\.{_P}", r"detector.mask_decoder.instance_proj.\1", "copy"),
    (rf"segmentation_head\.semantic_seg_head\.{_P}", r"detector.mask_decoder.semantic_proj.\1", "copy"),
    (
        rf"segmentation_head\.cross_attend_prompt\.in_proj_{_P}",
        r"detector.mask_decoder.prompt_attn.{qkv}_proj.\1",
        "split",
    ),
    (
        rf"segmentation_head\.cross_attend_prompt\.out_proj\.{_P}",
        r"detector.mask_decoder.prompt_attn.o_proj.\1",
        "copy",
    ),
    (rf"segmentation_head\.cross_attn_norm\.{_P}", r"detector.mask_decoder.prompt_norm.\1", "copy"),
)


def _layer_rules() -> list[tuple[str, str, str]]:
    """Rules of the three transformer stacks, whose layers share their tails."""
    rules = []
    stacks = (
        (r"geometry_encoder\.encode\.(\d+)\.", r"geometry_encoder.layers.\1.", False),
        (r"transformer\.encoder\.layers\.(\d+)\.", r"detector.fusion_encoder.layers.\1.", False),
        (r"transformer\.decoder\.layers\.(\d+)\.", r"detector.decoder.layers.\1.", True),
    )
    for source, target, decoder in stacks:
        attentions = (
            {"self_attn": "self_attn", "ca_text": "prompt_attn", "cross_attn": "image_attn"}
            if decoder
            else {"self_attn": "self_attn", "cross_attn_image": "cross_attn"}
        )
        norms = (
            {"norm1": "image_norm", "norm2": "self_norm", "catext_norm": "prompt_norm", "norm3": "mlp_norm"}
            if decoder
            else {"norm1": "norm1", "norm2": "norm2", "norm3": "norm3"}
        )
        for theirs, ours in attentions.items():
            rules.append((source + rf"{theirs}\.in_proj_{_P}", target + ours + r".{qkv}_proj.\2", "split"))
            rules.append((source + rf"{theirs}\.out_proj\.{_P}", target + ours + r".o_proj.\2", "copy"))
        for theirs, ours in norms.items():
            rules.append((source + rf"{theirs}\.{_P}", target + ours + r".\2", "copy"))
        rules.append((source + rf"linear([12])\.{_P}", target + r"mlp.fc\2.\3", "copy"))
    return rules


def _adapter_rules() -> list[tuple[str, str, str]]:
    """Rules of the instruction adapters."""
    rules = []
    for theirs, ours in _ADAPTERS.items():
        text = rf"text_encoder.layers.\1.adapter.{ours}."
        block = _BLOCK + theirs + r"\."
        rules.append((block + rf"mha_adapter\.in_proj_{_P}", text + r"attn.{qkv}_proj.\2", "split"))
        rules.append((block + rf"mha_adapter\.out_proj\.{_P}", text + r"attn.o_proj.\2", "copy"))
        rules.append((block + rf"((?:down|up)_proj)\.{_P}", text + r"\2.\3", "copy"))
        rules.append((block + rf"norm1\.{_P}", text + r"attn_norm.\2", "copy"))
        rules.append((block + rf"norm2\.{_P}", text + r"mlp_norm.\2", "copy"))
        for source, stack in (("encoder", "fusion_encoder"), ("decoder", "decoder")):
            rules.append(
                (
                    rf"transformer\.{source}\.layers\.(\d+)\.{theirs}\.(down_proj|up_proj|norm)\.{_P}",
                    rf"detector.{stack}.layers.\1.adapter.{ours}.\2.\3",
                    "copy",
                )
            )
    return rules


OFFICIAL = KeyLayout(
    name="sam3.pt or SAM3-I",
    marker=re.compile(r"backbone\.vision_backbone\.|backbone\.language_backbone\.|mha_adapter\."),
    prefix=re.compile(r"^(?:model\.|module\.)?(?:detector\.)?"),
    rules=compile_rules((*_RULES, *_layer_rules(), *_adapter_rules())),
    # What an image model does not need, and why. The tracker's keys keep their prefix: some are named like
    # the detector's.
    dropped=compile_dropped(
        (
            ("video tracker", r"(?:model\.)?tracker\..*"),
            (
                "further necks, used by the tracker and for clicks only",
                r"backbone\.vision_backbone\.(?:sam2|interactive|propagation)_convs\..*",
            ),
            ("click prompts of the tracker", r"inst_interactive_predictor\..*"),
            ("rotary tables, recomputed", r".*\.freqs_cis"),
            ("coarsest pyramid level, computed and thrown away", r"backbone\.vision_backbone\.convs\.3\..*"),
            ("point prompts, absent from the image model", r"geometry_encoder\.points_\w+_project\..*"),
            ("CLIP's pooled projection, unused", _TEXT + "text_projection"),
            (
                "third pixel-decoder stage, never run",
                r"segmentation_head\.pixel_decoder\.(?:conv_layers|norms)\.2\..*",
            ),
            ("second text tower, attached by a defect and unused", r"backbone\.text\..*"),
            (
                "training-only projectors",
                r"(?:simple_query_proj|complex_query_proj|concept_proj|adapter_projector_[12])\..*",
            ),
        )
    ),
)
