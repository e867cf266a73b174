"""The kernels as operators of torch: what torch.compile keeps in one graph, and what export never sees."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from sam3i_edge.kernels import _dispatch
from sam3i_edge.kernels.adapter_cross_attention import adapter_cross_attention, adapter_cross_attention_op
from sam3i_edge.kernels.adapter_mlp import adapter_mlp, adapter_mlp_op
from sam3i_edge.kernels.box_attention import box_attention, box_attention_op
from sam3i_edge.kernels.int4_linear import int4_linear, int4_linear_op, pack_int4
from sam3i_edge.kernels.int8_linear import int8_linear, int8_linear_op
from sam3i_edge.model import adapters as adapters_module
from sam3i_edge.model import decoder as decoder_module
from sam3i_edge.model import fusion_encoder as fusion_module
from sam3i_edge.model.config import ModelConfig
from sam3i_edge.model.graph_specs import graph_specs
from sam3i_edge.model.sam3i import SAM3I

CONFIG = ModelConfig(
    image_size=64,
    backbone="conv",
    conv_widths=(8, 8, 16, 16),
    text_width=16,
    text_layers=1,
    text_heads=2,
    text_mlp_dim=32,
    vocab_size=64,
    d_model=32,
    n_heads=2,
    ffn_dim=64,
    encoder_layers=1,
    decoder_layers=1,
    num_queries=4,
    geometry_layers=1,
    roi_size=3,
    adapter_dim=16,
    max_detections=4,
)
BOXES = 2


def _weights(channels: int, width: int, *batch: int) -> list[torch.Tensor]:
    shapes = ((width, channels), (width,), (width,), (width,), (channels, width), (channels,))
    return [torch.randn(*batch, *shape) for shape in shapes]


def _differentiable() -> dict[str, tuple]:
    """Operator -> arguments whose floating tensors want gradients."""
    adapters = [*_weights(16, 16, 2), *_weights(16, 16)]
    keys, offsets, values = torch.randn(2, 2, 5, 16), torch.randn(2, 2, 5), torch.randn(2, 2, 5, 16)
    boxes = (torch.randn(1, 2, 4, 16), torch.randn(1, 2, 34, 16), torch.randn(1, 2, 34, 16))
    for tensor in (*adapters, keys, offsets, values, *boxes):
        tensor.requires_grad_()
    x, gates = torch.randn(2, 7, 16, requires_grad=True), torch.ones(2, 2)
    factors = torch.randn(1, 2, 3, 2, requires_grad=True), torch.randn(1, 2, 3, 17, requires_grad=True)
    return {
        "adapter_mlp": (adapter_mlp_op, (x, gates, adapters)),
        "adapter_cross_attention": (
            adapter_cross_attention_op,
            (x, keys, offsets, values, gates, adapters),
        ),
        "without adapters": (adapter_cross_attention_op, (x, keys, offsets, values, None, [])),
        "box_attention": (box_attention_op, (*boxes, *factors)),
    }


@pytest.mark.parametrize(
    "name", ["adapter_mlp", "adapter_cross_attention", "without adapters", "box_attention"]
)
def test_opcheck_passes(name, device):
    with torch.device(device):
        operator, arguments = _differentiable()[name]
    torch.library.opcheck(operator, arguments)


def test_opcheck_passes_without_gradients(device):
    with torch.device(device):
        x, scale, bias = torch.randn(3, 64), torch.rand(5) + 0.1, torch.randn(5)
        weight = torch.randint(-8, 8, (5, 64), dtype=torch.int8)
        for activation, residual, out in (
            ("gelu", torch.randn(3, 5), torch.float32),
            (None, None, torch.int32),
        ):
            arguments = (x, weight, scale, bias, 0.1, activation, residual, out)
            torch.library.opcheck(int8_linear_op, arguments)
        arguments = (x, pack_int4(weight), torch.rand(5, 2).half(), None)
        torch.library.opcheck(int4_linear_op, arguments)


class Graphs:
    """A backend that runs graphs as they are, and keeps them."""

    def __init__(self) -> None:
        self.found: list[torch.fx.GraphModule] = []

    def __call__(self, graph, inputs):
        self.found.append(graph)
        return graph.forward

    def operators(self) -> set[str]:
        """Our operators in the one graph there is."""
        (graph,) = self.found
        names = [str(node.target) for node in graph.graph.nodes if node.op == "call_function"]
        return {name.split(".")[1] for name in names if name.startswith("sam3i_edge.")}


@pytest.fixture(scope="module")
def specs(request):
    torch.manual_seed(0)
    model = SAM3I(CONFIG)
    with torch.no_grad():
        for parameter in model.parameters():  # the adapters' last projections start at zero
            nn.init.normal_(parameter, std=0.2)
    return {spec.name: spec for spec in graph_specs(model.eval(), BOXES)}


@pytest.fixture(autouse=True)
def _nothing_compiled():
    torch._dynamo.reset()


def _ask_for_kernels(monkeypatch):
    for module, name, operator in (
        (adapters_module, "adapter_mlp", adapter_mlp),
        (fusion_module, "adapter_cross_attention", adapter_cross_attention),
        (decoder_module, "box_attention", box_attention),
    ):
        monkeypatch.setattr(module, name, partial(operator, implementation="triton"))


@pytest.mark.parametrize("name", ["image_encoder", "text_encoder.complex", "box_encoder", "detector"])
def test_each_part_of_the_model_is_one_graph(specs, name):
    spec, graphs = specs[name], Graphs()
    with torch.no_grad():
        torch.compile(spec.module, backend=graphs)(*spec.inputs.values())
    assert graphs.operators() == set()  # a CPU runs the references


def test_a_compiled_detector_is_one_graph_with_the_kernels_in_it(specs, monkeypatch, launches, device):
    spec, graphs = specs["detector"], Graphs()
    _ask_for_kernels(monkeypatch)
    module = spec.module.to(device)
    inputs = [torch.randn_like(x) if x.is_floating_point() else x for x in spec.inputs.values()]
    inputs = [x.to(device) for x in (*inputs[:-1], torch.tensor([2]))]
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16):
        expected = module(*inputs)
        eager = dict(launches)
        launches.clear()
        found = torch.compile(module, backend=graphs, fullgraph=True)(*inputs)
    assert graphs.operators() == {"adapter_mlp", "adapter_cross_attention", "box_attention"}
    assert dict(launches) == eager
    assert all(map(torch.equal, found, expected))


def test_a_compiled_operator_trains(device):
    """Forward and backward are traced, gradients are those of the eager operator."""
    with torch.device(device):
        tensors = [*_weights(16, 16, 1), *_weights(16, 16)]
        x, gates = torch.randn(1, 5, 16), torch.ones(1, 2)
    tensors = [tensor.to(torch.bfloat16).requires_grad_() for tensor in (x, *tensors)]

    def call(x, *weights):
        return adapter_mlp(x, weights[:6], weights[6:], gates.to(x.dtype), implementation="triton")

    grad = torch.randn_like(tensors[0])
    wanted = torch.autograd.grad(call(*tensors), tensors, grad)
    compiled = torch.compile(call, backend="aot_eager", fullgraph=True)
    found = torch.autograd.grad(compiled(*tensors), tensors, grad)
    assert all(map(torch.equal, found, wanted))


@pytest.mark.parametrize(("slower", "operators"), [([], {"adapter_mlp"}), (["adapter_mlp"], set())])
def test_the_rule_is_a_constant_of_the_graph(slower, operators, monkeypatch, device):
    """As on a GPU, where nothing keeps the kernels from running but what was measured."""
    monkeypatch.setattr(_dispatch, "_obstacle", lambda *_, **__: "")
    monkeypatch.setattr(_dispatch, "MEASURED", {str(_dispatch.capability(device)): {"slower": slower}})
    tensors = (torch.randn(1, 5, 16), *_weights(16, 16, 1), *_weights(16, 16), torch.ones(1, 2))
    x, *weights, gates = (tensor.to(device, torch.bfloat16) for tensor in tensors)
    graphs = Graphs()
    call = torch.compile(adapter_mlp, backend=graphs, fullgraph=True)
    call(x, weights[:6], weights[6:], gates)
    assert graphs.operators() == operators


def test_quantized_layers_stay_in_the_graph(device):
    with torch.device(device):
        x, scale, bias = torch.randn(3, 64), torch.rand(5) + 0.1, torch.randn(5)
        weight = torch.randint(-8, 8, (5, 64), dtype=torch.int8)
        scales = torch.rand(5, 2).half()

    def call(x):
        eight = int8_linear(x, weight, scale, bias, 0.1, implementation="triton")
        return eight + int4_linear(x, pack_int4(weight), scales, bias, "triton")

    graphs = Graphs()
    with torch.no_grad():
        assert torch.equal(torch.compile(call, backend=graphs, fullgraph=True)(x), call(x))
    assert graphs.operators() == {"int8_linear", "int4_linear"}


def test_the_capability_of_a_gpu_is_a_constant_of_the_graph(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    device = torch.device("cuda")
    graphs = Graphs()
    compiled = torch.compile(lambda x: x + _dispatch.capability(device), backend=graphs, fullgraph=True)
    assert compiled(torch.zeros(1)).item() == 90
