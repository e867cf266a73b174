from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

from sam3i_edge.model.config import PRESETS, ModelConfig
from sam3i_edge.train.run_config import TrainConfig

_spec = importlib.util.spec_from_file_location("tiny", Path(__file__).with_name("tiny.py"))
tiny = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(tiny)


@pytest.fixture(scope="session")
def encode():
    return tiny.words


@pytest.fixture(scope="session")
def tiny_model() -> Iterator[ModelConfig]:
    """The sizes of preset "tiny", which is there for these tests."""
    PRESETS["tiny"] = tiny.TINY
    yield tiny.TINY
    del PRESETS["tiny"]


@pytest.fixture(scope="session")
def tiny_run(tiny_model) -> TrainConfig:
    return tiny.tiny_config()
