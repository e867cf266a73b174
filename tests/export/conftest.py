"""Fixtures of the export tests, beside those of tests/conftest.py."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

from sam3i_edge.agreement import Pair
from sam3i_edge.bundle.folder import Bundle
from sam3i_edge.export.onnx.graph_file import write_graph
from sam3i_edge.model.graph_specs import graph_specs
from sam3i_edge.quantize.ptq import Prepared
from sam3i_edge.quantize.recipes import RECIPES
from sam3i_edge.quantize.spec import QuantSpec

FOUR_BITS = ("image_encoder", "text_encoder.simple", "detector")


@pytest.fixture(scope="session")
def four_bits(exported, calibration: list[Pair], made_once) -> tuple[QuantSpec, dict[str, Path]]:
    """Recipe int4 in ONNX, three graphs of it."""

    def make(folder: Path) -> None:
        bundle = Bundle.open(exported.bundle)
        tokenizer = bundle.tokenizer()
        spec = Prepared(
            copy.deepcopy(exported.model),
            RECIPES["int4"],
            calibration,
            lambda text: tokenizer.encode(text).ids,
            bundle.manifest.preprocessing,
        ).quantize()
        spec.save(folder / "int4.safetensors")
        offsets = {}
        for graph in graph_specs(spec.build(exported.model.config)):
            if graph.name in FOUR_BITS:
                offsets = write_graph(graph, folder, offsets, quantized=spec)

    folder = made_once("int4", make)
    return QuantSpec.load(folder / "int4.safetensors"), {name: folder / f"{name}.onnx" for name in FOUR_BITS}


@pytest.fixture(scope="session")
def packages(exported, made_once) -> Path:
    """The same model as Core ML packages in float16."""
    pytest.importorskip("coremltools")
    from sam3i_edge.export.coreml.package import PackageOptions, export_mlpackage

    def make(folder: Path) -> None:
        options = PackageOptions(name="tiny", author="somebody", license="terms")
        export_mlpackage(exported.run / "weights", exported.model.config, folder, options)

    return made_once("coreml", make)
