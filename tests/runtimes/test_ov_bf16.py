"""bfloat16 in OpenVINO runs only where a graph's precision names it, and never silently as something else."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sam3i_edge.errors import ExportError, RuntimeUnavailable
from sam3i_edge.runtimes import open_runtime

openvino = pytest.importorskip("openvino")

WIDE = 64


def _graph(path: Path, precision: str | None) -> Path:
    ops = openvino.opset13
    x = ops.parameter([WIDE, WIDE], np.float32, name="x")
    weight = np.random.default_rng(0).normal(size=(WIDE, WIDE)).astype(np.float32)
    product = ops.matmul(x, ops.constant(weight), False, False)
    product.output(0).set_names({"y"})
    x.output(0).set_names({"x"})
    model = openvino.Model([product], [x], "product")
    if precision is not None:
        model.set_rt_info(precision, ["sam3i_edge", "precision"])
    openvino.save_model(model, path, compress_to_fp16=False)
    return path


def _has_bf16() -> bool:
    from sam3i_edge.runtimes.ov import shared_core

    return "BF16" in shared_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@pytest.mark.parametrize("precision", [None, "fp32", "int8"])
def test_other_precisions_stay_float32(precision: str | None, tmp_path: Path) -> None:
    runtime: Any = open_runtime("openvino", _graph(tmp_path / "g.xml", precision), "cpu", threads=1)
    assert runtime.settings.precision == "f32"


@pytest.mark.skipif(not _has_bf16(), reason="this processor has no bfloat16 instructions")
def test_a_graph_that_names_bfloat16_computes_in_it(tmp_path: Path) -> None:
    named: Any = open_runtime("openvino", _graph(tmp_path / "b.xml", "int8-bf16"), "cpu", threads=1)
    exact = open_runtime("openvino", _graph(tmp_path / "f.xml", "int8"), "cpu", threads=1)
    assert named.settings.precision == "bf16"
    x = np.random.default_rng(1).normal(size=(WIDE, WIDE)).astype(np.float32)
    a, b = named.run({"x": x})["y"], exact.run({"x": x})["y"]
    error = np.abs(a - b).max() / np.abs(b).max()
    assert 1e-4 < error < 2e-2  # 8 bits of mantissa, and not 24


def test_a_processor_without_bfloat16_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ask = openvino.Core.get_property

    def without(self: Any, device: str, name: str, *rest: Any) -> Any:
        found = ask(self, device, name, *rest)
        return [one for one in found if one != "BF16"] if name == "OPTIMIZATION_CAPABILITIES" else found

    monkeypatch.setattr(openvino.Core, "get_property", without)
    with pytest.raises(RuntimeUnavailable, match=r"bfloat16 instructions.*ask for precision='int8'"):
        open_runtime("openvino", _graph(tmp_path / "g.xml", "int8-bf16"), "cpu", threads=1)


def test_only_openvino_is_exported_with_bfloat16(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from sam3i_edge.export import variants

    gate = SimpleNamespace(compared=None)
    row, refused = variants._write(tmp_path, gate, "onnx", "int8-bf16", {})  # type: ignore[arg-type]
    assert isinstance(refused, ExportError)
    assert row.status == str(refused)
    assert row.status.startswith("onnx has no int8-bf16, only fp32")
