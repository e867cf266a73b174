"""A student's tensors with what only training needs folded into single layers, exactly.

Names stay the checkpoint's; `student_keys` renames what comes out. With s = g / sqrt(v + eps) a convolution
and its batch norm are s w and b_n + s (b - m). Sums run in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isqrt

import torch

from sam3i_edge.errors import ArtifactError

EPS = 1e-5  # of every batch norm there
Tensors = dict[str, torch.Tensor]
_NORM = ("weight", "bias", "running_mean", "running_var")


def fold_student(state: Tensors) -> Tensors:
    """The same state dict without batch norms, branches and layer scales.

    Raises:
        ArtifactError: a part of a layer is missing, or the parts have shapes that do not fit.
    """
    out = dict(state)
    for ending, fold in _FOLDS:
        for key in [key for key in out if key.endswith(ending)]:
            if key not in out:
                continue  # part of what was folded
            try:
                fold(out, key.removesuffix(ending))
            except KeyError as error:
                raise ArtifactError(f"the tensor {error.args[0]} is missing beside {key}") from error
            except RuntimeError as error:
                raise ArtifactError(
                    f"{key} does not fit the tensors beside it: {str(error).splitlines()[0]}"
                ) from error
    return out


def _take(out: Tensors, name: str) -> torch.Tensor:
    return out.pop(name).double()


def _norm(out: Tensors, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch norm as scale and offset, float64 [C] each."""
    weight, bias, mean, variance = (_take(out, f"{name}.{part}") for part in _NORM)
    scale = weight / (variance + EPS).sqrt()
    return scale, bias - mean * scale


def _put(out: Tensors, name: str, weight: torch.Tensor, bias: torch.Tensor) -> None:
    out[f"{name}.weight"], out[f"{name}.bias"] = weight.float(), bias.float()


def _scaled(weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """A convolution's weight with each output channel scaled."""
    return weight * scale.view(-1, *(1,) * (weight.ndim - 1))


def _conv_norm(conv: str, norm: str, target: str) -> Callable[[Tensors, str], None]:
    """Folds the pair `{place}.{conv}`, `{place}.{norm}` into `{place}{target}`."""

    def fold(out: Tensors, place: str) -> None:
        if f"{place}.{conv}.weight" not in out:
            return  # a norm with branches before it, or none
        weight = _take(out, f"{place}.{conv}.weight")
        scale, offset = _norm(out, f"{place}.{norm}")
        bias = out.pop(f"{place}.{conv}.bias", None)
        if bias is not None:
            offset = offset + scale * bias.double()
        _put(out, f"{place}{target}", _scaled(weight, scale), offset)

    return fold


def _branches(out: Tensors, place: str) -> None:
    """RepViT: BN(3 x 3, folded, + 1 x 1 + identity), depthwise."""
    weight, bias = _take(out, f"{place}.conv.weight"), _take(out, f"{place}.conv.bias")
    weight[:, :, 1:2, 1:2] += _take(out, f"{place}.conv1.weight") + 1
    bias = bias + _take(out, f"{place}.conv1.bias")
    scale, offset = _norm(out, f"{place}.bn")
    _put(out, place, _scaled(weight, scale), offset + scale * bias)


def _mixer(out: Tensors, place: str) -> None:
    """MobileCLIP: x + g (BN_m(x) + conv(x) - BN_n(x)), depthwise 1 x 11."""
    gain = _take(out, f"{place}.layer_scale").flatten()
    weight, bias = (_take(out, f"{place}.mixer.rbr_conv.0.{part}") for part in ("weight", "bias"))
    kept, kept_offset = _norm(out, f"{place}.mixer.rbr_skip")
    taken, taken_offset = _norm(out, f"{place}.norm.rbr_skip")
    weight = _scaled(weight, gain)
    weight[:, 0, 0, weight.shape[3] // 2] += 1 + gain * (kept - taken)
    _put(out, place, weight, gain * (bias + kept_offset - taken_offset))


def _layer_scale(out: Tensors, place: str) -> None:
    """MobileCLIP: the scale on a block's last layer; its two pointwise convolutions become linear layers."""
    gain = _take(out, f"{place}.layer_scale").flatten()
    weight, bias = (_take(out, f"{place}.convffn.fc2.{part}") for part in ("weight", "bias"))
    _put(out, f"{place}.convffn.fc2", _scaled(weight.flatten(1), gain), gain * bias)
    out[f"{place}.convffn.fc1.weight"] = out[f"{place}.convffn.fc1.weight"].flatten(1)


def _offsets(out: Tensors, place: str) -> None:
    """TinyViT: biases by offset, gathered for each pair of places; q, k and v of all heads side by side."""
    table = out.pop(f"{place}.attention_biases")
    side = isqrt(table.shape[1])
    if side * side != table.shape[1]:
        raise ArtifactError(
            f"{place}.attention_biases has {table.shape[1]} columns, want the square of a window's side"
        )
    rows = torch.arange(side).repeat_interleave(side)
    columns = torch.arange(side).repeat(side)
    index = (rows[:, None] - rows).abs() * side + (columns[:, None] - columns).abs()
    out[f"{place}.attention_bias"] = table[:, index.to(table.device)]
    for part in ("weight", "bias"):
        value = out[f"{place}.qkv.{part}"]
        heads = value.view(table.shape[0], 3, -1, *value.shape[1:])
        out[f"{place}.qkv.{part}"] = heads.transpose(0, 1).reshape(value.shape)


def _positions(out: Tensors, place: str) -> None:
    """MobileCLIP's table [1, 1, rows, C] -> [rows, C]."""
    name = f"{place}.pos_embed.pos_embed"
    out[name] = out[name].view(out[name].shape[-2:])


# What the keys of a fold end in, in the order in which they must run.
_FOLDS: tuple[tuple[str, Callable[[Tensors, str], None]], ...] = (
    (".head.1.running_mean", _conv_norm("head.0", "head.1", ".head.0")),
    (".bn.running_mean", _conv_norm("c", "bn", "")),
    (".conv1.weight", lambda out, place: _branches(out, place) if f"{place}.bn.weight" in out else None),
    (".bn.running_mean", _conv_norm("conv", "bn", "")),
    (".norm.running_mean", _conv_norm("conv", "norm", "")),
    (".mixer.rbr_skip.running_mean", _mixer),
    (".layer_scale", _layer_scale),
    (".attention_biases", _offsets),
    (".pos_embed.pos_embed", _positions),
)
