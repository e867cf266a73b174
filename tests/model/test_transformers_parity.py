"""Parity with transformers' Sam3Model on random weights, reduced size, text-only prompt."""

from __future__ import annotations

import pytest
import torch

from sam3i_edge.checkpoints.completion import LAYOUTS
from sam3i_edge.checkpoints.keys import convert_keys
from sam3i_edge.model.config import ModelConfig
from sam3i_edge.model.sam3i import SAM3I, join_prompt

transformers = pytest.importorskip("transformers")

CONFIG = ModelConfig(
    image_size=112,
    pretrain_image_size=56,
    window_size=4,
    vit_width=32,
    vit_depth=3,
    vit_heads=2,
    vit_mlp_dim=64,
    vit_global_blocks=(2,),
    text_width=32,
    text_layers=2,
    text_heads=2,
    text_mlp_dim=64,
    vocab_size=99,
    d_model=32,
    n_heads=4,
    ffn_dim=64,
    encoder_layers=2,
    decoder_layers=2,
    num_queries=11,
    geometry_layers=2,
    adapter_dim=0,
)


def _theirs() -> torch.nn.Module:
    c = CONFIG
    small = {"hidden_size": c.d_model, "num_attention_heads": c.n_heads, "intermediate_size": c.ffn_dim}
    config = transformers.Sam3Config(
        vision_config={
            "backbone_config": {
                "model_type": "sam3_vit_model",
                "hidden_size": c.vit_width,
                "intermediate_size": c.vit_mlp_dim,
                "num_hidden_layers": c.vit_depth,
                "num_attention_heads": c.vit_heads,
                "image_size": c.image_size,
                "pretrain_image_size": c.pretrain_image_size,
                "patch_size": c.patch_size,
                "window_size": c.window_size,
                "global_attn_indexes": list(c.vit_global_blocks),
                "layer_norm_eps": 1e-5,
            },
            "fpn_hidden_size": c.d_model,
            "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]],
        },
        text_config={
            "hidden_size": c.text_width,
            "intermediate_size": c.text_mlp_dim,
            "num_hidden_layers": c.text_layers,
            "num_attention_heads": c.text_heads,
            "vocab_size": c.vocab_size,
            "max_position_embeddings": c.text_context,
            "projection_dim": 16,
            "hidden_act": "gelu",
            "bos_token_id": 97,
            "eos_token_id": 98,
        },
        geometry_encoder_config={**small, "num_layers": c.geometry_layers},
        detr_encoder_config={**small, "num_layers": c.encoder_layers},
        detr_decoder_config={**small, "num_layers": c.decoder_layers, "num_queries": c.num_queries},
        mask_decoder_config={"hidden_size": c.d_model, "num_attention_heads": c.n_heads},
    )
    torch.manual_seed(0)
    model = transformers.Sam3Model(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # larger than the initialisation, so that every part is felt
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def test_matches_transformers_when_the_cls_token_is_appended() -> None:
    theirs = _theirs()
    ours = SAM3I(CONFIG).eval()
    state = convert_keys(theirs.state_dict(), LAYOUTS).tensors
    wanted = ours.state_dict()
    state = {k: v.reshape(wanted[k].shape) if k in wanted else v for k, v in state.items()}
    ours.load_state_dict(state)

    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(1, 3, 112, 112, generator=generator)
    ids = torch.zeros(1, 32, dtype=torch.int64)
    ids[0, :7] = torch.tensor([97, 5, 9, 23, 42, 8, 98])
    with torch.no_grad():
        maps = ours.image_encoder(pixels)
        geometry = ours.geometry_encoder(maps[-1])
        text = ours.text_encoder(ids, "concept")
        got = ours.detector.predict(*maps, *join_prompt(text, ids, geometry), None)

        vision = theirs.vision_encoder(pixels)
        # transformers skips its geometry encoder without boxes, and with them it needs torchvision: its own
        # layers, run on the CLS token alone, give the token that the official model always appends.
        module, image = theirs.geometry_encoder, vision.fpn_hidden_states[2].flatten(2).transpose(1, 2)
        position = vision.fpn_position_encoding[2].flatten(2).transpose(1, 2)
        token = module.prompt_layer_norm(module.final_proj(module.cls_embed.weight[None]))
        for layer in module.layers:
            token = layer(token, image, position, None)
        token = module.output_layer_norm(token)
        features = theirs.get_text_features(input_ids=ids, return_dict=True)
        features.pooler_output = torch.cat((features.pooler_output, token), dim=1)
        mask = torch.cat((ids != 0, torch.ones(1, 1, dtype=torch.bool)), dim=1)
        want = theirs(vision_embeds=vision, text_embeds=features, attention_mask=mask)

    for ours_map, theirs_map in zip(maps, vision.fpn_hidden_states, strict=False):
        torch.testing.assert_close(ours_map, theirs_map, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(geometry, token, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(text, features.pooler_output[:, :32], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(got.logits[-1], want.pred_logits, rtol=1e-4, atol=1e-4)
    corners = torch.cat(
        (
            got.boxes[-1, ..., :2] - got.boxes[-1, ..., 2:] / 2,
            got.boxes[-1, ..., :2] + got.boxes[-1, ..., 2:] / 2,
        ),
        -1,
    )
    torch.testing.assert_close(corners, want.pred_boxes, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(got.presence[-1], want.presence_logits[:, 0], rtol=1e-4, atol=1e-4)
    scale = want.pred_masks.abs().max()
    torch.testing.assert_close(got.mask_logits / scale, want.pred_masks / scale, rtol=0, atol=1e-4)
    torch.testing.assert_close(got.semantic_logits, want.semantic_seg[:, 0], rtol=1e-4, atol=1e-3)
