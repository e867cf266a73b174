from functools import partial

import pytest
import torch
from torch import nn

from sam3i_edge.kernels._triton import INTERPRETED
from sam3i_edge.kernels.adapter_cross_attention import (
    adapter_cross_attention,
    adapter_cross_attention_op,
    adapter_cross_attention_reference,
    fold_prompt,
)
from sam3i_edge.model import fusion_encoder
from sam3i_edge.model.attention import MASKED, padding_bias
from sam3i_edge.model.config import ModelConfig
from sam3i_edge.model.fusion_encoder import FusionLayer

GATES = ((0.7, 0.9), (1.0, 0.0), (0.0, 1.0), (0.0, 0.0))
DTYPES = [torch.float32, torch.float16, torch.bfloat16]
# Largest relative error, in the norm, against the definition in float64.
TOLERANCE = {torch.float32: 3e-6, torch.float16: 4e-3, torch.bfloat16: 2e-2}
FORWARD, BACKWARD = "_cross_attention_kernel", "_cross_attention_backward_kernel"
ADAPTER_FORWARD, ADAPTER_BACKWARD = "_adapter_mlp_kernel", "_adapter_mlp_backward_kernel"


def _operands(batch, tokens, prompt, channels, width, dtype, device):
    """x, prompt, norm, four projections and, for a width above zero, twelve adapter weights; bias; gates."""

    def normal(*shape, scale=1.0):
        return torch.randn(*shape, dtype=torch.float64) * scale

    def adapter(*sample):
        return (
            normal(*sample, width, channels, scale=channels**-0.5),
            normal(*sample, width, scale=0.1),
            1 + normal(*sample, width, scale=0.1),
            normal(*sample, width, scale=0.1),
            normal(*sample, channels, width, scale=width**-0.5),
            normal(*sample, channels, scale=0.1),
        )

    tensors = [normal(batch, tokens, channels), normal(batch, prompt, channels)]
    tensors += [1 + normal(channels, scale=0.1), normal(channels, scale=0.1)]
    for _ in range(4):
        tensors += [normal(channels, channels, scale=1.5 * channels**-0.5), normal(channels, scale=0.1)]
    if width:
        tensors += [*adapter(batch), *adapter()]
    bias = torch.zeros(batch, 1, 1, prompt)
    bias[..., prompt - prompt // 3 :] = MASKED
    gates = torch.tensor([GATES[i % 4] for i in range(batch)]).view(batch, 2)
    single = torch.promote_types(dtype, torch.float32)
    return (
        [tensor.to(device, dtype).requires_grad_() for tensor in tensors],
        bias.to(device, single),
        gates.to(device, single),
    )


def _call(function, tensors, bias, gates, heads):
    """`function` with the arguments of `adapter_cross_attention`."""
    pairs = [tuple(tensors[i : i + 2]) for i in range(2, 12, 2)]
    adapters = (tensors[12:18], tensors[18:24], gates) if len(tensors) > 12 else None
    return function(tensors[0], tensors[1], bias, *pairs, heads, adapters)


def _kernels(x, keys, offsets, values, gates, *weights):
    """y and z, or y alone without gates."""
    found = adapter_cross_attention_op(x, keys, offsets, values, gates, weights)
    return found[0] if gates is None else tuple(found)


def _by_kernels(x, prompt, bias, norm, query, key, value, output, heads, adapters):
    """The public function, without its rule."""
    folded = fold_prompt(prompt, bias, norm, query, key, value, output, heads)
    if adapters is None:
        y = _kernels(x, *folded, None)
        return y, y
    first, second, gates = adapters
    return _kernels(x, *folded, gates, *first, *second)


def _definition(tensors, bias, gates, heads, grads):
    tensors = [tensor.detach().double().requires_grad_() for tensor in tensors]
    out = _call(adapter_cross_attention_reference, tensors, bias.double(), gates.double(), heads)
    return [t.detach() for t in out], torch.autograd.grad(out, tensors, [grad.double() for grad in grads])


def _error(actual, expected):
    return ((actual.double() - expected).norm() / expected.norm().clamp(min=1e-30)).item()


def _assert_agrees(out, gradients, tensors, bias, gates, heads, grads, tolerance):
    expected, wanted = _definition(tensors, bias, gates, heads, grads)
    for name, actual, value in zip(("residual stream", "adapted stream"), out, expected, strict=True):
        assert _error(actual, value) < tolerance, name
    scale = max(value.norm() for value in wanted)
    for place, (actual, value) in enumerate(zip(gradients, wanted, strict=True)):
        assert actual.dtype == tensors[place].dtype
        if value.norm() < 1e-9 * scale:  # zero, but for rounding: what the softmax ignores
            assert actual.double().norm() < tolerance * scale, f"tensor {place}"
        else:
            assert _error(actual, value) < tolerance, f"tensor {place}"


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype)[6:])
@pytest.mark.parametrize(
    ("batch", "tokens", "prompt", "channels", "heads", "width"),
    [
        (3, 35, 7, 24, 2, 20),
        (1, 1, 1, 32, 2, 16),
        (2, 9, 33, 32, 2, 16),
        (1, 5, 6, 64, 2, 16),
        (1, 5, 6, 64, 1, 16),
        (1, 34, 5, 96, 4, 32),
        (2, 5, 6, 32, 2, 0),
        (2, 9, 82, 32, 2, 16),
        (1, 5, 65, 32, 2, 0),
        (1, 3, 128, 16, 1, 16),
    ],
    ids=[
        *("odd", "one token", "head 16", "head 32", "head 64", "nano", "no adapters"),
        *("two instructions of 33 tokens and 8 boxes", "one token in the second tile", "longest"),
    ],
)
def test_results_and_gradients_are_those_of_the_definition(
    batch, tokens, prompt, channels, heads, width, dtype, device, launches
):
    tensors, bias, gates = _operands(batch, tokens, prompt, channels, width, dtype, device)
    grads = [torch.randn(tensors[0].shape, dtype=torch.float64).to(tensors[0]) for _ in range(2)]
    out = _call(_by_kernels, tensors, bias, gates, heads)
    gradients = torch.autograd.grad(out, tensors, grads)
    assert launches == {FORWARD: 1, BACKWARD: 1, **({ADAPTER_BACKWARD: 1} if width else {})}
    assert out[0].dtype == out[1].dtype == dtype
    _assert_agrees(out, gradients, tensors, bias, gates, heads, grads, TOLERANCE[dtype])


