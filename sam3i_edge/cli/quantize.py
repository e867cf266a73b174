"""`sam3i-edge quantize`: integer weights, and integer arithmetic, for a bundle. Needs torch and onnx."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sam3i_edge.cli.needs import needs
from sam3i_edge.cli.output import Json, print_json, print_table, steps

_SHOWN = 12  # layers of the table

CalibrationPairs = Annotated[
    int | None,
    typer.Option(min=8, help="Pairs to measure activations on; fewer take less time. [default: 400]"),
]


def quantize(
    model: Annotated[str, typer.Argument(help="sam3i-nano, the folder of a bundle, or a Hub id org/name.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the bundle to write.")],
    recipe: Annotated[
        str,
        typer.Option(help="int8 (weights and activations), int8w (weights), int4 (weights, for size)."),
    ] = "int8",
    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder with annotations.json and images/ to calibrate on. [default: drawn scenes]"
        ),
    ] = None,
    trained: Annotated[
        Path | None,
        typer.Option(
            "--from", help="A quantized model to take as it is: RUN/quant/int8.safetensors of --qat."
        ),
    ] = None,
    keep_float: Annotated[
        list[str] | None, typer.Option(help="Pattern of layers that stay float; may be given again.")
    ] = None,
    balance: Annotated[bool, typer.Option(help="Balance activation channels against weights.")] = True,
    sensitivity: Annotated[
        bool | None,
        typer.Option(
            help="Measure what each layer costs, and keep the fewest float that pass. [default: small models "
            "that would not pass]"
        ),
    ] = None,
    pairs: Annotated[int, typer.Option(min=1, help="Drawn pairs to compare with the float model.")] = 240,
    calibration_pairs: CalibrationPairs = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a bundle that is there.")] = False,
    as_json: Json = False,
) -> None:
    """Quantizes a bundle after training, and checks the result against the float model."""
    with needs("quantize", "export"):
        from sam3i_edge.export.quantized_bundle import add_quantized, quantize_bundle
        from sam3i_edge.quantize.calibration import CALIBRATION_PAIRS
        from sam3i_edge.quantize.recipes import RECIPES
        from sam3i_edge.quantize.recorded_pairs import recorded_pairs
    from sam3i_edge.bundle.folder import Bundle, find_bundle
    from sam3i_edge.bundle.writing import check_target

    if recipe not in RECIPES:
        raise ValueError(f"unknown recipe {recipe!r}; choose from {', '.join(RECIPES)}")
    if trained is not None and (data or keep_float or sensitivity or calibration_pairs):
        raise ValueError(
            "--from takes a quantized model as it is: leave --data, --keep-float, --sensitivity and "
            "--calibration-pairs"
        )
    most = calibration_pairs or CALIBRATION_PAIRS
    check_target(out, overwrite)
    bundle = Bundle.open(find_bundle(model))
    with steps() as tell:
        if trained is not None:
            _, row, report = add_quantized(
                bundle, out, trained, pairs=pairs, overwrite=overwrite, progress=tell
            )
        else:
            _, row, report = quantize_bundle(
                bundle,
                out,
                RECIPES[recipe],
                calibration=recorded_pairs(data, most) if data else None,
                calibration_pairs=most,
                pairs=pairs,
                keep_float=keep_float or (),
                balanced=balance,
                sensitivity=sensitivity,
                overwrite=overwrite,
                progress=tell,
            )
    if as_json:
        agreement = Bundle.open(out).manifest.variants[row.variant].agreement
        print_json(
            {"bundle": str(out), "variant": row.variant, "agreement": agreement, "report": dict(report)}
        )
        return
    if report.get("loss"):
        rows = [(layer, f"{loss:.4f}") for layer, loss in list(report["loss"].items())[:_SHOWN]]
        print_table("what single layers cost: 1 - mean mask IoU over 24 pairs", ("layer", "loss*"), rows)
    if kept := report.get("kept_float"):
        typer.echo(f"kept float: {', '.join(kept)}")
    if unreached := [name for name in report.get("unreached", ()) if ".adapter." in name]:
        typer.echo(f"float, as no pair of calibration reached them: {', '.join(unreached)}")
    typer.echo(f"{out}: variant {row.variant}; against the float model on {row.agreement}")
