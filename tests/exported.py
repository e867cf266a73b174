"""A small model with random weights, exported and quantized once a test run: tracing takes seconds."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from sam3i_edge.agreement import LIMITS, Agreement, Limits, Pair
from sam3i_edge.bundle.folder import Bundle
from sam3i_edge.bundle.manifest import Manifest
from sam3i_edge.data.annotations import write_scenes
from sam3i_edge.data.corpus import corpus
from sam3i_edge.data.vocabulary import load_vocabulary
from sam3i_edge.export.float_bundle import export_bundle
from sam3i_edge.export.onnx import graph_file, onnx_variant
from sam3i_edge.export.quantized_bundle import quantize_bundle
from sam3i_edge.model.config import ModelConfig
from sam3i_edge.model.sam3i import SAM3I, adapter_of
from sam3i_edge.model.weights import save_weights
from sam3i_edge.pipeline.tokenizer import train_bpe
from sam3i_edge.quantize.recipes import RECIPES
from sam3i_edge.quantize.recorded_pairs import recorded_pairs
from sam3i_edge.quantize.spec import QuantSpec

CONFIG = ModelConfig(
    image_size=64,
    backbone="conv",
    conv_widths=(8, 8, 16, 16),
    text_width=32,
    text_layers=1,
    text_heads=4,
    text_mlp_dim=64,
    vocab_size=300,
    d_model=32,
    n_heads=4,
    ffn_dim=64,
    mask_detail=4,
    encoder_layers=1,
    decoder_layers=2,
    num_queries=9,
    geometry_layers=1,
    roi_size=3,
    adapter_dim=8,
    max_detections=6,
)

BOX_SLOTS = 3
# What random weights of 32 channels keep when they are rounded; trained ones keep LIMITS.
ROUGH = Limits(same_count=0.5, mean_iou=0.5, min_iou=0.0, score=None, box_px=None)


@dataclass(frozen=True)
class Exported:
    """A folder of `export` or `export_with_boxes`, opened."""

    model: SAM3I
    run: Path
    bundle: Path
    manifest: Manifest
    agreement: Agreement

    @classmethod
    def open(cls, folder: Path, run: Path) -> Exported:
        bundle = folder / "bundle"
        agreement = Agreement(**json.loads((folder / "agreement.json").read_text()))
        return cls(random_model(), run, bundle, Bundle.open(bundle).manifest, agreement)


@dataclass(frozen=True)
class Quantized:
    """A folder of `quantize`, opened."""

    bundle: Bundle
    spec: QuantSpec
    report: dict[str, Any]
    told: list[str]

    @classmethod
    def open(cls, folder: Path) -> Quantized:
        bundle = Bundle.open(folder / "bundle")
        spec = QuantSpec.load(bundle.root / "quant" / "int8.safetensors")
        return cls(bundle, spec, *json.loads((folder / "told.json").read_text()))


def random_model() -> SAM3I:
    """Random weights, adapters included, whose scores spread around the threshold."""
    torch.manual_seed(0)
    model = SAM3I(CONFIG).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if adapter_of(name):
                parameter.add_(torch.randn_like(parameter) * 0.2)
        model.detector.scoring.query_proj.weight.mul_(30)
        model.detector.mask_decoder.detail.query_proj.weight.normal_(0, 0.3)  # it starts as nothing
        model.detector.decoder.presence_head.layers[-1].bias.fill_(4.0)
    return model


def draw_scenes(folder: Path) -> None:
    """Twelve annotated pictures."""
    write_scenes(folder, count=12, seed=0)


def read_pairs(scenes: Path) -> list[Pair]:
    """What `quantize --data` makes of annotated pictures."""
    return recorded_pairs(scenes)


def reuse_graphs(patch: pytest.MonkeyPatch, bundle: Bundle, variant: str) -> None:
    """ONNX graphs are copied from a bundle from now on, not traced."""

    def export_onnx(source, config, folder: Path, *arguments: object, **options: object) -> dict[str, str]:
        shutil.copytree(bundle.root / variant, folder, dirs_exist_ok=True)
        return {graph: path.name for graph, path in bundle.graphs(variant).items()}

    patch.setattr(onnx_variant, "export_onnx", export_onnx)


def export(folder: Path) -> None:
    """A training run in `run/`, and its bundle."""
    run = folder / "run"
    save_weights(random_model(), run / "weights")
    train_bpe(corpus(1, 400, [load_vocabulary("shapes")]), CONFIG.vocab_size, run / "tokenizer.json")
    (run / "LICENSE").write_text("terms")
    _export(run, folder, pairs=24)


def export_with_boxes(folder: Path, exported: Exported) -> None:
    """A bundle of the same model with three box slots; graphs that have none are copied, not traced anew."""
    trace, shared = graph_file.export_graph, exported.bundle / "onnx-fp32"

    def export_graph(source, config, place, boxes, graph, offsets, half):
        if graph in ("detector", "box_encoder"):
            return trace(source, config, place, boxes, graph, offsets, half)
        for file in (f"{graph}.onnx", graph_file.DATA_FILE):
            shutil.copyfile(shared / file, place / file)
        return offsets

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graph_file, "export_graph", export_graph)
        _export(exported.run, folder, pairs=12, boxes=BOX_SLOTS)


def _export(run: Path, folder: Path, **options: int) -> None:
    _, agreement = export_bundle(run, folder / "bundle", name="tiny", license_file=run / "LICENSE", **options)
    (folder / "agreement.json").write_text(json.dumps(asdict(agreement)))


def quantize(folder: Path, exported: Exported, calibration: Sequence[Pair]) -> None:
    """The exported bundle with an int8 variant."""
    told: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(LIMITS, "int8", ROUGH)
        _, _, report = quantize_bundle(
            Bundle.open(exported.bundle),
            folder / "bundle",
            RECIPES["int8"],
            calibration=calibration,
            pairs=24,
            sensitivity=False,
            progress=lambda sentence, _: told.append(sentence),
        )
    (folder / "told.json").write_text(json.dumps([report, told]))
