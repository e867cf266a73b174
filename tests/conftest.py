"""Settings of every test run, and fixtures that several test files share."""

from __future__ import annotations

import importlib.util
import os
import random
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read once, when huggingface_hub is imported

import hypothesis
import numpy as np
import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # kernels run on the CPU, in Triton's interpreter

torch.set_num_threads(2)
torch.use_deterministic_algorithms(True)  # fills torch.empty with NaN too: what is left unwritten shows
hypothesis.settings.register_profile("sam3i-edge", derandomize=True, deadline=None)
hypothesis.settings.load_profile("sam3i-edge")


@pytest.fixture(autouse=True)
def _seeds() -> None:
    """Starts every test from the same global generators, whatever ran before it."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


def _load(name: str):
    """Loads a module that lies beside this file; the tests are no package, and may run from anywhere."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def write_tiny_bundle():
    """The function that writes a bundle of tiny graphs: `write_tiny_bundle(folder, boxes=0) -> Bundle`."""
    return _load("tiny_bundle").write_tiny_bundle


@pytest.fixture(scope="session")
def tiny_bundle(write_tiny_bundle, tmp_path_factory):
    """A bundle of tiny graphs, shared: not to be changed."""
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture(scope="session")
def tiny_box_bundle(write_tiny_bundle, tmp_path_factory):
    """The same graphs with three slots for boxes, shared: not to be changed."""
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny-boxes", boxes=3)


@pytest.fixture(scope="session")
def fakes():
    """The module of stand-ins for NVIDIA's libraries."""
    return _load("nvidia_fakes")