def test_a_prompt_of_padding_alone_is_attended_evenly(device):
    tensors, bias, gates = _operands(2, 9, 5, 32, 16, torch.float32, device)
    bias[1] = MASKED
    grads = [torch.ones_like(tensors[0])] * 2
    out = _call(_by_kernels, tensors, bias, gates, 2)
    gradients = torch.autograd.grad(out, tensors, grads)
    _assert_agrees(out, gradients, tensors, bias, gates, 2, grads, TOLERANCE[torch.float32])


def test_padding_is_not_read(device):
    tensors, bias, gates = _operands(2, 9, 6, 32, 16, torch.float32, device)
    expected = _call(_by_kernels, tensors, bias, gates, 2)
    other = tensors[1].detach().clone()
    other[:, 4:] += 1
    out = _call(_by_kernels, [tensors[0], other, *tensors[2:]], bias, gates, 2)
    assert all(map(torch.equal, out, expected))


def test_closed_gates_change_no_bit(device):
    tensors, bias, gates = _operands(2, 9, 6, 32, 16, torch.bfloat16, device)
    y, z = _call(_by_kernels, tensors, bias, torch.zeros_like(gates), 2)
    assert torch.equal(y, z)
    bare, _ = _call(_by_kernels, tensors[:12], bias, gates, 2)
    torch.testing.assert_close(y, bare, **({"rtol": 0, "atol": 0} if INTERPRETED else {}))  # another kernel


def test_an_empty_batch_and_no_tokens_launch_nothing(device, launches):
    for batch, tokens in ((0, 5), (2, 0)):
        tensors, bias, gates = _operands(batch, tokens, 3, 32, 16, torch.float32, device)
        y, z = _call(_by_kernels, tensors, bias, gates, 2)
        assert y.shape == z.shape == tensors[0].shape
        gradients = torch.autograd.grad(y.sum() + z.sum(), tensors)
        assert all(not gradient.any() for gradient in gradients)
    assert not launches


