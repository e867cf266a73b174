import pytest
import torch

from sam3i_edge.kernels.adapter_mlp import adapter_mlp, adapter_mlp_op, adapter_mlp_reference

GATES = ((0.7, 0.9), (1.0, 0.0), (0.0, 1.0), (0.0, 0.0))
DTYPES = [torch.float32, torch.float16, torch.bfloat16]
# Largest relative error, in the norm, against the definition in float64.
TOLERANCE = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 1e-2}
NAMES = (
    "x",
    *(f"{place}.{name}" for place in ("first", "second") for name in ("down", "b", "n", "s", "up", "c")),
)


def _weights(channels, width, *batch):
    def normal(*shape):
        return torch.randn(*batch, *shape, dtype=torch.float64)

    return [
        normal(width, channels) / channels**0.5,
        normal(width) * 0.1,
        1 + normal(width) * 0.1,
        normal(width) * 0.1,
        normal(channels, width) / width**0.5,
        normal(channels) * 0.1,
    ]


def _operands(batch, tokens, channels, width, dtype, device):
    """x, gates and the twelve weights; gates differ by sample."""
    tensors = [
        torch.randn(batch, tokens, channels, dtype=torch.float64),
        *_weights(channels, width, batch),
        *_weights(channels, width),
    ]
    gates = torch.tensor([GATES[i % 4] for i in range(batch)]).view(batch, 2)
    x, *weights = (tensor.to(device, dtype).requires_grad_() for tensor in tensors)
    return x, gates.to(device, torch.promote_types(dtype, torch.float32)), weights


def _kernels(x, gates, *weights):
    return adapter_mlp_op(x, gates, weights)


def _definition(x, gates, weights, grad):
    """Result and gradients of the definition in float64."""
    x, *weights = (tensor.detach().double().requires_grad_() for tensor in (x, *weights))
    out = adapter_mlp_reference(x, weights[:6], weights[6:], gates.double())
    return out.detach(), torch.autograd.grad(out, (x, *weights), grad.double())


def _error(actual, expected):
    return ((actual.double() - expected).norm() / expected.norm().clamp(min=1e-30)).item()


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype)[6:])
@pytest.mark.parametrize(
    ("batch", "tokens", "channels", "width"),
    [(4, 35, 24, 20), (1, 1, 16, 16), (2, 33, 96, 32), (1, 3, 40, 100)],
    ids=["odd", "one token", "nano", "wide"],
)
def test_result_and_gradients_are_those_of_the_definition(
    batch, tokens, channels, width, dtype, device, launches
):
    x, gates, weights = _operands(batch, tokens, channels, width, dtype, device)
    grad = torch.randn(x.shape, dtype=torch.float64).to(x)
    out = _kernels(x, gates, *weights)
    gradients = torch.autograd.grad(out, (x, *weights), grad)
    assert launches == {"_adapter_mlp_kernel": 1, "_adapter_mlp_backward_kernel": 1}
    expected, expected_gradients = _definition(x, gates, weights, grad)
    assert out.dtype == dtype
    assert _error(out, expected) < TOLERANCE[dtype]
    for name, actual, wanted in zip(NAMES, gradients, expected_gradients, strict=True):
        assert actual.dtype == dtype
        assert _error(actual, wanted) < TOLERANCE[dtype], name


def test_closed_gates_change_no_bit(device):
    x, gates, weights = _operands(2, 5, 32, 16, torch.bfloat16, device)
    assert torch.equal(_kernels(x, torch.zeros_like(gates), *weights), x)


def test_an_empty_batch_and_no_tokens_launch_nothing(device, launches):
    for batch, tokens in ((0, 5), (2, 0)):
        x, gates, weights = _operands(batch, tokens, 16, 16, torch.float32, device)
        out = _kernels(x, gates, *weights)
        assert out.shape == x.shape
        gradients = torch.autograd.grad(out.sum(), (x, *weights))
        assert all(not gradient.any() for gradient in gradients)
    assert not launches


def test_layouts_do_not_matter(device):
    x, gates, weights = _operands(2, 5, 32, 16, torch.float32, device)
    expected = _kernels(x, gates, *weights)
    expected_gradients = torch.autograd.grad(expected.sum(), (x, *weights))
    turned = [t.detach().mT.contiguous().mT if t.ndim > 1 else t.detach() for t in (x, *weights)]
    turned = [tensor.requires_grad_() for tensor in turned]
    assert not turned[0].is_contiguous()
    out = _kernels(turned[0], gates, *turned[1:])
    gradients = torch.autograd.grad(out.sum(), turned)  # sum gives an expanded gradient
    # A GPU's matrix products add up in another order for another layout.
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(gradients, expected_gradients, rtol=1e-4, atol=1e-4)


