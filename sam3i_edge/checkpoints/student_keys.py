"""The layout of EfficientSAM3 and SAM3-LiteText: SAM3's, with students in the places of its encoders."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch

from sam3i_edge.checkpoints.keys import KeyLayout, compile_dropped, compile_rules
from sam3i_edge.checkpoints.official import OFFICIAL
from sam3i_edge.checkpoints.student_folds import fold_student
from sam3i_edge.errors import ArtifactError

_P = r"(weight|bias)"
_MODEL = r"backbone\.vision_backbone\.trunk\.model\."
_TRUNK = _MODEL + r"backbone\.model\."
_TEXT = r"backbone\.language_backbone\.encoder\."
_BLOCK = _TEXT + r"transformer\.(\d+)\."
_OURS = "image_encoder.backbone."

_REPVIT = (
    (rf"features\.0\.([02])\.{_P}", r"features.0.\1.\2"),
    (rf"features\.(\d+)\.token_mixer\.0\.{_P}", r"features.\1.depthwise.\2"),
    (rf"features\.(\d+)\.token_mixer\.1\.(fc[12])\.{_P}", r"features.\1.squeeze.\2.\3"),
    (rf"features\.(\d+)\.token_mixer\.2\.{_P}", r"features.\1.pointwise.\2"),
    (rf"features\.(\d+)\.channel_mixer\.m\.0\.{_P}", r"features.\1.expand.\2"),
    (rf"features\.(\d+)\.channel_mixer\.m\.2\.{_P}", r"features.\1.project.\2"),
)
_TINYVIT = (
    (rf"patch_embed\.seq\.([02])\.{_P}", r"patch_embed.\1.\2"),
    (rf"layers\.(\d+)\.(blocks\.\d+|downsample)\.(conv[123]|local_conv)\.{_P}", r"layers.\1.\2.\3.\4"),
    (rf"layers\.(\d+)\.blocks\.(\d+)\.attn\.norm\.{_P}", r"layers.\1.blocks.\2.norm1.\3"),
    (rf"layers\.(\d+)\.blocks\.(\d+)\.attn\.proj\.{_P}", r"layers.\1.blocks.\2.attn.o_proj.\3"),
    (r"layers\.(\d+)\.blocks\.(\d+)\.attn\.attention_bias", r"layers.\1.blocks.\2.attn.bias"),
    (rf"layers\.(\d+)\.blocks\.(\d+)\.mlp\.norm\.{_P}", r"layers.\1.blocks.\2.norm2.\3"),
    (rf"layers\.(\d+)\.blocks\.(\d+)\.mlp\.(fc[12])\.{_P}", r"layers.\1.blocks.\2.mlp.\3.\4"),
)
_STAGE = r"stages\.(\d+)\.op_list\.(\d+)\."
_EFFICIENTVIT = (
    (rf"input_stem\.op_list\.0\.{_P}", r"stem.0.\1"),
    (rf"input_stem\.op_list\.(\d+)\.main\.(depth|point)_conv\.{_P}", r"stem.\1.\2.\3"),
    (_STAGE + rf"main\.(inverted|depth|point)_conv\.(?:conv\.)?{_P}", r"stages.\1.\2.\3.\4"),
    (
        _STAGE + rf"local_module\.main\.(inverted|depth|point)_conv\.(?:conv\.)?{_P}",
        r"stages.\1.\2.local.\3.\4",
    ),
    (_STAGE + r"context_module\.main\.qkv\.conv\.weight", r"stages.\1.\2.context.qkv.weight"),
    (_STAGE + r"context_module\.main\.aggreg\.0\.0\.weight", r"stages.\1.\2.context.gather.weight"),
    (_STAGE + r"context_module\.main\.aggreg\.0\.1\.weight", r"stages.\1.\2.context.mix.weight"),
    (_STAGE + rf"context_module\.main\.proj\.{_P}", r"stages.\1.\2.context.proj.\3"),
)
_TEXTS = (
    (_TEXT + r"embedding_layer\.weight", "text_encoder.token_embedding.weight", "copy"),
    (_TEXT + r"positional_embedding\.pos_embed\.pos_embed", "text_encoder.position_embedding", "copy"),
    (_TEXT + rf"final_layer_norm\.{_P}", r"text_encoder.final_norm.\1", "copy"),
    (rf"backbone\.language_backbone\.projector\.{_P}", r"text_encoder.projection.\1", "copy"),
    (_BLOCK + rf"pre_norm_mha\.0\.{_P}", r"text_encoder.layers.\1.norm1.\2", "copy"),
    (_BLOCK + rf"pre_norm_mha\.1\.qkv_proj\.{_P}", r"text_encoder.layers.\1.attn.{qkv}_proj.\2", "split"),
    (_BLOCK + rf"pre_norm_mha\.1\.out_proj\.{_P}", r"text_encoder.layers.\1.attn.o_proj.\2", "copy"),
    (_BLOCK + rf"pre_norm_ffn\.0\.{_P}", r"text_encoder.layers.\1.norm2.\2", "copy"),
    (_BLOCK + rf"pre_norm_ffn\.1\.{_P}", r"text_encoder.layers.\1.mlp.fc1.\2", "copy"),
    (_BLOCK + rf"pre_norm_ffn\.4\.{_P}", r"text_encoder.layers.\1.mlp.fc2.\2", "copy"),
    (_BLOCK + rf"token_mixer\.{_P}", r"text_encoder.layers.\1.mixer.\2", "copy"),
    (_BLOCK + rf"convffn\.conv\.{_P}", r"text_encoder.layers.\1.conv.\2", "copy"),
    (_BLOCK + rf"convffn\.(fc[12])\.{_P}", r"text_encoder.layers.\1.mlp.\2.\3", "copy"),
)
_RULES = (
    *((_TRUNK + theirs, _OURS + ours, "copy") for theirs, ours in (*_REPVIT, *_TINYVIT, *_EFFICIENTVIT)),
    (
        _TRUNK + rf"layers\.(\d+)\.blocks\.(\d+)\.attn\.qkv\.{_P}",
        _OURS + r"layers.\1.blocks.\2.attn.{qkv}_proj.\3",
        "split",
    ),
    (_MODEL + rf"head\.0\.{_P}", r"image_encoder.head.conv1.\1", "copy"),
    (_MODEL + rf"head\.3\.{_P}", r"image_encoder.head.conv2.\1", "copy"),
    *_TEXTS,
)

STUDENT = KeyLayout(
    name="EfficientSAM3 or SAM3-LiteText",
    marker=re.compile(rf"{_MODEL}|{_TEXT}embedding_layer\."),
    prefix=OFFICIAL.prefix,
    rules=(*compile_rules(_RULES), *OFFICIAL.rules),
    dropped=(
        *compile_dropped(
            (
                ("counts of training batches", r".*\.num_batches_tracked"),
                ("places of biases, recomputed", r".*\.attention_bias_idxs"),
                ("MobileCLIP's pooled projection, unused", _TEXT + "projection_layer"),
            )
        ),
        *OFFICIAL.dropped,
    ),
)

# Image trunks by what only their keys hold.
_FAMILIES = {"RepViT": "features.", "TinyViT": "patch_embed.seq.", "EfficientViT": "input_stem."}
_TEACHER = "the teacher's image encoder, left in by an older merge"
_PARTS = {
    "backbone.model.": "backbone.vision_backbone.trunk.model.",
    "head.": "backbone.vision_backbone.trunk.model.",
    "encoder.": "backbone.language_backbone.",
    "projector.": "backbone.language_backbone.",
}


def prepare_student(
    state: Mapping[str, torch.Tensor],
) -> tuple[Mapping[str, torch.Tensor], dict[str, list[str]]]:
    """A checkpoint with the keys of a merged one and folded layers; one without students as it is.

    Returns:
        The state dict, and reason -> keys that were left out.

    Raises:
        ArtifactError: encoders of several kinds are mixed, the image trunk is unknown, or a layer is not
            whole.
    """
    # The file of one encoder alone: no key of a whole model begins so.
    part = all(key.removeprefix("module.").startswith(tuple(_PARTS)) for key in state)
    named = {_merged_key(key, part): value for key, value in state.items()}
    bare = {key: OFFICIAL.prefix.sub("", key, count=1) for key in named}
    trunk = "backbone.vision_backbone.trunk."
    models = [key for key, name in bare.items() if name.startswith(f"{trunk}model.")]
    _check_families([bare[key] for key in models])
    texts = ("encoder.embedding_layer.", "encoder.transformer.resblocks.")
    both = [
        next((key for key, name in bare.items() if name.startswith(f"backbone.language_backbone.{part}")), "")
        for part in texts
    ]
    if all(both):
        raise ArtifactError(
            f"two text encoders are mixed in this file, SAM3's and a student's: {' and '.join(both)}"
        )
    if not models and not both[0]:
        return state, {}
    teacher = [
        key
        for key, name in bare.items()
        if models and name.startswith(trunk) and not name.startswith(f"{trunk}model.")
    ]
    kept = {key: value for key, value in named.items() if key not in set(teacher)}
    return fold_student(kept), {_TEACHER: teacher} if teacher else {}


def _merged_key(key: str, part: bool) -> str:
    """The key that a merged file has for this one, `part` of a file of one encoder alone."""
    key = key.replace("student_trunk.", "")
    key = re.sub(r"^((?:model\.|module\.)?)sam3_model\.", r"\1detector.", key)
    key = re.sub(r"^((?:model\.|module\.)?)sam2_predictor\.", r"\1tracker.", key)
    if not part:
        return key
    bare = key.removeprefix("module.")
    return next(place for start, place in _PARTS.items() if bare.startswith(start)) + bare


def _check_families(names: list[str]) -> None:
    if not names:
        return
    inner = "backbone.vision_backbone.trunk.model.backbone.model."
    found = {
        family: key
        for family, start in _FAMILIES.items()
        if (key := next((name for name in names if name.startswith(inner + start)), None))
    }
    if len(found) > 1:
        raise ArtifactError(
            f"image encoders of {' and '.join(found)} are mixed in this file: {', '.join(found.values())}"
        )
    if not found:
        first = next((name for name in names if name.startswith(inner)), names[0])
        raise ArtifactError(
            f"the image encoder is a student of no kind known here, by {first}: want {', '.join(_FAMILIES)}"
        )


def generation(state: Mapping[str, torch.Tensor]) -> str | None:
    """Which SAM3 a file was made of, "SAM 3" or "SAM 3.1", by its neck; None where it has none."""
    necks = [key for key in state if re.search(r"vision_backbone\.convs\.|neck\.fpn_layers\.", key)]
    if not necks:
        return None
    return "SAM 3" if any(re.search(r"(?:convs|fpn_layers)\.3\.", key) for key in necks) else "SAM 3.1"