def test_layouts_do_not_matter(device):
    tensors, bias, gates = _operands(2, 9, 5, 32, 16, torch.float32, device)
    expected = _call(_by_kernels, tensors, bias, gates, 2)
    wanted = torch.autograd.grad(expected[0].sum() + expected[1].sum(), tensors)
    turned = [t.detach().mT.contiguous().mT if t.ndim > 1 else t.detach() for t in tensors]
    turned = [tensor.requires_grad_() for tensor in turned]
    assert not turned[0].is_contiguous()
    out = _call(_by_kernels, turned, bias, gates, 2)
    gradients = torch.autograd.grad(out[0].sum() + out[1].sum(), turned)  # sum gives expanded gradients
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(gradients, wanted, rtol=1e-4, atol=1e-4)


def test_it_is_deterministic(device):
    tensors, bias, gates = _operands(1, 40, 5, 32, 16, torch.bfloat16, device)
    runs = []
    for _ in range(2):
        y, z = _call(_by_kernels, tensors, bias, gates, 2)
        runs.append((y, z, *torch.autograd.grad(y.sum() + z.sum(), tensors)))
    assert all(map(torch.equal, *runs))


def test_gradcheck(device):
    tensors, bias, gates = _operands(1, 2, 3, 8, 4, torch.float64, device)
    folded = fold_prompt(tensors[1], bias, *(tuple(tensors[i : i + 2]) for i in range(2, 12, 2)), 2)
    folded = [tensor.detach().requires_grad_() for tensor in folded]
    arguments = (tensors[0], *folded, gates, *tensors[12:])
    assert torch.autograd.gradcheck(_kernels, arguments, fast_mode=True)


@pytest.mark.parametrize(
    ("width", "kernels"),
    [(0, [FORWARD]), (16, [FORWARD]), (70, [FORWARD, ADAPTER_FORWARD])],
    ids=["no adapters", "fused", "too wide to fuse"],
)
def test_the_public_function_runs_the_kernels_when_asked(width, kernels, device, launches):
    tensors, bias, gates = _operands(2, 5, 4, 32, width, torch.bfloat16, device)
    out = _call(partial(adapter_cross_attention, implementation="triton"), tensors, bias, gates, 2)
    assert launches == dict.fromkeys(kernels, 1)
    grads = [torch.ones_like(tensors[0])] * 2
    gradients = torch.autograd.grad(out, tensors, grads)
    _assert_agrees(out, gradients, tensors, bias, gates, 2, grads, TOLERANCE[torch.bfloat16])


def test_under_autocast_the_streams_stay_float32(device, launches):
    tensors, bias, gates = _operands(2, 5, 4, 32, 16, torch.float32, device)
    with torch.autocast(device.type, torch.bfloat16):
        out = _call(partial(adapter_cross_attention, implementation="triton"), tensors, bias, gates, 2)
    assert launches == {FORWARD: 1}
    assert out[0].dtype == out[1].dtype == torch.float32
    grads = [torch.ones_like(tensors[0])] * 2
    gradients = torch.autograd.grad(out, tensors, grads)
    _assert_agrees(out, gradients, tensors, bias, gates, 2, grads, TOLERANCE[torch.bfloat16])


@pytest.mark.parametrize(
    ("sizes", "dtype", "reason"),
    [
        ((1, 2, 3, 32, 16), torch.float32, "products in float32, want float16 or bfloat16"),
        ((1, 2, 129, 32, 16), torch.bfloat16, "1 to 128 prompt tokens"),
        ((1, 2, 3, 258, 16), torch.bfloat16, "want at most 256 channels"),
        ((1, 2, 3, 32, 257), torch.bfloat16, "a bottleneck of 257, want at most 256"),
    ],
)
def test_what_the_kernels_cannot_run_is_refused_by_name(sizes, dtype, reason, device):
    tensors, bias, gates = _operands(*sizes, dtype, device)
    with pytest.raises(ValueError, match=reason):
        _call(partial(adapter_cross_attention, implementation="triton"), tensors, bias, gates, 2)


