"""Quantized models of a bundle: made after training, or taken from it, each with a variant that passed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam3i_edge.agreement import Pair, model_pairs
from sam3i_edge.bundle.folder import Bundle
from sam3i_edge.bundle.manifest import Manifest
from sam3i_edge.errors import ArtifactError, ExportError
from sam3i_edge.export.gate import LARGE, PARITY_PAIRS
from sam3i_edge.export.variants import Quantizer, VariantRow, add_variants
from sam3i_edge.model.sam3i import adapter_of
from sam3i_edge.model.weights import load_model, read_config
from sam3i_edge.quantize.calibration import CALIBRATION_PAIRS
from sam3i_edge.quantize.ptq import Prepared
from sam3i_edge.quantize.recipes import Recipe
from sam3i_edge.quantize.sensitivity import Questions, Trials
from sam3i_edge.quantize.spec import QuantSpec
from sam3i_edge.runtimes import Progress, untold

# Seeds of drawn pairs.
_GATE, _CALIBRATION, _TRIALS = 0, 1, 2
_LIMIT_PAIRS = 120  # of the trials that choose what stays float
_LOSS_PAIRS = 24  # of the trials of single layers


def quantize_bundle(
    bundle: Bundle,
    out: Path,
    recipe: Recipe,
    *,
    calibration: Sequence[Pair] | None = None,
    calibration_pairs: int = CALIBRATION_PAIRS,
    pairs: int = PARITY_PAIRS,
    keep_float: Sequence[str] = (),
    balanced: bool = True,
    sensitivity: bool | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> tuple[Manifest, VariantRow, Mapping[str, Any]]:
    """Quantizes a bundle's float weights and adds the ONNX variant that the recipe names.

    Args:
        bundle: with float weights.
        out: folder of the bundle to write.
        recipe: what to quantize, and how.
        calibration: pairs to measure activations on; None draws them.
        calibration_pairs: how many are drawn; 36 are the fewest that have images enough.
        pairs: of the gate; at least 200 for a release.
        keep_float: patterns of layer names that stay float, beside the recipe's.
        balanced: balance channels, see `sam3i_edge.quantize.balance`.
        sensitivity: measure what each layer costs; as in `post_training`.
        overwrite: replace `out` when it is a bundle.
        progress: called with a sentence on each step, and the share of it that is done.

    Returns:
        The manifest, the row of the variant, and the report, which lies in `quant/<recipe>.report.json` too.

    Raises:
        ParityError: the variant disagrees even so; the message names the worst pair and its picture.
        ExportError, ValueError: as in `post_training`; or integers differ after export.
        ArtifactError: the bundle has no float weights, or `out` may not be written.
    """
    return _add_onnx(
        bundle,
        out,
        recipe.name,
        lambda: post_training(
            bundle, recipe, calibration=calibration, calibration_pairs=calibration_pairs, pairs=pairs,
            keep_float=keep_float, balanced=balanced, sensitivity=sensitivity, progress=progress,
        ),
        pairs,
        overwrite,
        progress,
    )  # fmt: skip


def add_quantized(
    bundle: Bundle,
    out: Path,
    file: Path,
    *,
    pairs: int = PARITY_PAIRS,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> tuple[Manifest, VariantRow, Mapping[str, Any]]:
    """Adds a quantized model that exists already: what quantization-aware training wrote.

    The float model that it is compared with is the bundle's.

    Args:
        bundle: with the float weights that training started from.
        out: folder of the bundle to write.
        file: of the `QuantSpec`.
        pairs: of the gate.
        overwrite: replace `out` when it is a bundle.
        progress: called with a sentence on each step, and the share of it that is done.

    Returns:
        The manifest, what became of the variant, and the notes of the quantized model.

    Raises:
        ParityError, ExportError, ArtifactError: as in `quantize_bundle`.
    """
    spec = QuantSpec.load(file)
    return _add_onnx(bundle, out, spec.recipe, lambda: (spec, spec.notes), pairs, overwrite, progress)


def _add_onnx(
    bundle: Bundle,
    out: Path,
    recipe: str,
    quantizer: Quantizer,
    pairs: int,
    overwrite: bool,
    progress: Progress | None,
) -> tuple[Manifest, VariantRow, Mapping[str, Any]]:
    """Adds one quantized model and its ONNX variant, or raises what is wrong with it."""
    reports: list[Mapping[str, Any]] = []

    def noted() -> tuple[QuantSpec, Mapping[str, Any]]:
        spec, report = quantizer()
        reports.append(report)
        return spec, report

    manifest, (row,) = add_variants(
        bundle, out, ["onnx"], [recipe], quantizers={recipe: noted}, pairs=pairs, overwrite=overwrite,
        progress=progress,
    )  # fmt: skip
    return manifest, row, reports[0]


def post_training(
    bundle: Bundle,
    recipe: Recipe,
    *,
    calibration: Sequence[Pair] | None = None,
    calibration_pairs: int = CALIBRATION_PAIRS,
    pairs: int = PARITY_PAIRS,
    keep_float: Sequence[str] = (),
    balanced: bool = True,
    sensitivity: bool | None = None,
    progress: Progress | None = None,
) -> tuple[QuantSpec, Mapping[str, Any]]:
    """Quantizes a bundle's float weights.

    Where the agreement gate would fail, the fewest layers that make it pass stay float.

    Args:
        bundle: with float weights.
        recipe: what to quantize, and how.
        calibration: pairs to measure activations on; None draws them.
        calibration_pairs: how many are drawn; 36 are the fewest that have images enough.
        pairs: of the gate.
        keep_float: patterns of layer names that stay float, beside the recipe's.
        balanced: balance channels, see `sam3i_edge.quantize.balance`.
        sensitivity: True measures what each layer costs, which is a pass over 24 pairs a layer, and keeps the
            fewest float; None does so where the gate's pairs miss a limit, and not for models of 64 M
            parameters or more; False never.
        progress: called with a sentence on each step, and the share of it that is done.

    Returns:
        The quantized model, and the report: `kept_float`, `unreached`, `balanced`, `calibration`, and `loss`
        by layer where it was measured.

    Raises:
        ExportError: calibration has too few images or no instruction of a level.
        ArtifactError: the bundle has no float weights.
        ValueError: a pattern of `keep_float` fits no layer.
    """
    tell = progress or untold
    weights = bundle.weights()
    if weights is None:
        raise ArtifactError(f"bundle {bundle.root} has no float weights to quantize")
    config = read_config(weights)
    variant = next(iter(bundle.manifest.variants.values()))
    tokenizer, preprocessing = bundle.tokenizer(), bundle.manifest.preprocessing

    def encode(text: str) -> NDArray[np.int64]:
        return tokenizer.encode(text).ids

    threshold = bundle.manifest.thresholds.score
    model = load_model(weights)
    large = 4 * sum(p.numel() for p in model.parameters()) > LARGE
    layers = recipe.modules(model)
    for pattern in keep_float:
        if not any(fnmatchcase(name, pattern) for name in layers):
            raise ValueError(
                f"--keep-float {pattern!r} fits no layer; they are named as {next(iter(layers))}"
            )
    seen = calibration
    if seen is None:
        seen = model_pairs(calibration_pairs, config, variant.boxes, _CALIBRATION)
    prepared = Prepared(
        model, recipe, seen, encode, preprocessing, boxes=variant.boxes, balanced=balanced, progress=tell
    )
    _refuse_levels_that_stay_float(prepared.unreached, keep_float)
    asked = {name for name in prepared.modules for pattern in keep_float if fnmatchcase(name, pattern)}
    spec = prepared.quantize(asked, tell)
    report: dict[str, Any] = {**prepared.notes, "recipe": recipe.name, "kept_float": sorted(asked)}
    if sensitivity or (sensitivity is None and not large):

        def questions(count: int, seed: int) -> Questions:
            asked_for = model_pairs(count, config, variant.boxes, seed)
            return Questions(asked_for, encode, preprocessing, threshold, variant.boxes)

        # The gate's own pairs only say whether every layer may be integers; which ones may not, others say.
        whole = Trials(model, spec, questions(pairs, _GATE), tell).passes((), recipe.name, tell)
        if sensitivity or not whole:
            report["loss"] = Trials(model, spec, questions(_LOSS_PAIRS, _TRIALS), tell).losses(tell)
        if not whole:
            trials = Trials(model, spec, questions(_LIMIT_PAIRS, _TRIALS), tell)
            kept = trials.fewest_float(list(report["loss"]), recipe.name, tell)
            tell(f"{len(kept)} layers stay float so that the limits hold: {', '.join(kept)}", 1.0)
            report["kept_float"] = sorted(asked | set(kept))
            spec = prepared.quantize(asked | set(kept), tell)
    return spec, report


def _refuse_levels_that_stay_float(unreached: Sequence[str], keep_float: Sequence[str]) -> None:
    adapters = [
        name
        for name in unreached
        if adapter_of(f"{name}.weight") and not any(fnmatchcase(name, pattern) for pattern in keep_float)
    ]
    if adapters:
        kinds = sorted({str(adapter_of(f"{name}.weight")) for name in adapters})
        levels = sorted({"simple" if kind == "simple" else "complex" for kind in kinds})
        asking = " ".join(f"--keep-float '*.adapter.{kind}.*'" for kind in kinds)
        raise ExportError(
            f"calibration got no instruction of level {' or '.join(levels)}, so {len(adapters)} layers, such "
            f"as {adapters[0]}, would stay float: add some, or ask for it with {asking}"
        )
