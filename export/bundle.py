"""A trained model to a bundle: weights, tokenizer, licence, and a verified variant."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import torch

from sam3i_edge import __version__
from sam3i_edge.bundle import new_bundle
from sam3i_edge.errors import ExportError
from sam3i_edge.export.onnx_graph import export_onnx
from sam3i_edge.export.parity import Agreement, FileRunner, answers, check, compare, drawn_pairs, torch_runner
from sam3i_edge.manifest import License, Manifest, Preprocessing, Thresholds, TokenizerSpec, Variant
from sam3i_edge.model.config import ModelConfig
from sam3i_edge.model.sam3i import SAM3I
from sam3i_edge.tokenizer import SPECIAL_TOKENS, Tokenizer
from sam3i_edge.train.checkpoint import load_weights, read_model_json, save_weights

PARITY_PAIRS = 240
_VARIANT = "onnx-fp32"


def load_model(weights: Path) -> SAM3I:
    """Opens what training wrote: `model.json` and `*.safetensors`.

    Raises:
        ExportError: the sizes are malformed.
        TrainingError: a file is missing, damaged, or does not fit.
    """
    values = read_model_json(weights)
    if not isinstance(values, dict):
        raise ExportError(
            f"{weights / 'model.json'} holds a {type(values).__name__}, want an object of sizes"
        )
    model = SAM3I(ModelConfig.from_dict(values))
    load_weights(model, weights)
    return model.eval()


def export_bundle(
    run: Path,
    out: Path,
    *,
    name: str,
    license_file: Path,
    license_name: str = "Apache-2.0",
    threshold: float = 0.5,
    pairs: int = PARITY_PAIRS,
    overwrite: bool = False,
    progress: Callable[[str], None] | None = None,
) -> tuple[Manifest, Agreement]:
    """Exports a training run as a bundle with an fp32 ONNX variant.

    The graphs are run against the model on `pairs` drawn (image, instruction) pairs before anything is named
    finished; a variant that misses the fp32 limits leaves nothing behind.

    Args:
        run: folder of a run: `weights/` and `tokenizer.json`.
        out: folder of the bundle.
        name: of the model.
        license_file: terms of the weights; copied in.
        license_name: their short name.
        threshold: default least score, 0..1.
        pairs: at least 1; 200 or more for a release.
        overwrite: replace `out` when it is a bundle.
        progress: called with a word on each step.

    Returns:
        The manifest and the agreement.

    Raises:
        ExportError: nothing to compare. ParityError: the graphs disagree with the model.
        ArtifactError: `out` may not be written. TrainingError: `run` cannot be read.
    """
    tell = progress or (lambda _: None)
    for needed in (run / "weights" / "model.json", run / "tokenizer.json", license_file):
        if not needed.is_file():
            raise ExportError(f"{needed} is missing: give the folder of a training run and a licence file")
    model = load_model(run / "weights")
    config = model.config
    start, end = SPECIAL_TOKENS.index("<start>"), SPECIAL_TOKENS.index("<end>")
    with new_bundle(out, overwrite=overwrite) as folder:
        shutil.copyfile(run / "tokenizer.json", folder.path / "tokenizer.json")
        shutil.copyfile(license_file, folder.path / "LICENSE")
        tokenizer = Tokenizer.from_file(
            folder.path / "tokenizer.json", config.text_context, start_id=start, end_id=end
        )
        save_weights(model, folder.path / "weights")
        variant = folder.path / _VARIANT
        variant.mkdir()
        files = export_onnx(model, variant, lambda graph: tell(f"exporting {graph}"))
        tell(f"comparing {pairs} pairs with the model")
        agreement = _verify(model, {g: variant / f for g, f in files.items()}, tokenizer, threshold, pairs)
        manifest = folder.finish(
            name=name,
            model=config.to_dict(),
            preprocessing=Preprocessing(image_size=config.image_size),
            tokenizer=TokenizerSpec(context_length=config.text_context, start_id=start, end_id=end),
            thresholds=Thresholds(score=threshold),
            license=License(name=license_name),
            provenance=_provenance(model),
            variants={
                _VARIANT: Variant(
                    runtime="onnxruntime",
                    precision="fp32",
                    graphs={graph: f"{_VARIANT}/{file}" for graph, file in files.items()},
                    agreement=agreement.to_dict(),
                    versions={
                        "sam3i-edge": __version__,
                        **{p: version(p) for p in ("torch", "onnx", "onnxscript", "onnxruntime")},
                    },
                )
            },
        )
    return manifest, agreement


def _verify(
    model: SAM3I, paths: dict[str, Path], tokenizer: Tokenizer, threshold: float, count: int
) -> Agreement:
    pairs = drawn_pairs(count)
    spec = Preprocessing(image_size=model.config.image_size)
    runner = FileRunner(paths, "onnxruntime")
    try:
        agreement = compare(
            list(answers(torch_runner(model), pairs, tokenizer, spec, threshold)),
            list(answers(runner, pairs, tokenizer, spec, threshold)),
        )
    finally:
        runner.close()
    check(agreement, "fp32")
    return agreement


def _provenance(model: SAM3I) -> dict[str, str | int | float]:
    parameters = sum(p.numel() for p in model.parameters())
    return {"parameters": parameters, "torch": torch.__version__}
