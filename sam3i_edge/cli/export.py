"""`sam3i-edge export`: a training run to a bundle, or a bundle to further variants. Needs torch and onnx."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sam3i_edge.cli.needs import needs
from sam3i_edge.cli.output import Json, note, print_json, print_table


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
        _add(source, out, to.split(","), precision.split(","), pairs, overwrite, as_json)
        if swift is not None:
            _write_swift(out, swift)


def _write_swift(bundle: Path, folder: Path) -> None:
    from sam3i_edge.bundle import Bundle
    from sam3i_edge.export.swift_package import write_swift_package

    opened = Bundle.open(bundle)
    found = [(n, v) for n, v in opened.manifest.variants.items() if v.runtime == "coreml"]
    if not found:
        raise ValueError(f"{bundle} has no Core ML variant for --swift: add --to coreml")
    name, variant = found[0]
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
) -> None:
    from sam3i_edge.bundle import Bundle, find_bundle
    from sam3i_edge.export.targets import add_variants

    _, rows = add_variants(
        Bundle.open(find_bundle(source)),
        out,
        [target.strip() for target in targets],
        [precision.strip() for precision in precisions],
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
        cells = [
            (
                f"{row.target} {row.precision}",
                f"{row.bytes / 2**20:.1f} MiB",
                str(row.agreement) if row.agreement else "",
                row.status,
            )
            for row in rows
        ]
        print_table(str(out), ("variant", "size*", "agreement with the float model", "status"), cells)
    if any(row.status != "ok" for row in rows):
        raise typer.Exit(1)


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
    from sam3i_edge.export.bundle import export_bundle

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
