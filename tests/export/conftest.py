"""One small model, exported once for all export tests: tracing takes seconds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from sam3i_edge.agreement import LIMITS, Agreement, Limits, model_pairs
from sam3i_edge.bundle.folder import Bundle
from sam3i_edge.bundle.manifest import Manifest
from sam3i_edge.data.instructions import corpus
from sam3i_edge.export.float_bundle import export_bundle
from sam3i_edge.model.config import ModelConfig
from sam3i_edge.model.sam3i import SAM3I, adapter_of
from sam3i_edge.model.weights import save_weights
from sam3i_edge.pipeline.tokenizer import train_bpe
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
    encoder_layers=1,
    decoder_layers=2,
    num_queries=9,
    geometry_layers=1,
    roi_size=3,
    adapter_dim=8,
    max_detections=6,
)

BOX_SLOTS = 3


@dataclass(frozen=True)
class Exported:
    model: SAM3I
    run: Path
    bundle: Path
    manifest: Manifest
    agreement: Agreement


def random_model() -> SAM3I:
    """Random weights, adapters included, whose scores spread around the threshold."""
    torch.manual_seed(0)
    model = SAM3I(CONFIG).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if adapter_of(name):
                parameter.add_(torch.randn_like(parameter) * 0.2)
        model.detector.scoring.query_proj.weight.mul_(30)
        model.detector.decoder.presence_head.layers[-1].bias.fill_(4.0)
    return model


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    run = tmp_path_factory.mktemp("run")
    model = random_model()
    save_weights(model, run / "weights")
    train_bpe(corpus(1, 400), CONFIG.vocab_size, run / "tokenizer.json")
    terms = run / "LICENSE"
    terms.write_text("terms")
    out = run.parent / "bundle"
    manifest, agreement = export_bundle(run, out, name="tiny", license_file=terms, pairs=24)
    return Exported(model, run, out, manifest, agreement)


@pytest.fixture(scope="session")
def exported_with_boxes(exported: Exported) -> Exported:
    """The same model with three box slots."""
    out = exported.bundle.with_name("bundle-with-boxes")
    terms = exported.run / "LICENSE"
    manifest, agreement = export_bundle(
        exported.run, out, name="tiny", license_file=terms, pairs=12, boxes=BOX_SLOTS
    )
    return Exported(exported.model, exported.run, out, manifest, agreement)


@pytest.fixture(scope="session")
def packages(exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model as Core ML packages in float16."""
    pytest.importorskip("coremltools")
    from sam3i_edge.export.coreml.package import PackageOptions, export_mlpackage

    folder = tmp_path_factory.mktemp("coreml")
    options = PackageOptions(name="tiny", author="somebody", license="terms")
    export_mlpackage(exported.run / "weights", CONFIG, folder, options)
    return folder


# What random weights of 32 channels keep when they are rounded; trained ones keep LIMITS.
ROUGH = Limits(same_count=0.5, mean_iou=0.5, min_iou=0.0, score=None, box_px=None)


@dataclass(frozen=True)
class Quantized:
    bundle: Bundle
    spec: QuantSpec
    report: dict[str, Any]
    told: list[str]


@pytest.fixture(scope="session")
def quantized(exported: Exported) -> Quantized:
    """The exported bundle with an int8 variant."""
    from sam3i_edge.export.quantized_bundle import quantize_bundle
    from sam3i_edge.quantize.recipes import RECIPES

    out = exported.bundle.with_name("bundle-int8")
    told: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(LIMITS, "int8", ROUGH)
        _, _, report = quantize_bundle(
            Bundle.open(exported.bundle),
            out,
            RECIPES["int8"],
            calibration=model_pairs(32, CONFIG, seed=1),
            pairs=24,
            sensitivity=False,
            progress=lambda sentence, _: told.append(sentence),
        )
    return Quantized(Bundle.open(out), QuantSpec.load(out / "quant" / "int8.safetensors"), report, told)
