"""Further variants of a bundle: any targets at any precisions, each compared before it is named finished."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sam3i_edge.agreement import Agreement
from sam3i_edge.bundle.folder import Bundle
from sam3i_edge.bundle.manifest import Manifest, Variant
from sam3i_edge.bundle.writing import BundleFolder, new_bundle
from sam3i_edge.errors import ArtifactError, ExportError
from sam3i_edge.export.gate import PARITY_PAIRS, Gate, open_gate
from sam3i_edge.export.targets import ALL_PRECISIONS, FLOAT, TARGETS, write_variant
from sam3i_edge.install_hint import install_hint
from sam3i_edge.quantize.spec import QuantSpec
from sam3i_edge.runtimes import BF16, Progress

# Gives a quantized model, and a report of how it was made.
Quantizer = Callable[[], tuple[QuantSpec, Mapping[str, Any]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantRow:
    """What became of one target at one precision.

    Attributes:
        target, precision: what was asked for.
        variant: its name in the bundle, or "" where it failed.
        bytes: of its folder, which is not kept where it failed.
        agreement: with the float model, also where that is why it failed; None where nothing was compared.
        status: "ok", or the reason.
    """

    target: str
    precision: str
    variant: str
    bytes: int
    agreement: Agreement | None
    status: str


def add_variants(
    bundle: Bundle,
    out: Path,
    targets: Sequence[str],
    precisions: Sequence[str],
    *,
    quantizers: Mapping[str, Quantizer] | None = None,
    pairs: int = PARITY_PAIRS,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> tuple[Manifest, list[VariantRow]]:
    """Writes a bundle with these variants added; one that fails is left out and its row says why.

    What the bundle holds already of a target at a precision is replaced. Of each variant that misses the
    agreement gate the worst pair is drawn beside `out`. Files that do not change are linked, or copied where
    the file system has no hard links.

    Args:
        bundle: with float weights; all of it is verified.
        out: folder of the bundle to write; with `overwrite` it may be the bundle's own.
        targets: of `TARGETS`.
        precisions: of `ALL_PRECISIONS`; what a target does not have is a row that failed.
        quantizers: recipe -> what makes the quantized model, called when its turn comes. It replaces one that
            is there, whose variants go. It is kept when a variant made of it passes.
        pairs: of the agreement gate; at least 200 for a release.
        overwrite: replace `out` when it is a bundle.
        progress: called with a sentence on each step, and the share of it that is done.

    Raises:
        ValueError: a target or precision is unknown.
        ArtifactError: the bundle is damaged, lacks what a precision needs, or `out` may not be written.
        ExportError: every single variant failed; the error is that of the first.
    """
    tell, quantizers = progress or (lambda *_: None), quantizers or {}
    for given, known, what in ((targets, TARGETS, "target"), (precisions, ALL_PRECISIONS, "precision")):
        for name in given:
            if name not in known:
                raise ValueError(f"unknown {what} {name!r}; choose from {', '.join(known)}")
    _check_sources(bundle, precisions, quantizers)
    rows: list[VariantRow] = []
    unmade: dict[str, ExportError] = {}  # recipe -> why there is no quantized model
    first: ExportError | None = None
    written: dict[str, Variant] = {}
    with new_bundle(out, overwrite=overwrite, base=bundle) as folder:
        manifest = bundle.manifest
        gate = open_gate(
            folder.path,
            manifest.tokenizer,
            manifest.preprocessing,
            threshold=manifest.thresholds.score,
            boxes=next(iter(manifest.variants.values())).boxes,
            pairs=pairs,
            tell=tell,
            picture=out,
        )
        for recipe, quantizer in quantizers.items():
            try:
                _put_quantized(folder, recipe, *quantizer(), tell)
            except ExportError as error:
                unmade[recipe] = error
        for target in targets:
            for precision in precisions:
                folder.drop(f"{target}-{precision}", f"{target}-{precision.replace('int8', 'mixed')}")
        for target in targets:
            for precision in precisions:
                tell(f"writing {target} at {precision}", 0.0)
                gate.picture = out.absolute().with_name(f"{out.name}.{target}-{precision}.worst-pair.png")
                row, made = _write(folder.path, gate, target, precision, unmade)
                rows.append(row)
                if isinstance(made, Variant):
                    written[row.variant] = made
                else:
                    first = first or made
        if first is not None and not written:
            raise first
        for recipe in quantizers:
            if not any(variant.quant_spec == _quantized(recipe) for variant in written.values()):
                _remove_quantized(folder.path, recipe)
        manifest = folder.finish(variants=written)
    return manifest, rows


def _check_sources(bundle: Bundle, precisions: Sequence[str], quantizers: Mapping[str, Quantizer]) -> None:
    if bundle.verify().weights() is None:
        raise ArtifactError(
            f"bundle {bundle.root} has no float weights to export: make it again of its run or checkpoint"
        )
    recipes = dict.fromkeys(p.removesuffix(BF16) for p in precisions if p not in FLOAT)
    missing = [
        recipe
        for recipe in recipes
        if recipe not in quantizers and _quantized(recipe) not in bundle.manifest.files
    ]
    if missing:
        raise ArtifactError(
            f"bundle {bundle.root} has no {' and no '.join(missing)} model: have it made with "
            f"'sam3i-edge export --recipe {','.join(missing)}'"
        )


def _quantized(recipe: str) -> str:
    return f"quant/{recipe}.safetensors"


def _put_quantized(
    folder: BundleFolder, recipe: str, spec: QuantSpec, report: Mapping[str, Any], tell: Progress
) -> None:
    """Writes a quantized model, and takes the variants of an earlier one out: their integers are others."""
    variants = folder.base.variants if folder.base else {}
    for name in [name for name, variant in variants.items() if variant.quant_spec == _quantized(recipe)]:
        tell(f"{name} is replaced: it was made of an earlier {recipe} model", 1.0)
        folder.drop(name)
    _remove_quantized(folder.path, recipe)
    file = folder.path / _quantized(recipe)
    file.parent.mkdir(exist_ok=True)
    spec.save(file)
    text = json.dumps(dict(report), indent=1)
    file.with_suffix(".report.json").write_text(text + "\n", encoding="utf-8")


def _remove_quantized(folder: Path, recipe: str) -> None:
    # Removed and not written over: the same file may be linked from the bundle that this one was made of.
    for file in (folder / "quant").glob(f"{recipe}.*"):
        file.unlink()


def _write(
    folder: Path, gate: Gate, target: str, precision: str, unmade: Mapping[str, ExportError]
) -> tuple[VariantRow, Variant | ExportError]:
    """One row, and the variant or why there is none; then the folder is as it was."""
    row, recipe = TARGETS[target], precision.removesuffix(BF16)
    before = {path.name for path in folder.iterdir()}
    gate.compared = None
    try:
        if precision not in row.precisions:
            raise ExportError(f"{target} has no {precision}, only {', '.join(row.precisions)}")
        if recipe in unmade:
            raise unmade[recipe]
        quantized = None if precision in FLOAT else folder / _quantized(recipe)
        name, variant, agreement = write_variant(folder, gate, target, precision, quantized)
    except (ExportError, ImportError) as failed:
        made = [path for path in folder.iterdir() if path.name not in before]
        size = sum(map(_size, made))
        for path in made:
            shutil.rmtree(path)
        if isinstance(failed, ImportError):
            error = ExportError(f"{failed}: {install_hint(row.extra)}")
        else:
            error = failed
        missed = VariantRow(
            target=target, precision=precision, variant="", bytes=size, agreement=gate.compared,
            status=str(error),
        )  # fmt: skip
        return missed, error
    passed = VariantRow(
        target=target, precision=precision, variant=name, bytes=_size(folder / name), agreement=agreement,
        status="ok",
    )  # fmt: skip
    return passed, variant


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
