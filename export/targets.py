"""Further variants of a bundle: targets at precisions, each compared before it is named finished."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sam3i_edge.agreement import Agreement, model_pairs
from sam3i_edge.bundle.folder import Bundle, BundleFolder, new_bundle
from sam3i_edge.bundle.manifest import Manifest, Variant
from sam3i_edge.errors import ArtifactError, ExportError, ParityError
from sam3i_edge.export.float_bundle import PARITY_PAIRS
from sam3i_edge.export.gate import LARGE, Gate
from sam3i_edge.install_hint import install_hint
from sam3i_edge.model.weights import build_model, open_weights, read_config
from sam3i_edge.runtimes import BF16

FLOAT = ("fp32", "fp16")
# The last is int8 with bfloat16 in between: OpenVINO on CPUs that have it, and nowhere else.
PRECISIONS = (*FLOAT, "int8", "int8w", "int4", f"int8{BF16}")

Writer = Callable[[Path, Gate, str, Path | None], tuple[dict[str, Variant], Agreement]]
# Target -> module and function, and the extra that installs what they need; each framework is imported when
# it is asked for.
_WRITERS = {
    "onnx": ("sam3i_edge.export.gate", "write_variant", "export"),
    "eager": ("sam3i_edge.export.gate", "write_eager", "export"),
    "openvino": ("sam3i_edge.export.openvino.ir", "write_variant", "export,openvino"),
    "coreml": ("sam3i_edge.export.coreml.variant", "write_variant", "export,coreml"),
}
TARGETS = tuple(_WRITERS)


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
    pairs: int = PARITY_PAIRS,
    overwrite: bool = False,
    progress: Callable[[str], None] | None = None,
) -> tuple[Manifest, list[VariantRow]]:
    """Writes a bundle with these variants added; one that fails is left out and its row says why.

    What the bundle holds already of a target at a precision is replaced. Of each variant that misses the
    agreement gate the worst pair is drawn beside `out`.

    Args:
        bundle: with float weights, and `quant/<precision>.safetensors` for each quantized precision.
        out: folder of the bundle to write.
        targets: of `TARGETS`.
        precisions: of `PRECISIONS`.
        pairs: of the agreement gate.
        overwrite: replace `out` when it is a bundle.
        progress: called with a word on each step.

    Raises:
        ValueError: a target or precision is unknown.
        ArtifactError: the bundle lacks what a precision needs, or `out` may not be written.
        ExportError: every single variant failed; the message is that of the first.
    """
    for given, known, what in ((targets, TARGETS, "target"), (precisions, PRECISIONS, "precision")):
        for name in given:
            if name not in known:
                raise ValueError(f"unknown {what} {name!r}; choose from {', '.join(known)}")
    tell = progress or (lambda _: None)
    weights = bundle.verify().weights()
    if weights is None:
        raise ArtifactError(f"bundle {bundle.root} has no float weights to export: export it again")
    for precision in precisions:
        if precision not in FLOAT and not (bundle.root / _quantized(precision)).is_file():
            raise ArtifactError(
                f"bundle {bundle.root} has no {_quantized(precision).stem} model: make one with 'sam3i-edge "
                f"quantize {bundle.root} --recipe {_quantized(precision).stem}'"
            )
    config = read_config(weights)
    boxes = next(iter(bundle.manifest.variants.values())).boxes
    size = 4 * sum(p.numel() for p in build_model(config, open_weights(weights)).parameters())
    rows: list[VariantRow] = []
    with new_bundle(out, overwrite=overwrite, base=bundle) as folder:
        gate = Gate(
            folder.path / "weights",
            config,
            bundle.tokenizer(),
            bundle.manifest.preprocessing,
            bundle.manifest.thresholds.score,
            boxes,
            model_pairs(pairs, config, boxes),
            size > LARGE,
            tell,
        )
        for target in targets:
            for precision in precisions:
                _drop(folder, target, precision)
        written: dict[str, Variant] = {}
        for target in targets:
            for precision in precisions:
                tell(f"{target} {precision}")
                gate.picture = out.absolute().with_name(f"{out.name}.{target}-{precision}.worst-pair.png")
                found, row = _write(folder.path, gate, target, precision)
                written |= found
                rows.append(row)
        if not written:
            raise ExportError(rows[0].status)
        manifest = folder.finish(variants=written)
    return manifest, rows


def _quantized(precision: str) -> Path:
    return Path("quant") / f"{precision.removesuffix(BF16)}.safetensors"


def _drop(folder: BundleFolder, target: str, precision: str) -> None:
    """Takes an earlier variant of a target at a precision out of the bundle."""
    assert folder.base is not None
    names = [f"{target}-{precision}"]
    if precision in ("int8", f"int8{BF16}"):
        names.append(names[0].replace("int8", "mixed"))
    for name in names:
        if name in folder.base.variants:
            shutil.rmtree(folder.path / name)
            kept = {other: variant for other, variant in folder.base.variants.items() if other != name}
            folder.base = folder.base.model_copy(update={"variants": kept})


def _write(folder: Path, gate: Gate, target: str, precision: str) -> tuple[dict[str, Variant], VariantRow]:
    module, function, extra = _WRITERS[target]
    before = {path.name for path in folder.iterdir()}
    gate.compared = None
    try:
        if precision.endswith(BF16) and target != "openvino":
            raise ExportError(f"{target} has no {precision}: only openvino computes bfloat16 beside integers")
        writer: Writer = getattr(importlib.import_module(module), function)
        quantized = None if precision in FLOAT else folder / _quantized(precision)
        found, agreement = writer(folder, gate, precision, quantized)
    except (ExportError, ParityError, ImportError) as error:
        made = [path for path in folder.iterdir() if path.name not in before]
        size = sum(map(_size, made))
        for path in made:
            shutil.rmtree(path)
        status = str(error)
        if isinstance(error, ImportError):
            status = f"{error}: {install_hint(extra)}"
        return {}, VariantRow(
            target=target, precision=precision, variant="", bytes=size, agreement=gate.compared, status=status
        )
    name = next(iter(found))
    size = _size(folder / name)
    return found, VariantRow(
        target=target, precision=precision, variant=name, bytes=size, agreement=agreement, status="ok"
    )


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
