"""Parity with EfficientSAM3's released code; and every known mistake, made on purpose, breaks it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parent))
import students

from sam3i_edge.checkpoints import read_checkpoint, student_folds
from sam3i_edge.errors import ArtifactError
from sam3i_edge.model import efficientvit, repvit, student, tinyvit
from sam3i_edge.model.sam3i import GraphModel
from sam3i_edge.model.text_encoder import TextEncoder


@pytest.mark.parametrize("family", students.FAMILIES)
def test_the_encoders_give_the_released_numbers(family: str) -> None:
    students.assert_encoders(students.encoder_errors(students.build(family), family))


@pytest.mark.parametrize("family", students.FAMILIES)
@pytest.mark.parametrize("case", students.CASES)
def test_the_whole_model_gives_the_released_numbers(family: str, case: str) -> None:
    found = students.answer(students.build(family), family, case)
    want = students.arrays(family, "outputs")
    for name, value in found.items():
        reference = want[name if name.startswith("vision") else f"concept.{case}.{name}"]
        if name == "pred_boxes_cxcywh":
            side = students.arrays(family, "inputs")["pixel_values"].shape[-1]
            np.testing.assert_allclose(value * side, reference * side, rtol=0, atol=students.PIXELS)
            continue
        error = np.linalg.norm(value.reshape(-1) - reference.reshape(-1)) / np.linalg.norm(reference)
        assert error <= students.RELATIVE, name
    masks = want[f"concept.{case}.pred_masks"]
    assert np.mean((found["pred_masks"] > 0) != (masks > 0)) <= students.FLIPS


# Each mistake below is one that the released code invites; made on purpose, it must break parity.
Patch = pytest.MonkeyPatch


def _tanh_gelu(patch: Patch) -> None:
    gelu = functional.gelu
    patch.setattr(functional, "gelu", lambda x, approximate="tanh": gelu(x, approximate=approximate))


def _batch_norm_eps(eps: float) -> Callable[[Patch], None]:
    return lambda patch: patch.setattr(student_folds, "EPS", eps)


def _no_identity_in_branches(patch: Patch) -> None:
    def fold(out: dict[str, torch.Tensor], place: str) -> None:
        if f"{place}.bn.weight" in out:
            out[f"{place}.conv1.weight"] = out[f"{place}.conv1.weight"] - 1
            student_folds._branches(out, place)

    _replace_fold(patch, ".conv1.weight", fold)


def _replace_fold(patch: Patch, ending: str, fold: Callable[[dict[str, torch.Tensor], str], None]) -> None:
    folds = tuple((end, fold if end == ending else kept) for end, kept in student_folds._FOLDS)
    assert folds != student_folds._FOLDS
    patch.setattr(student_folds, "_FOLDS", folds)


def _no_squeeze(patch: Patch) -> None:
    patch.setattr(repvit.SqueezeExcite, "forward", lambda self, x: x)


def _hard_sigmoid(patch: Patch) -> None:
    def forward(self: repvit.SqueezeExcite, x: torch.Tensor) -> torch.Tensor:
        return x * functional.hardsigmoid(self.fc2(functional.relu(self.fc1(x.mean((2, 3), keepdim=True)))))

    patch.setattr(repvit.SqueezeExcite, "forward", forward)


def _other_activation(function: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Patch], None]:
    return lambda patch: patch.setattr(functional, "hardswish", function)


def _linear_attention(order: str) -> Callable[[Patch], None]:
    forward = efficientvit.LinearAttention.forward

    def wrong(self: efficientvit.LinearAttention, x: torch.Tensor) -> torch.Tensor:
        batch, channels, height, width = x.shape
        groups = channels // (3 * self.group)
        parts = x.view(batch, 3, groups, self.group, height, width).transpose(1, 2)
        return forward(self, parts.reshape(batch, channels, height, width))

    def no_neighbourhood(self: efficientvit.LiteMLA, x: torch.Tensor) -> torch.Tensor:
        z = self.qkv(x)
        return x + self.proj(self.attention(torch.cat((z, z), dim=1)))

    def make(patch: Patch) -> None:
        if order == "thirds":
            patch.setattr(efficientvit.LinearAttention, "forward", wrong)
        else:
            patch.setattr(efficientvit.LiteMLA, "forward", no_neighbourhood)

    return make


def _qkv_as_thirds(patch: Patch) -> None:
    offsets = student_folds._offsets

    def fold(out: dict[str, torch.Tensor], place: str) -> None:
        kept = {part: out[f"{place}.qkv.{part}"] for part in ("weight", "bias")}
        offsets(out, place)
        out.update({f"{place}.qkv.{part}": value for part, value in kept.items()})

    _replace_fold(patch, ".attention_biases", fold)


def _bias_table(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Patch], None]:
    offsets = student_folds._offsets

    def fold(out: dict[str, torch.Tensor], place: str) -> None:
        out[f"{place}.attention_biases"] = change(out[f"{place}.attention_biases"])
        offsets(out, place)

    return lambda patch: _replace_fold(patch, ".attention_biases", fold)


def _transposed(table: torch.Tensor) -> torch.Tensor:
    side = int(table.shape[1] ** 0.5)
    return table.view(-1, side, side).transpose(1, 2).reshape(table.shape)


def _attend(self: tinyvit.TinyViTBlock, x: torch.Tensor, *, masked: bool) -> torch.Tensor:
    """A block's attention with padded places masked, or padded after the norm."""
    grid, padded, w = self.grid, self.padded, self.window
    width, n = x.shape[1], padded // w
    room = (0, 0, 0, padded - grid, 0, padded - grid)
    h = x.permute(0, 2, 3, 1)
    h = self.norm1(functional.pad(h, room)) if masked else functional.pad(self.norm1(h), room)
    windows = h.view(-1, n, w, n, w, width).transpose(2, 3).reshape(-1, w * w, width)
    bias = self.attn.bias[None]
    if masked:
        real = functional.pad(torch.ones(grid, grid), (0, padded - grid, 0, padded - grid))
        real = real.view(n, w, n, w).transpose(1, 2).reshape(-1, 1, 1, w * w)
        bias = bias + (1 - real) * -1e4
    h = self.attn.attend(*self.attn.project(windows, windows, windows), bias)
    h = h.view(-1, n, n, w, w, width).transpose(2, 3).reshape(-1, padded, padded, width)
    x = x + h[:, :grid, :grid].permute(0, 3, 1, 2)
    x = self.local_conv(x)
    return x + self.mlp(self.norm2(x.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)


def _padding(*, masked: bool) -> Callable[[Patch], None]:
    return lambda patch: patch.setattr(
        tinyvit.TinyViTBlock, "forward", lambda self, x: _attend(self, x, masked=masked)
    )


def _local_conv(place: str) -> Callable[[Patch], None]:
    forward = tinyvit.TinyViTBlock.forward

    def first(self: tinyvit.TinyViTBlock, x: torch.Tensor) -> torch.Tensor:
        conv, self.local_conv = self.local_conv, nn.Identity()
        try:
            return forward(self, conv(x))
        finally:
            self.local_conv = conv

    def skipped(self: tinyvit.TinyViTBlock, x: torch.Tensor) -> torch.Tensor:
        conv = self.local_conv

        class Skip(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return x + conv(x)

        self.local_conv = Skip()
        try:
            return forward(self, x)
        finally:
            self.local_conv = conv

    wrong = first if place == "before attention" else skipped
    return lambda patch: patch.setattr(tinyvit.TinyViTBlock, "forward", wrong)


def _resize(how: str) -> Callable[[Patch], None]:
    def forward(self: student.ProjectionHead, x: torch.Tensor) -> torch.Tensor:
        size = (self.grid, self.grid)
        if how == "first":
            x = functional.interpolate(x, size, mode="bilinear", align_corners=False)
        x = self.conv2(functional.gelu(self.conv1(x)))
        if how == "nearest":
            return functional.interpolate(x, size, mode="nearest")
        return functional.interpolate(x, size, mode="bilinear", align_corners=how == "align_corners")

    return lambda patch: patch.setattr(student.ProjectionHead, "forward", forward)


def _text_mask(*, causal: bool) -> Callable[[Patch], None]:
    def forward(self: TextEncoder, input_ids: torch.Tensor, level: str) -> torch.Tensor:
        tokens = input_ids.shape[1]
        x = self.token_embedding(input_ids) + self.position_embedding
        if causal:
            bias = torch.full((tokens, tokens), -1e4).triu(1)
        else:
            bias = torch.where(input_ids[:, None, None] != 0, 0.0, -1e4)
        for layer in self.layers:
            x = layer(x, bias, level)
        return self.projection(self.final_norm(x))

    return lambda patch: patch.setattr(TextEncoder, "forward", forward)


def _ids(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Patch], None]:
    """Other ids in padding slots; real tokens are compared alone."""
    forward = TextEncoder.forward

    def wrong(self: TextEncoder, input_ids: torch.Tensor, level: str) -> torch.Tensor:
        out = forward(self, change(input_ids), level)
        return functional.pad(out, (0, 0, 0, input_ids.shape[1] - out.shape[1]))

    return lambda patch: patch.setattr(TextEncoder, "forward", wrong)


def _scaled_embedding(patch: Patch) -> None:
    forward = TextEncoder.forward

    def wrong(self: TextEncoder, input_ids: torch.Tensor, level: str) -> torch.Tensor:
        kept = self.token_embedding.weight
        self.token_embedding.weight = nn.Parameter(kept * kept.shape[1] ** -0.5)
        try:
            return forward(self, input_ids, level)
        finally:
            self.token_embedding.weight = kept

    patch.setattr(TextEncoder, "forward", wrong)


def _mixer(part: str) -> Callable[[Patch], None]:
    mixer = student_folds._mixer

    def fold(out: dict[str, torch.Tensor], place: str) -> None:
        name = {"scale": "layer_scale", "norm": "norm.rbr_skip.weight"}[part]
        value = out[f"{place}.{name}"]
        out[f"{place}.{name}"] = torch.ones_like(value) if part == "scale" else torch.zeros_like(value)
        if part == "norm":
            out[f"{place}.norm.rbr_skip.bias"] = torch.zeros_like(value)
        mixer(out, place)

    return lambda patch: _replace_fold(patch, ".mixer.rbr_skip.running_mean", fold)


MISTAKES: dict[str, tuple[str, Callable[[Patch], None], str]] = {
    "RepViT: tanh GELU": ("repvit", _tanh_gelu, "trunk"),
    "TinyViT: tanh GELU": ("tinyvit", _tanh_gelu, "trunk"),
    "batch norm eps 1e-3": ("repvit", _batch_norm_eps(1e-3), "trunk"),
    "batch norm eps 1e-6": ("repvit", _batch_norm_eps(1e-6), "trunk"),
    "RepViT: branches without the identity": ("repvit", _no_identity_in_branches, "trunk"),
    "RepViT: no squeeze": ("repvit", _no_squeeze, "trunk"),
    "RepViT: hard sigmoid": ("repvit", _hard_sigmoid, "trunk"),
    "EfficientViT: ReLU6": ("efficientvit", _other_activation(functional.relu6), "trunk"),
    "EfficientViT: SiLU": ("efficientvit", _other_activation(functional.silu), "trunk"),
    "LiteMLA: q, k, v as thirds of all channels": ("efficientvit", _linear_attention("thirds"), "trunk"),
    "LiteMLA: no neighbourhoods": ("efficientvit", _linear_attention("one scale"), "trunk"),
    "TinyViT: qkv as thirds": ("tinyvit", _qkv_as_thirds, "trunk"),
    "TinyViT: bias table transposed": ("tinyvit", _bias_table(_transposed), "trunk"),
    "TinyViT: no biases": ("tinyvit", _bias_table(torch.zeros_like), "trunk"),
    "TinyViT: padded places masked": ("tinyvit", _padding(masked=True), "trunk"),
    "TinyViT: padded after the norm": ("tinyvit", _padding(masked=False), "trunk"),
    "TinyViT: local convolution before attention": ("tinyvit", _local_conv("before attention"), "trunk"),
    "TinyViT: local convolution with a skip": ("tinyvit", _local_conv("skip"), "trunk"),
    "head: corners aligned": ("repvit", _resize("align_corners"), "trunk_projected"),
    "head: nearest": ("repvit", _resize("nearest"), "trunk_projected"),
    "head: resized first": ("repvit", _resize("first"), "trunk_projected"),
    "text: causal": ("repvit", _text_mask(causal=True), "text_features"),
    "text: padding masked": ("repvit", _text_mask(causal=False), "text_features"),
    "text: ids without padding": (
        "repvit",
        _ids(lambda ids: ids[:, : int((ids != 0).sum())]),
        "text_features",
    ),
    "text: padded with the end token": ("repvit", _ids(lambda ids: ids.masked_fill(ids == 0, 319)), "text"),
    "text: embedding scaled": ("repvit", _scaled_embedding, "text_features"),
    "RepMixer: scale dropped": ("efficientvit", _mixer("scale"), "text_features"),
    "RepMixer: norm not subtracted": ("efficientvit", _mixer("norm"), "text_features"),
}


def _real_tokens_alone(family: str, model: GraphModel) -> dict[str, float]:
    want = students.arrays(family, "outputs")
    found = {}
    for case in students.CASES[:3]:
        ids = students.prompt_of(family, case)
        real = (ids[0] != 0).numpy()
        with torch.no_grad():
            text = model.text_encoder(ids, "concept")[0].numpy()
        name = f"concept.{case}.text_features"
        found[f"{case}.text_features"] = students.relative(text[real], want[name][real])
    return found


@pytest.mark.parametrize("mistake", MISTAKES)
def test_every_known_mistake_is_caught(mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    family, make, array = MISTAKES[mistake]
    make(monkeypatch)
    model = students.build(family)
    found = students.encoder_errors(model, family)
    if array.startswith("text"):
        found = _real_tokens_alone(family, model)
    with pytest.raises(AssertionError, match=array):
        students.assert_encoders(found)


def test_a_position_table_interpolated_in_place_of_cut_is_caught() -> None:
    """It is right for the first stage-1 files alone, which is why it is an option."""
    family = "repvit"
    right, wrong = (
        read_checkpoint(students.checkpoint(family), config=students.config(family), resize_positions=resize)
        for resize in (False, True)
    )
    name = "text_encoder.position_embedding"
    assert right.tensors[name].shape == wrong.tensors[name].shape == (16, 64)
    table = students.state(family)[
        "detector.backbone.language_backbone.encoder.positional_embedding.pos_embed.pos_embed"
    ]
    resized = functional.interpolate(table, size=(16, 64), mode="bilinear")[0, 0]
    torch.testing.assert_close(wrong.tensors[name], resized)
    model = students.build(family)
    with torch.no_grad():
        model.text_encoder.position_embedding.copy_(wrong.tensors[name])
    with pytest.raises(AssertionError, match="text_features"):
        students.assert_encoders(_real_tokens_alone(family, model))


def test_wrong_rounding_of_a_squeeze_has_another_shape() -> None:
    widths = {16: 8, 24: 8, 48: 16, 64: 16, 80: 24, 96: 24, 128: 32, 160: 40, 192: 48, 256: 64, 320: 80}
    assert {width: repvit.squeezed(width) for width in widths} == widths
    assert (repvit.squeezed(384), repvit.squeezed(512), repvit.squeezed(640)) == (96, 128, 160)


def test_a_window_of_another_side_is_read_from_the_table() -> None:
    """A table of 49 offsets for windows of 14 raises nothing in the released code."""
    assert students.build("tinyvit").config.trunk_windows == (7, 14, 7)
    state = students.state("tinyvit")
    place = "detector.backbone.vision_backbone.trunk.model.backbone.model.layers.2.blocks.0.attn"
    state[f"{place}.attention_biases"] = state[f"{place}.attention_biases"][:, :50]
    with pytest.raises(ArtifactError, match="has 50 columns, want the square of a window's side"):
        student_folds.fold_student(state)


def test_linear_attention_of_silent_queries_is_zero_in_half_precision_too() -> None:
    """The released code divides by 1e-15 there, which float16 does not hold."""
    x = torch.randn(1, 2 * 3 * 4, 3, 3)
    x[:, :4] = -1.0  # the queries of the first group
    for values in (x, x.half()):
        found = efficientvit.LinearAttention(4)(values)
        assert torch.equal(found[:, :4].float(), torch.zeros(1, 4, 3, 3))
        assert torch.isfinite(found).all()


def test_linear_attention_equals_attention_written_out() -> None:
    x = torch.randn(2, 2 * 3 * 4, 5, 5, dtype=torch.float64)
    found = efficientvit.LinearAttention(4)(x).view(2, 2, 4, 25)
    q, k, v = x.view(2, 2, 3, 4, 25).unbind(2)
    weights = torch.einsum("bgcn,bgcm->bgnm", q.relu(), k.relu())
    weights = (weights / weights.sum(-1, keepdim=True)).nan_to_num()
    torch.testing.assert_close(found, torch.einsum("bgnm,bgcm->bgcn", weights, v))