def test_it_is_deterministic(device):
    x, gates, weights = _operands(1, 40, 32, 16, torch.bfloat16, device)
    runs = [torch.autograd.grad(_kernels(x, gates, *weights).sum(), (x, *weights)) for _ in range(2)]
    assert all(map(torch.equal, *runs))


def test_gradcheck(device):
    x, gates, weights = _operands(2, 2, 8, 4, torch.float64, device)
    assert torch.autograd.gradcheck(_kernels, (x, gates, *weights), fast_mode=True)


def test_frozen_weights_get_no_gradient(device):
    x, gates, weights = _operands(2, 3, 16, 16, torch.float32, device)
    frozen = [weight.detach() for weight in weights]
    (gradient,) = torch.autograd.grad(_kernels(x, gates, *frozen).sum(), x)
    (wanted,) = torch.autograd.grad(_kernels(x, gates, *weights).sum(), x)
    assert torch.equal(gradient, wanted)


def test_the_public_function_runs_the_kernel_when_asked(device, launches):
    x, gates, weights = _operands(2, 5, 32, 16, torch.bfloat16, device)
    out = adapter_mlp(x, weights[:6], weights[6:], gates, implementation="triton")
    assert launches == {"_adapter_mlp_kernel": 1}
    assert torch.equal(out, _kernels(x, gates, *weights))


def test_under_autocast_the_stream_stays_float32(device):
    x, gates, weights = _operands(2, 5, 32, 16, torch.float32, device)
    with torch.autocast(device.type, torch.bfloat16):
        out = adapter_mlp(x, weights[:6], weights[6:], gates, implementation="triton")
    assert out.dtype == torch.float32
    gradients = torch.autograd.grad(out.sum(), (x, *weights))
    expected, wanted = _definition(x, gates, weights, torch.ones_like(x))
    assert 1e-5 < _error(out, expected) < TOLERANCE[torch.bfloat16]
    for gradient, of_definition in zip(gradients, wanted, strict=True):
        assert gradient.dtype == torch.float32
        assert _error(gradient, of_definition) < TOLERANCE[torch.bfloat16]


def test_what_the_kernel_cannot_run_is_refused_by_name(device):
    x, gates, weights = _operands(1, 2, 16, 16, torch.float32, device)
    arguments = (x, weights[:6], weights[6:], gates)
    with pytest.raises(ValueError, match="products in float32, want float16 or bfloat16"):
        adapter_mlp(*arguments, implementation="triton")
    x, gates, weights = _operands(1, 2, 16, 257, torch.bfloat16, device)
    with pytest.raises(ValueError, match="a bottleneck of 257, want at most 256"):
        adapter_mlp(x, weights[:6], weights[6:], gates, implementation="triton")
    x, gates, weights = _operands(1, 2, 16, 16, torch.bfloat16, device)
    with pytest.raises(ValueError, match="gates that need a gradient"):
        adapter_mlp(x, weights[:6], weights[6:], gates.requires_grad_(), implementation="triton")


@pytest.mark.parametrize("wrong", [0, 1, 5, 7, 12])
def test_a_wrong_shape_is_refused_with_all_of_them(wrong):
    x, gates, weights = _operands(2, 5, 16, 8, torch.float32, torch.device("cpu"))
    tensors = [x, *weights]
    tensors[wrong] = tensors[wrong].detach()[..., :-1]
    with pytest.raises(ValueError, match=r"adapter_mlp: got x \[2, 5, 1") as caught:
        adapter_mlp(tensors[0], tensors[1:7], tensors[7:], gates)
    for part in (
        "first.down",
        "second.up_bias",
        "want x [B, N, C], first.down [B, R, C]",
        "gates float [B, 2]",
    ):
        assert part in str(caught.value)


def test_wrong_dtypes_and_devices_are_refused():
    x, gates, weights = _operands(2, 5, 16, 8, torch.float32, torch.device("cpu"))
    with pytest.raises(ValueError, match="bfloat16 cpu"):
        adapter_mlp(x.bfloat16(), weights[:6], weights[6:], gates)
    with pytest.raises(ValueError, match=r"gates \[2, 2\] float32 meta"):
        adapter_mlp(x, weights[:6], weights[6:], gates.to("meta"))
