"""Fixtures of the runtimes' tests."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from sam3i_edge.runtimes import open_runtime


@pytest.fixture(scope="session")
def fakes():
    """The module of stand-ins for NVIDIA's libraries, which lies beside this file."""
    spec = importlib.util.spec_from_file_location("fakes", Path(__file__).with_name("fakes.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def text_encoder(tiny_bundle):
    return tiny_bundle.graphs("onnx-fp32")["text_encoder.simple"]


@pytest.fixture
def runtime(text_encoder):
    return open_runtime("onnxruntime", text_encoder, "cpu", threads=1)
