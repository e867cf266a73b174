"""`sam3i-edge bundle`: a training run to a bundle. Needs torch and onnx."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sam3i_edge.cli.needs import needs
from sam3i_edge.cli.output import Json, print_json, steps


def bundle(
    run: Annotated[Path, typer.Argument(help="Folder of a training run.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the bundle to write.")],
    license_file: Annotated[
        Path, typer.Option("--license", help="Licence of the weights, copied into the bundle.")
    ],
    name: Annotated[str, typer.Option(help="Name of the model.")] = "sam3i-nano",
    threshold: Annotated[float, typer.Option(min=0, max=1, help="Default least score of an instance.")] = 0.5,
    pairs: Annotated[
        int, typer.Option(min=1, help="Drawn (image, instruction) pairs to compare with the model.")
    ] = 240,
    half: Annotated[bool, typer.Option("--half", help="Keep the weights in float16.")] = False,
    note: Annotated[str, typer.Option(help="One line that its users must know.")] = "",
    version: Annotated[str, typer.Option(help="Version of the model.")] = "",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a bundle that is there.")] = False,
    as_json: Json = False,
) -> None:
    """Makes a bundle of a trained model, with an fp32 ONNX variant that is checked against it."""
    with needs("bundle", "export"):
        from sam3i_edge.export.float_bundle import export_bundle

    if (run / "bundle.json").is_file():
        raise ValueError(f"{run} is a bundle already: add variants to it with 'sam3i-edge export {run}'")
    with steps() as tell:
        manifest, agreement = export_bundle(
            run,
            out,
            name=name,
            license_file=license_file,
            threshold=threshold,
            pairs=pairs,
            half=half,
            note=note,
            version=version,
            overwrite=overwrite,
            progress=tell,
        )
    size = sum(record.bytes for record in manifest.files.values())
    variants = list(manifest.variants)
    if as_json:
        print_json(
            {"bundle": str(out), "bytes": size, "variants": variants, "agreement": agreement.to_dict()}
        )
    else:
        typer.echo(f"{out}: {size / 2**20:.1f} MiB, {', '.join(variants)}; against the model on {agreement}")