@pytest.mark.parametrize("wrong", [1, 2, 5, 8, 11, 12, 23])
def test_a_wrong_shape_is_refused_with_all_of_them(wrong):
    tensors, bias, gates = _operands(2, 5, 4, 16, 8, torch.float32, torch.device("cpu"))
    tensors[wrong] = tensors[wrong].detach()[..., :-1]
    with pytest.raises(
        ValueError, match=r"adapter_cross_attention: got x \[2, 5, 16\] float32 cpu"
    ) as caught:
        _call(adapter_cross_attention, tensors, bias, gates, 2)
    for part in ("norm.weight [16]", "want x [B, N, C], prompt [B, T, C], bias float [B, 1, 1, T]"):
        assert part in str(caught.value) or wrong == 2


def test_wrong_heads_dtypes_and_devices_are_refused():
    tensors, bias, gates = _operands(2, 5, 4, 16, 8, torch.float32, torch.device("cpu"))
    with pytest.raises(ValueError, match="16 channels, want a multiple of 3 heads"):
        _call(adapter_cross_attention, tensors, bias, gates, 3)
    with pytest.raises(ValueError, match=r"prompt \[2, 4, 16\] float16 cpu"):
        _call(adapter_cross_attention, [tensors[0], tensors[1].half(), *tensors[2:]], bias, gates, 2)
    with pytest.raises(ValueError, match=r"bias \[2, 1, 1, 4\] float32 meta"):
        _call(adapter_cross_attention, tensors, bias.to("meta"), gates, 2)


CONFIG = ModelConfig(d_model=32, n_heads=2, ffn_dim=48, adapter_dim=16)


@pytest.fixture
def layer(device):
    layer = FusionLayer(CONFIG).to(device)
    for parameter in layer.adapter.parameters():  # the last projections start at zero
        nn.init.normal_(parameter, std=0.3)
    return layer


def _layer_inputs(device):
    mask = torch.tensor([[True, True, False], [True, False, False], [True, True, True]], device=device)
    return (
        torch.randn(3, 9, 32, device=device),
        torch.randn(9, 32, device=device),
        torch.randn(3, 3, 32, device=device),
        padding_bias(mask),
        torch.tensor([2, 0, 1], device=device),
    )


def test_the_fusion_layer_takes_the_kernels(layer, device, launches, monkeypatch):
    x, position, prompt, bias, level = _layer_inputs(device)
    expected = layer.double()(x.double(), position.double(), prompt.double(), bias.double(), level)
    layer.float()
    asked = partial(adapter_cross_attention, implementation="triton")
    monkeypatch.setattr(fusion_encoder, "adapter_cross_attention", asked)
    with torch.autocast(device.type, torch.bfloat16):
        out = layer(x, position, prompt, bias, level)
    assert launches == {FORWARD: 1}
    assert _error(out, expected) < TOLERANCE[torch.bfloat16]


def test_both_paths_of_the_fusion_layer_have_the_same_bits(layer, device):
    inputs = _layer_inputs(device)
    expected = layer(*inputs)
    seen = []
    layer.cross_attn.q_proj.register_forward_hook(lambda *_: seen.append(1))  # now a module's path
    assert torch.equal(layer(*inputs), expected)
    assert seen == [1]


def test_a_replaced_projection_is_called(layer, device):
    class Quantized(nn.Linear):
        def forward(self, x):
            return super().forward(x) * 0

    inputs = _layer_inputs(device)
    plain = layer(*inputs)
    layer.cross_attn.o_proj.__class__ = Quantized
    assert not torch.equal(layer(*inputs), plain)


def test_concept_has_the_bits_of_no_adapters(layer, device):
    x, position, prompt, bias, level = _layer_inputs(device)
    assert torch.equal(
        layer(x, position, prompt, bias, torch.zeros_like(level)), layer(x, position, prompt, bias, None)
    )


def test_exported_graphs_hold_aten_operators_only(layer, device):
    program = torch.export.export(layer, _layer_inputs(device))
    targets = [node.target for node in program.graph.nodes if node.op == "call_function"]
    assert {target.namespace for target in targets} == {"aten"}
    assert torch.ops.aten.scaled_dot_product_attention.default in targets
