"""`sam3i-edge router`: a learned choice of the level for a bundle. Needs torch and onnx."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from sam3i_edge.cli.needs import needs
from sam3i_edge.cli.output import Json, print_json, print_table, steps
from sam3i_edge.levels import LEVELS


def router(
    model: Annotated[str, typer.Argument(help="sam3i-nano, the folder of a bundle, or a Hub id org/name.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the bundle to write.")],
    vocabulary: Annotated[
        str, typer.Option(help="Words to learn: some of shapes, tabletop, coco, or JSON files.")
    ] = "shapes,tabletop",
    unseen: Annotated[str, typer.Option(help="Vocabularies that only measure it; may be empty.")] = "coco",
    scenes: Annotated[int, typer.Option(min=10, help="Made up for each vocabulary.")] = 400,
    seed: Annotated[int, typer.Option("--seed", "-s", min=0, help="Decides what is written.")] = 0,
    margin: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Least lead over the rules at wordings never seen. [default: 0.02]"),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a bundle that is there.")] = False,
    as_json: Json = False,
) -> None:
    """Trains a router of levels for a bundle, and writes it where it beats the rules."""
    with needs("router", "export"):
        from sam3i_edge.export.router import MARGIN, add_router
    from sam3i_edge.bundle.folder import Bundle, find_bundle

    with steps() as tell:
        report = add_router(
            Bundle.open(find_bundle(model)),
            out,
            vocabularies=_names(vocabulary),
            unseen=_names(unseen),
            scenes=scenes,
            seed=seed,
            margin=MARGIN if margin is None else margin,
            overwrite=overwrite,
            progress=tell,
        )
    if as_json:
        print_json({"bundle": str(out), **asdict(report)})
        return
    rows = []
    for row in report.rows:
        for who, right, mean in zip(("rules", "router"), (row.rules, row.router), row.means, strict=True):
            levels = (f"{right[name]:.3f}" if name in right else "-" for name in LEVELS)
            rows.append((row.name, f"{row.texts:,}", who, *levels, f"{mean:.3f}"))
    print_table("right level", ("texts", "count*", "by", *(f"{name}*" for name in LEVELS), "mean*"), rows)
    typer.echo(f"{out}: with a router of {report.bytes:,} bytes, {report.ms:.3f} ms an instruction")


def _names(given: str) -> list[str]:
    return [name.strip() for name in given.split(",") if name.strip()]
