"""A float bundle to one with a quantized variant."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam3i_edge.agreement import Agreement, Pair, model_pairs
from sam3i_edge.bundle.folder import Bundle, BundleFolder, new_bundle
from sam3i_edge.bundle.manifest import Manifest
from sam3i_edge.errors import ArtifactError, ExportError
from sam3i_edge.export.float_bundle import PARITY_PAIRS
from sam3i_edge.export.gate import LARGE, Gate, write_variant
from sam3i_edge.model.sam3i import adapter_of
from sam3i_edge.model.weights import load_model, read_config
from sam3i_edge.quantize.ptq import Prepared
from sam3i_edge.quantize.recipes import Recipe
from sam3i_edge.quantize.sensitivity import Questions, Trials
from sam3i_edge.quantize.spec import QuantSpec

# Seeds of drawn pairs.
_GATE, _CALIBRATION, _TRIALS = 0, 1, 2
CALIBRATION_PAIRS = 320
_LIMIT_PAIRS = 120  # of the trials that choose what stays float
_LOSS_PAIRS = 24  # of the trials of single layers

Tell = Callable[[str], None]


def quantize_bundle(
    bundle: Bundle,
    out: Path,
    recipe: Recipe,
    *,
    calibration: Sequence[Pair] | None = None,
    pairs: int = PARITY_PAIRS,
    keep_float: Sequence[str] = (),
    balanced: bool = True,
    sensitivity: bool | None = None,
    overwrite: bool = False,
    progress: Tell | None = None,
) -> tuple[Manifest, Agreement, dict[str, Any]]:
    """Quantizes a bundle's float weights and adds the variant that the recipe names.

    Where the agreement gate would fail, the fewest layers that make it pass stay float.

    Args:
        bundle: with float weights.
        out: folder of the bundle to write.
        recipe: what to quantize, and how.
        calibration: pairs to measure activations on; None draws 320.
        pairs: of the gate; at least 200 for a release.
        keep_float: patterns of layer names that stay float, beside the recipe's.
        balanced: balance channels, see `sam3i_edge.quantize.balance`.
        sensitivity: measure what each layer costs; None for models below 64 M parameters, as each layer costs
            a pass over 24 pairs.
        overwrite: replace `out` when it is a bundle.
        progress: called with a word on each step.

    Returns:
        The manifest, the agreement, and the report: `loss` by layer, `kept_float`, `unreached`, `balanced`,
        `calibration`. It is written to `quant/<recipe>.report.json` too.

    Raises:
        ParityError: the variant disagrees even so; the message names the worst pair and its picture.
        ExportError: calibration has too few images or no instruction of a level, or integers differ after
            export.
        ArtifactError: the bundle has no float weights, or `out` may not be written.
        ValueError: a pattern of `keep_float` fits no layer.
    """
    tell = progress or (lambda _: None)
    weights = bundle.verify().weights()
    if weights is None:
        raise ArtifactError(f"bundle {bundle.root} has no float weights to quantize: export it again")
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
        seen = model_pairs(CALIBRATION_PAIRS, config, variant.boxes, _CALIBRATION)
    tell(f"calibrating on {len(seen)} pairs")
    prepared = Prepared(model, recipe, seen, encode, preprocessing, boxes=variant.boxes, balanced=balanced)
    _refuse_levels_that_stay_float(prepared.unreached, keep_float)
    asked = {name for name in prepared.modules for pattern in keep_float if fnmatchcase(name, pattern)}
    tell(f"quantizing {len(prepared.modules) - len(asked)} layers as {recipe.name}")
    spec = prepared.quantize(asked)
    report: dict[str, Any] = {**prepared.notes, "recipe": recipe.name, "kept_float": sorted(asked)}
    if sensitivity or (sensitivity is None and not large):

        def questions(count: int, seed: int) -> Questions:
            asked_for = model_pairs(count, config, variant.boxes, seed)
            return Questions(asked_for, encode, preprocessing, threshold, variant.boxes)

        tell(f"measuring {len(spec.layers)} layers on {_LOSS_PAIRS} pairs")
        losses = Trials(model, spec, questions(_LOSS_PAIRS, _TRIALS)).losses()
        report["loss"] = losses
        # The gate's own pairs only say whether every layer may be integers; which ones may not, others say.
        if not Trials(model, spec, questions(pairs, _GATE)).passes((), recipe.name):
            trials = Trials(model, spec, questions(_LIMIT_PAIRS, _TRIALS))
            kept = trials.fewest_float(list(losses), recipe.name)
            tell(f"{len(kept)} layers stay float so that the limits hold: {', '.join(kept)}")
            report["kept_float"] = sorted(asked | set(kept))
            spec = prepared.quantize(asked | set(kept))
    del model, prepared
    return write_quantized(
        bundle, out, spec, report, pairs=pairs, overwrite=overwrite, isolate=large, tell=tell
    )


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


def add_quantized(
    bundle: Bundle,
    out: Path,
    file: Path,
    *,
    pairs: int = PARITY_PAIRS,
    overwrite: bool = False,
    progress: Tell | None = None,
) -> tuple[Manifest, Agreement, dict[str, Any]]:
    """Adds a quantized model that exists already: what quantization-aware training wrote.

    The float model that it is compared with is the bundle's.

    Args:
        bundle: with the float weights that training started from.
        out: folder of the bundle to write.
        file: of the `QuantSpec`.
        pairs: of the gate.
        overwrite: replace `out` when it is a bundle.
        progress: called with a word on each step.

    Returns:
        The manifest, the agreement, and the notes of the quantized model.

    Raises:
        ParityError, ExportError, ArtifactError: as in `quantize_bundle`.
    """
    spec = QuantSpec.load(file)
    large = 4 * sum(value.numel() for value in spec.tensors.values()) > LARGE
    return write_quantized(
        bundle,
        out,
        spec,
        dict(spec.notes),
        pairs=pairs,
        overwrite=overwrite,
        isolate=large,
        tell=progress or (lambda _: None),
    )


def write_quantized(
    bundle: Bundle,
    out: Path,
    spec: QuantSpec,
    report: dict[str, Any],
    *,
    pairs: int,
    overwrite: bool,
    isolate: bool,
    tell: Tell,
) -> tuple[Manifest, Agreement, dict[str, Any]]:
    """Adds a quantized model and its variant to a bundle; arguments as in `quantize_bundle`.

    Variants of an earlier quantized model of the same recipe are left out: their integers are others.
    """
    weights = bundle.verify().weights()
    if weights is None:
        raise ArtifactError(f"bundle {bundle.root} has no float weights to compare with: export it again")
    config = read_config(weights)
    boxes = next(iter(bundle.manifest.variants.values())).boxes
    with new_bundle(out, overwrite=overwrite, base=bundle) as folder:
        _drop_variants(folder, f"quant/{spec.recipe}.safetensors", tell)
        place = folder.path / "quant"
        place.mkdir(exist_ok=True)
        file = place / f"{spec.recipe}.safetensors"
        spec.save(file)
        text = json.dumps(report, indent=1)
        file.with_suffix(".report.json").write_text(text + "\n", encoding="utf-8")
        gate = Gate(
            folder.path / "weights",
            config,
            bundle.tokenizer(),
            bundle.manifest.preprocessing,
            bundle.manifest.thresholds.score,
            boxes,
            model_pairs(pairs, config, boxes),
            isolate,
            tell,
            picture=out.absolute().with_name(f"{out.name}.worst-pair.png"),
        )
        variants, agreement = write_variant(folder.path, gate, spec.recipe, file)
        manifest = folder.finish(variants=variants)
    return manifest, agreement, report


def _drop_variants(folder: BundleFolder, quant_spec: str, tell: Tell) -> None:
    """Removes the variants of a quantized model that is about to be replaced."""
    assert folder.base is not None
    variants = folder.base.variants
    for name in [name for name, variant in variants.items() if variant.quant_spec == quant_spec]:
        tell(f"{name} is replaced: it was made of an earlier {quant_spec}")
        shutil.rmtree(folder.path / name)
        variants = {other: variant for other, variant in variants.items() if other != name}
    folder.base = folder.base.model_copy(update={"variants": variants})
