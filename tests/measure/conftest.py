"""Results without measuring, and bundles whose variants go wrong."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from sam3i_edge.bundle.folder import Bundle
from sam3i_edge.bundle.writing import new_bundle
from sam3i_edge.devices.machine import Machine
from sam3i_edge.measure import runner
from sam3i_edge.measure.schema import (
    END_TO_END,
    INSTRUCTION,
    STEPS,
    Accuracy,
    Conditions,
    Results,
    Row,
)
from sam3i_edge.measure.statistics import latency

SMALL = {"queries": 8, "seconds": 0, "pairs": 6, "starts": 1, "scenes": 2}
CALM = Conditions(utc="2026-01-01T00:00:00+00:00", load=0.1, celsius=None, megahertz=None, governor=None)


@pytest.fixture
def small_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the quick budget a tiny one."""
    monkeypatch.setitem(runner.BUDGETS, "quick", SMALL)


@pytest.fixture
def make_row() -> Callable[..., Row]:
    """A measured row: `make_row(precision, giou, ms, level=...)`; its samples jitter by 1 %."""

    def make(precision: str = "fp32", giou: float = 0.8, ms: float = 10, **changes: Any) -> Row:
        rng = np.random.default_rng(len(precision))
        samples = ms * rng.normal(1, 0.01, 64)
        fields: dict[str, Any] = {
            "model": "tiny", "variant": f"onnx-{precision}", "device": "cpu", "runtime": "onnxruntime",
            "precision": precision, "level": "simple", "status": "ok",
            "size_bytes": 1_000_000, "image_size": 224,
            "reference": precision == "fp32", "before": CALM, "after": CALM, "stable": True, "slowed": False,
            "agreement": {"mean_iou": 1.0, "min_iou": 1.0},
            "accuracy": Accuracy(pairs=4, giou=giou, p_at_50=0.9, presence=1.0),
            "latency": {
                **{step: latency(samples / len(STEPS)) for step in STEPS},
                INSTRUCTION: latency(samples * 0.6),
                END_TO_END: latency(samples),
            },
            "throughput": 1000 / ms, "peak_memory_bytes": 100 << 20, "cold_start_ms": (500.0,),
        }  # fmt: skip
        return Row.model_validate({**fields, **changes})

    return make


@pytest.fixture
def make_results() -> Callable[..., Results]:
    """Results of given rows on a calm machine."""

    def make(*rows: Row, **changes: Any) -> Results:
        fields: dict[str, Any] = {
            "complete": True, "started": CALM, "finished": CALM, "rows": rows, "commit": "abc",
            "machine": Machine(
                processor="a <chip>", architecture="x86_64", system="Linux 6", cores=2,
                memory_bytes=8 << 30, available_bytes=4 << 30, features={"AVX2": True, "AVX-512": False},
            ),
            "versions": {"python": "3.11.7", "sam3i-edge": "0.1.0"},
            "settings": runner.settings("quick", 2, None),
        }  # fmt: skip
        return Results.model_validate({**fields, **changes})

    return make


@pytest.fixture
def wrong_bundle(tiny_bundle: Bundle, tmp_path: Path) -> Bundle:
    """The tiny bundle with an "int8" variant whose masks are of something else."""
    base = tiny_bundle.manifest.variants["onnx-fp32"]
    with new_bundle(tmp_path / "wrong", base=tiny_bundle) as made:
        shutil.copytree(tiny_bundle.root / "onnx-fp32", made.path / "onnx-int8")
        path = made.path / "onnx-int8" / "detector.onnx"
        model = onnx.load(path)
        (queries,) = (one for one in model.graph.initializer if one.name == "queries")
        queries.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(queries), "queries"))
        path.with_suffix(".data").unlink(missing_ok=True)
        onnx.save(model, path)
        graphs = {name: file.replace("onnx-fp32", "onnx-int8") for name, file in base.graphs.items()}
        changed = base.model_copy(update={"precision": "int8", "graphs": graphs})
        made.finish(variants={"onnx-int8": changed})
    return Bundle.open(tmp_path / "wrong")
