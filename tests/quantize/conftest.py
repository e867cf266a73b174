"""A model small enough to be quantized in a second, and what it is asked."""

from __future__ import annotations

import copy
import functools
import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sam3i_edge.agreement import Pair, model_pairs
from sam3i_edge.bundle.manifest import Preprocessing
from sam3i_edge.model.config import ModelConfig
from sam3i_edge.model.sam3i import SAM3I, adapter_of
from sam3i_edge.quantize.ptq import Prepared
from sam3i_edge.quantize.recipes import RECIPES
from sam3i_edge.quantize.spec import QuantSpec

_spec = importlib.util.spec_from_file_location("tiny", Path(__file__).parents[1] / "train" / "tiny.py")
tiny = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(tiny)

PREPROCESSING = Preprocessing(image_size=tiny.TINY.image_size)


@pytest.fixture(scope="session")
def config() -> ModelConfig:
    return tiny.TINY


@pytest.fixture(scope="session")
def encode():
    return tiny.words


@pytest.fixture(scope="session")
def preprocessing() -> Preprocessing:
    return PREPROCESSING


@pytest.fixture(scope="session")
def pairs() -> list[Pair]:
    """More than eight images, all levels."""
    return model_pairs(32, tiny.TINY, seed=1)


@pytest.fixture(scope="session")
def _float_model() -> SAM3I:
    """Random weights whose scores spread around the threshold; norms and adapters all do something."""
    torch.manual_seed(0)
    model = SAM3I(tiny.TINY).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if adapter_of(name):
                parameter.add_(torch.randn_like(parameter) * 0.2)
            elif "norm" in name:
                parameter.mul_(torch.rand_like(parameter) + 0.5).add_(torch.randn_like(parameter) * 0.1)
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(std=0.1)
                module.running_var.uniform_(0.5, 2.0)
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(std=0.1)
        model.detector.scoring.query_proj.weight.mul_(20)
        model.detector.decoder.presence_head.layers[-1].bias.fill_(4.0)
    return model.requires_grad_(False)


@pytest.fixture
def model(_float_model: SAM3I) -> SAM3I:
    """A copy for one test."""
    return copy.deepcopy(_float_model)


@pytest.fixture(scope="session")
def prepared(_float_model, pairs, encode) -> Callable[[str], Prepared]:
    """Recipe name -> the model made ready; not to be changed."""

    @functools.cache
    def ready(recipe: str) -> Prepared:
        return Prepared(copy.deepcopy(_float_model), RECIPES[recipe], pairs, encode, PREPROCESSING)

    return ready


@pytest.fixture(scope="session")
def spec(prepared) -> Callable[[str], QuantSpec]:
    """Recipe name -> quantized model; not to be changed."""
    return functools.cache(lambda recipe: prepared(recipe).quantize())
