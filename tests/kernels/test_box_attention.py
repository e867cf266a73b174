from __future__ import annotations

from functools import partial

import pytest
import torch

from sam3i_edge.kernels import box_attention as module
from sam3i_edge.kernels._triton import INTERPRETED
from sam3i_edge.kernels.box_attention import box_attention, box_attention_op, box_attention_reference
from sam3i_edge.model import decoder as decoder_module
from sam3i_edge.model.config import ModelConfig
from sam3i_edge.model.decoder import Decoder

NAMES = ("q", "k", "v", "bias_y", "bias_x")
# Largest error in units of the largest value or 1, against float64 on the same inputs.
TOLERANCE = {torch.float32: 3e-6, torch.float16: 5e-3, torch.bfloat16: 4e-2}
# Samples, heads, queries without the presence token, channels of a head, rows and columns of the image.
SIZES = {
    "odd, two strips, two query blocks": (1, 2, 66, 24, 3, 19),
    "one query, one cell": (2, 1, 1, 16, 1, 1),
    "powers of two": (1, 1, 31, 32, 4, 16),
    "wide head, one row": (1, 1, 3, 64, 1, 33),
    "one column": (2, 1, 4, 32, 9, 1),
}


def random_inputs(sizes: tuple[int, ...], dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    batch, heads, queries, width, grid_h, grid_w = sizes
    shapes = (
        (batch, heads, 1 + queries, width),
        (batch, heads, grid_h * grid_w, width),
        (batch, heads, grid_h * grid_w, width),
        (batch, heads, queries, grid_h),
        (batch, heads, queries, grid_w),
    )
    return [(1.5 * torch.randn(shape)).to(dtype).requires_grad_() for shape in shapes]


def kernels(*inputs: torch.Tensor) -> torch.Tensor:
    return box_attention_op(*inputs)[0]


def oracle(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bias_y: torch.Tensor, bias_x: torch.Tensor
) -> torch.Tensor:
    """Loops over image rows and columns, with no outer sum to get wrong."""
    logits = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    columns = bias_x.shape[-1]
    bias = torch.stack(
        [bias_y[..., n // columns] + bias_x[..., n % columns] for n in range(k.shape[2])], dim=-1
    )
    logits = torch.cat((logits[:, :, :1], logits[:, :, 1:] + bias), dim=2)
    return torch.softmax(logits, dim=-1) @ v


def with_gradients(function, inputs, grad):
    out = function(*inputs)
    return [out, *torch.autograd.grad(out, inputs, grad.to(out.dtype))]


def assert_all_close(actual, expected, tolerance: float) -> None:
    for name, a, e in zip(("out", *NAMES), actual, expected, strict=True):
        assert a.shape == e.shape
        error = (a.double() - e.double()).abs().max() / e.double().abs().max().clamp(min=1)
        assert error <= tolerance, f"{name}: relative error {error:.2e}, at most {tolerance:g}"


def in_float64(inputs: list[torch.Tensor]) -> list[torch.Tensor]:
    return [x.detach().double().requires_grad_() for x in inputs]


@pytest.fixture(autouse=True)
def _on_device(device):
    with torch.device(device):
        yield


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_matches_float64(sizes, dtype, launches):
    inputs = random_inputs(sizes, dtype)
    grad = torch.randn(inputs[0].shape).to(dtype)
    actual = with_gradients(kernels, inputs, grad)
    several = sizes[-1] > 16
    assert dict(launches) == {
        "_box_attention_kernel": 1,
        "_box_attention_grad_queries_kernel": 1,
        "_box_attention_grad_keys_kernel": 1,
        **({"_box_attention_merge_kernel": 1, "_box_attention_sum_kernel": 2} if several else {}),
    }
    assert all(x.dtype == dtype for x in actual)
    expected = with_gradients(oracle, in_float64(inputs), grad.double())
    assert_all_close(actual, expected, TOLERANCE[dtype])


def test_reference_is_the_definition(launches):
    inputs = in_float64(random_inputs((2, 2, 5, 24, 3, 7)))
    grad = torch.randn(inputs[0].shape, dtype=torch.float64)
    expected = with_gradients(oracle, inputs, grad)
    assert_all_close(with_gradients(box_attention_reference, inputs, grad), expected, 1e-12)
    assert_all_close(with_gradients(box_attention, inputs, grad), expected, 1e-12)
    assert not launches


def test_presence_token_has_no_bias():
    q, k, v, bias_y, bias_x = (x.detach() for x in random_inputs((1, 1, 2, 16, 2, 3)))
    out = kernels(q, k, v, bias_y, bias_x)
    other = kernels(q, k, v, bias_y + torch.randn(2)[:, None], 3 * bias_x)
    assert torch.equal(out[:, :, 0], other[:, :, 0])
    assert not torch.allclose(out[:, :, 1:], other[:, :, 1:], atol=1e-3)


@pytest.mark.parametrize(("programs", "expected"), [(1, 1), (2, 2), (10**6, 2)])
def test_splits_give_the_same(monkeypatch, programs, expected, launches):
    monkeypatch.setattr(module, "_ENOUGH_PROGRAMS", programs)
    inputs = random_inputs((1, 1, 6, 16, 3, 50))
    grad = torch.randn(inputs[0].shape)
    actual = with_gradients(kernels, inputs, grad)
    assert launches["_box_attention_kernel"] + launches["_box_attention_merge_kernel"] == expected
    assert_all_close(actual, with_gradients(oracle, in_float64(inputs), grad.double()), 3e-6)


@pytest.mark.skipif(not INTERPRETED, reason="float64 is for the interpreter")
def test_gradcheck(launches):
    inputs = in_float64(random_inputs((1, 1, 2, 2, 2, 2)))
    assert torch.autograd.gradcheck(kernels, inputs)
    assert launches["_box_attention_grad_keys_kernel"] > 0


def test_large_logits():
    inputs = [x.detach() * 40 for x in random_inputs((1, 1, 4, 16, 3, 18))]
    actual = kernels(*inputs)
    assert torch.allclose(actual.double(), oracle(*in_float64(inputs)), rtol=1e-3, atol=1e-3)


def test_non_contiguous_among_nan():
    """Views inside larger tensors of NaN, in the layouts of the model: nothing beside them is read."""
    inputs = random_inputs((2, 2, 5, 24, 3, 18))
    grad = torch.randn(2, 6, 2, 24).transpose(1, 2)
    expected = with_gradients(oracle, in_float64(inputs), grad.double())

    def embedded(x, order):
        shape = [x.shape[i] for i in order]
        around = torch.full([n + 2 for n in shape], float("nan"))
        inside = around[tuple(slice(1, 1 + n) for n in shape)]
        inside.copy_(x.detach().permute(order))
        return inside.permute([order.index(i) for i in range(4)]).requires_grad_()

    tokens_first, heads_last = [0, 2, 1, 3], [0, 2, 3, 1]
    orders = (tokens_first, tokens_first, [3, 2, 1, 0], heads_last, heads_last)
    views = [embedded(x, order) for x, order in zip(inputs, orders, strict=True)]
    assert not any(view.is_contiguous() for view in views)
    assert_all_close(with_gradients(kernels, views, grad), expected, 3e-6)


def test_expanded_gradient():
    inputs = random_inputs((1, 1, 3, 16, 2, 2))
    actual = torch.autograd.grad(kernels(*inputs).sum(), inputs)
    doubles = in_float64(inputs)
    for a, e in zip(actual, torch.autograd.grad(oracle(*doubles).sum(), doubles), strict=True):
        assert torch.allclose(a.double(), e, atol=1e-5)


def test_new_memory_holds_nan():
    assert torch.empty(3).isnan().all()
    assert torch.zeros(3).new_empty(3).isnan().all()


def test_empty_batch(launches):
    inputs = random_inputs((0, 2, 3, 16, 2, 2))
    results = with_gradients(kernels, inputs, torch.zeros(0, 2, 4, 16))
    assert [x.shape for x in results] == [inputs[0].shape, *(x.shape for x in inputs)]
    assert not launches


def test_deterministic():
    inputs = random_inputs((1, 2, 9, 16, 3, 20))
    grad = torch.randn(inputs[0].shape)
    runs = [with_gradients(kernels, inputs, grad) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


def test_no_second_derivative():
    inputs = random_inputs((1, 1, 1, 16, 1, 2))
    (grad,) = torch.autograd.grad(kernels(*inputs).square().sum(), inputs[0], create_graph=True)
    with pytest.raises(RuntimeError, match="no autograd formula"):
        grad.sum().backward()


def test_refuses_wrong_shapes():
    q, k, v, bias_y, bias_x = random_inputs((1, 2, 3, 16, 2, 4))
    with pytest.raises(ValueError, match=r"q \[1, 2, 4, 16\] float32 .*bias_x.*want q \[B, H, T, d\]"):
        box_attention(q, k, v[..., :8], bias_y, bias_x)
    with pytest.raises(ValueError, match="3 queries with bias for 3"):
        box_attention(q[:, :, 1:], k, v, bias_y, bias_x)
    with pytest.raises(ValueError, match="8 keys with bias for 2 rows and 3 columns"):
        box_attention(q, k, v, bias_y, bias_x[..., :3])
    with pytest.raises(ValueError, match=r"bias_y.*float16"):
        box_attention(q, k, v, bias_y.half(), bias_x)
    with pytest.raises(ValueError, match="at least one"):
        box_attention(q, k[:, :, :0], v[:, :, :0], bias_y[..., :0], bias_x)


def test_refuses_wide_heads():
    inputs = random_inputs((1, 1, 1, 65, 1, 2))
    with pytest.raises(ValueError, match="heads of 65 channels, at most 64"):
        box_attention(*inputs, implementation="triton")
    assert box_attention(*inputs).shape == (1, 1, 2, 65)


def small_decoder() -> tuple[Decoder, tuple[torch.Tensor, ...]]:
    config = ModelConfig(
        backbone="conv", image_size=80, d_model=32, n_heads=2, num_queries=4, decoder_layers=2, ffn_dim=16
    )
    decoder = Decoder(config)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.normal_(std=0.2)
    tokens = config.grid**2
    inputs = (
        torch.randn(1, tokens, 32),
        torch.randn(tokens, 32),
        torch.randn(1, 5, 32),
        torch.zeros(1, 1, 1, 5),
    )
    return decoder, inputs


def test_decoder_runs_the_kernel(monkeypatch, launches):
    decoder, inputs = small_decoder()
    weights = list(decoder.parameters())

    def outputs():
        results = decoder(*inputs, None)
        grads = torch.autograd.grad(sum(x.square().sum() for x in results), weights, allow_unused=True)
        return [*results, *(torch.zeros(1) if grad is None else grad for grad in grads)]

    expected = outputs()
    assert not launches
    monkeypatch.setattr(decoder_module, "box_attention", partial(box_attention, implementation="triton"))
    largest = max(x.abs().max() for x in expected)
    for a, e in zip(outputs(), expected, strict=True):
        assert (a - e).abs().max() <= 1e-4 * e.abs().max() + 1e-6 * largest
    assert launches["_box_attention_kernel"] == launches["_box_attention_grad_keys_kernel"] == 2


def test_exported_decoder_holds_aten_operators_only():
    decoder, inputs = small_decoder()
    graph = torch.export.export(decoder.eval(), (*inputs, None)).graph
    targets = {str(node.target) for node in graph.nodes if node.op == "call_function"}
    assert "aten.scaled_dot_product_attention.default" in targets
    assert all(target.startswith("aten.") or "getitem" in target for target in targets)
