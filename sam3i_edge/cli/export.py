"""`sam3i-edge export`: a training run to a bundle, or a bundle to further variants. Needs torch and onnx."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sam3i_edge.cli.needs import needs
from sam3i_edge.cli.output import Json, note, print_json, print_table

if TYPE_CHECKING:
    from sam3i_edge.export.targets import VariantRow


def export(
    source: Annotated[
        str | None,
        typer.Argument(help="Folder of a training run; or with --to a bundle: a folder, name or Hub id."),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder of the bundle to write.")] = None,
    to: Annotated[
        str | None, typer.Option(help="Targets to add, with commas: onnx, openvino, coreml, eager.")
    ] = None,
    precision: Annotated[
        str, typer.Option(help="With --to: fp32, fp16, int8, int8w, int4, with commas.")
    ] = "fp16",
    license_file: Annotated[
        Path | None, typer.Option("--license", help="Of a run: licence of the weights, copied in.")
    ] = None,
    name: Annotated[str, typer.Option(help="Of a run: name of the model.")] = "sam3i-nano",
    threshold: Annotated[
        float, typer.Option(min=0, max=1, help="Of a run: default least score of an instance.")
    ] = 0.5,
    pairs: Annotated[
        int, typer.Option(min=1, help="Drawn (image, instruction) pairs to compare with the model.")
    ] = 240,
    swift: Annotated[
        Path | None,
        typer.Option(help="With --to coreml: also write a Swift package for the first precision here."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a bundle that is there.")] = False,
    show: Annotated[bool, typer.Option("--list", help="List targets and precisions, and stop.")] = False,
    as_json: Json = False,
) -> None:
    """Exports a trained model, or adds variants to a bundle; each is checked before it is named finished."""
    with needs("export", "export"):
        from sam3i_edge.export.targets import PRECISIONS, TARGETS

    if show:
        if as_json:
            print_json({"targets": list(TARGETS), "precisions": list(PRECISIONS)})
        else:
            typer.echo(f"targets: {', '.join(TARGETS)}\nprecisions: {', '.join(PRECISIONS)}")
        return
    if source is None or out is None:
        raise ValueError(
            "name what to export and where to: sam3i-edge export RUN --license FILE -o OUT, or "
            "sam3i-edge export BUNDLE --to onnx --precision fp16 -o OUT"
        )
    if to is None:
        if license_file is None:
            raise ValueError(
                "a training run needs --license; to add variants to a bundle name them with --to"
            )
        _export_run(Path(source), out, license_file, name, threshold, pairs, overwrite, as_json)
    else:
        targets, precisions = ([part.strip() for part in given.split(",")] for given in (to, precision))
        if swift is not None and "coreml" not in targets:
            raise ValueError("--swift goes with a Core ML variant: add coreml to --to")
        whole = _add(source, out, targets, precisions, pairs, overwrite, as_json)
        if swift is not None:
            _write_swift(out, swift, precisions)
        if not whole:
            raise typer.Exit(1)


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
    note(f"{folder}: Swift package for {name}; it was not compiled here")


def _add(
    source: str,
    out: Path,
    targets: list[str],
    precisions: list[str],
    pairs: int,
    overwrite: bool,
    as_json: bool,
) -> bool:
    """Adds the variants and shows what became of each; whether all were written."""
    from sam3i_edge.bundle.folder import Bundle, find_bundle
    from sam3i_edge.export.targets import add_variants

    _, rows = add_variants(
        Bundle.open(find_bundle(source)),
        out,
        targets,
        precisions,
        pairs=pairs,
        overwrite=overwrite,
        progress=note,
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


def _export_run(
    run: Path,
    out: Path,
    license_file: Path,
    name: str,
    threshold: float,
    pairs: int,
    overwrite: bool,
    as_json: bool,
) -> None:
    from sam3i_edge.export.float_bundle import export_bundle

    manifest, agreement = export_bundle(
        run,
        out,
        name=name,
        license_file=license_file,
        threshold=threshold,
        pairs=pairs,
        overwrite=overwrite,
        progress=note,
    )
    size = sum(record.bytes for record in manifest.files.values())
    if as_json:
        print_json(
            {
                "bundle": str(out),
                "bytes": size,
                "variants": list(manifest.variants),
                "agreement": agreement.to_dict(),
            }
        )
    else:
        typer.echo(
            f"{out}: {size / 2**20:.1f} MiB, {', '.join(manifest.variants)}; against the model on {agreement}"
        )
