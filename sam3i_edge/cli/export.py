"""`sam3i-edge export`: a bundle to further variants. Needs torch and onnx."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sam3i_edge.cli.needs import needs
from sam3i_edge.cli.output import Json, note, print_json, print_table, steps
from sam3i_edge.cli.quantize import CalibrationPairs

if TYPE_CHECKING:
    from sam3i_edge.export.variants import VariantRow


def export(
    source: Annotated[
        str | None, typer.Argument(help="sam3i-nano, the folder of a bundle, or a Hub id org/name.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Bundle to write. [default: with --overwrite, SOURCE itself]"),
    ] = None,
    to: Annotated[
        str, typer.Option(help="Targets, with commas: onnx, openvino, coreml, litert, eager.")
    ] = "onnx",
    recipe: Annotated[
        str | None,
        typer.Option(
            help="Quantized precisions, with commas: int8, int8w, int4. Models that are missing are made."
        ),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            help="Precisions, with commas: fp32, fp16, int8, int8w, int4, and for openvino int8-bf16. "
            "[default: those of --recipe, or fp16]"
        ),
    ] = None,
    pairs: Annotated[
        int, typer.Option(min=1, help="Drawn (image, instruction) pairs to compare with the model.")
    ] = 240,
    calibration_pairs: CalibrationPairs = None,
    swift: Annotated[
        Path | None,
        typer.Option(help="With coreml: also write a Swift package for the first precision here."),
    ] = None,
    license_file: Annotated[Path | None, typer.Option("--license", hidden=True)] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a bundle that is there.")] = False,
    show: Annotated[
        bool, typer.Option("--list", help="List targets, their precisions and what they need, and stop.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Adds variants to a bundle: each target at each precision, checked before it is named finished."""
    with needs("export", "export"):
        import sam3i_edge.export.targets  # noqa: F401
    from sam3i_edge.bundle.folder import BUNDLED
    from sam3i_edge.bundle.writing import check_target

    if show:
        _list(as_json)
        return
    if source is None:
        raise ValueError("name what to export: sam3i-edge export BUNDLE --to onnx --precision fp16 -o OUT")
    folder = Path(source)
    is_run = (folder / "weights" / "model.json").is_file() and not (folder / "bundle.json").is_file()
    if license_file is not None or is_run:
        raise ValueError(
            f"{source}: of a training run, 'sam3i-edge bundle RUN --license FILE -o BUNDLE' makes a bundle; "
            "export adds variants to one"
        )
    if out is None:
        if not overwrite or source in BUNDLED or not folder.is_dir():
            raise ValueError("name the bundle to write with -o, or add to a folder in place with --overwrite")
        out = folder
    targets, recipes, precisions = (_names(given) for given in (to, recipe, precision))
    precisions = list(dict.fromkeys([*precisions, *recipes])) or ["fp16"]
    if calibration_pairs is not None and not recipes:
        raise ValueError("--calibration-pairs goes with --recipe: nothing else is calibrated")
    if swift is not None and "coreml" not in targets:
        raise ValueError("--swift goes with a Core ML variant: add coreml to --to")
    check_target(out, overwrite)
    whole = _add(source, out, targets, precisions, recipes, pairs, calibration_pairs, overwrite, as_json)
    if swift is not None:
        _write_swift(out, swift, precisions)
    if not whole:
        raise typer.Exit(1)


def _names(given: str | None) -> list[str]:
    return [part.strip() for part in given.split(",")] if given else []


