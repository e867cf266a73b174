"""A bundle that can be quantized and trained on: float weights beside graphs that nobody asks here."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sam3i_edge.bundle.folder import Bundle
from sam3i_edge.bundle.manifest import Preprocessing
from sam3i_edge.bundle.writing import new_bundle
from sam3i_edge.devices import machine
from sam3i_edge.model.sam3i import SAM3I, adapter_of
from sam3i_edge.model.weights import save_weights
from sam3i_edge.train import presets

_spec = importlib.util.spec_from_file_location("tiny", Path(__file__).parents[1] / "train" / "tiny.py")
tiny = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(tiny)


@pytest.fixture(scope="session")
def float_bundle(tiny_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    torch.manual_seed(0)
    model = SAM3I(tiny.TINY)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if adapter_of(name):
                parameter.add_(torch.randn_like(parameter) * 0.2)
        model.detector.scoring.query_proj.weight.mul_(20)
        model.detector.decoder.presence_head.layers[-1].bias.fill_(4.0)
    out = tmp_path_factory.mktemp("float") / "bundle"
    with new_bundle(out, base=tiny_bundle) as folder:
        save_weights(model, folder.path / "weights")
        folder.finish(
            variants={},
            model=tiny.TINY.to_dict(),
            preprocessing=Preprocessing(image_size=tiny.TINY.image_size),
        )
    return Bundle.open(out)


@pytest.fixture
def light_training(monkeypatch):
    """`light_training(preset={...})`: presets whose validation takes no time, on one thread, with changes."""

    def lighten(**changes):
        monkeypatch.setattr(machine, "usable_cores", lambda: 1)
        for name in ("distillation", "fine_tuning", "quantization_aware"):
            monkeypatch.setattr(presets, name, lighter(getattr(presets, name), changes.get(name, {})))

    def lighter(plan, changed):
        return lambda *given, **options: replace(
            plan(*given, **options), validation_batches=1, workers=0, **changed
        )

    return lighten
