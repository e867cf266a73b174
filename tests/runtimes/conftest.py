"""Fixtures of the runtimes' tests."""

from __future__ import annotations

import pytest

from sam3i_edge.runtimes import open_runtime


@pytest.fixture
def text_encoder(tiny_bundle):
    return tiny_bundle.graphs("onnx-fp32")["text_encoder.simple"]


@pytest.fixture
def runtime(text_encoder):
    return open_runtime("onnxruntime", text_encoder, "cpu", threads=1)
