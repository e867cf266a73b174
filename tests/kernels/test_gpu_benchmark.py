"""The GPU benchmark's cases at small sizes: that it starts, and that its check of answers can fail."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from sam3i_edge.kernels._dispatch import LAUNCHES

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "test_kernels.py"


@pytest.fixture(scope="module")
def benchmark_module():
    spec = importlib.util.spec_from_file_location("gpu_benchmark", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.mark.parametrize("operator", ["adapter_mlp", "adapter_cross_attention", "box_attention"])
def test_every_case_agrees_with_its_definition(benchmark_module, operator, monkeypatch):
    torch.manual_seed(0)
    for name, size in (("QUERIES", 7), ("CHANNELS", 64), ("HEADS", 2), ("WIDTH", 16), ("PROMPT", 9)):
        monkeypatch.setattr(benchmark_module, name, size)
    case = benchmark_module.CASES[operator](1, torch.float16, "cpu", tokens=16)
    LAUNCHES.clear()
    benchmark_module._check("Triton", case.kernel, case)
    assert sum(LAUNCHES.values()) >= 2
    assert case.floor > 0

    def off(*tensors):
        outputs = case.reference(*tensors)
        return tuple(1.1 * t for t in outputs) if isinstance(outputs, tuple) else 1.1 * outputs

    with pytest.raises(AssertionError, match="wrong: output or gradient 0 is off by"):
        benchmark_module._check("wrong", off, case)


@torch.no_grad()
def test_quantized_layers_agree_with_the_float_layer(benchmark_module):
    torch.manual_seed(0)
    kernels, layers = benchmark_module.linear_contenders(3, 64, 48, torch.float16, "cpu")
    for operator, kernel in kernels.items():
        expected = layers[operator]().float()
        error = (kernel().float() - expected).norm() / expected.norm()
        assert error < benchmark_module.QUANTIZED_TOLERANCE, operator