def _list(as_json: bool) -> None:
    from sam3i_edge.export.targets import ALL_PRECISIONS, TARGETS
    from sam3i_edge.install_hint import install_hint

    installs = {name: install_hint(target.extra) for name, target in TARGETS.items()}
    if as_json:
        plain = {
            name: {"runtime": row.runtime, "precisions": list(row.precisions), "install": installs[name]}
            for name, row in TARGETS.items()
        }
        print_json({"targets": plain, "precisions": list(ALL_PRECISIONS)})
        return
    print_table(
        "targets and their precisions",
        ("target", *ALL_PRECISIONS, "runs in", "needs"),
        [
            (
                name,
                *("yes" if precision in row.precisions else "-" for precision in ALL_PRECISIONS),
                row.runtime,
                installs[name],
            )
            for name, row in TARGETS.items()
        ],
    )
    typer.echo("int8, int8w, int4 and int8-bf16 need a quantized model of the bundle: --recipe makes it")


def _write_swift(bundle: Path, folder: Path, precisions: list[str]) -> None:
    from sam3i_edge.bundle.folder import Bundle
    from sam3i_edge.export.coreml.swift_package import write_swift_package

    opened = Bundle.open(bundle)
    variants = opened.manifest.variants
    name = next((name for p in precisions if (name := f"coreml-{p}") in variants), None)
    if name is None:
        note("no Swift package: there is no Core ML variant to write it for")
        return
    variant = variants[name]
    write_swift_package(
        folder,
        opened.manifest,
        opened.file(opened.manifest.tokenizer.file),
        opened.graphs(name),
        precision=variant.precision,
        boxes=variant.boxes,
    )
    note(f"{folder}: Swift package for {name}; docs/ios.md says what to do with it")


def _add(
    source: str,
    out: Path,
    targets: list[str],
    precisions: list[str],
    recipes: list[str],
    pairs: int,
    calibration_pairs: int | None,
    overwrite: bool,
    as_json: bool,
) -> bool:
    """Adds the variants and shows what became of each; whether all were written."""
    from sam3i_edge.bundle.folder import Bundle, find_bundle
    from sam3i_edge.export.quantized_bundle import post_training
    from sam3i_edge.export.variants import add_variants
    from sam3i_edge.quantize.calibration import CALIBRATION_PAIRS
    from sam3i_edge.quantize.recipes import RECIPES

    for name in recipes:
        if name not in RECIPES:
            raise ValueError(f"unknown recipe {name!r}; choose from {', '.join(RECIPES)}")
    bundle = Bundle.open(find_bundle(source))
    with steps() as tell:
        _, rows = add_variants(
            bundle,
            out,
            targets,
            precisions,
            quantizers={
                name: partial(
                    post_training,
                    bundle,
                    RECIPES[name],
                    pairs=pairs,
                    calibration_pairs=calibration_pairs or CALIBRATION_PAIRS,
                    progress=tell,
                )
                for name in recipes
                if f"quant/{name}.safetensors" not in bundle.manifest.files
            },
            pairs=pairs,
            overwrite=overwrite,
            progress=tell,
        )
    if as_json:
        plain = [
            {
                "target": row.target,
                "precision": row.precision,
                "variant": row.variant,
                "bytes": row.bytes,
                "agreement": row.agreement.to_dict() if row.agreement else None,
                "status": row.status,
            }
            for row in rows
        ]
        print_json({"bundle": str(out), "variants": plain})
    else:
        columns = ("variant", "size*", "same count*", "mask IoU*", "least*", "score*", "box px*", "status")
        title = f"{out}: beside the float model, on {pairs} pairs (score and box: most of 99 % of instances)"
        print_table(title, columns, [_cells(row) for row in rows])
    return all(row.status == "ok" for row in rows)


def _cells(row: VariantRow) -> tuple[str, ...]:
    found, name = row.agreement, f"{row.target} {row.precision}"
    if found is None:
        return (name, "", "", "", "", "", "", row.status)
    return (
        name,
        f"{row.bytes / 2**20:.1f} MiB" if row.bytes else "",
        f"{found.same_count:.3f}",
        f"{found.mean_iou:.4f}",
        f"{found.min_iou:.3f}",
        f"{found.score_p99:.3f}",
        f"{found.box_px_p99:.2f}",
        row.status,
    )
