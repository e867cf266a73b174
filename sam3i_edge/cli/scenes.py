"""`sam3i-edge scenes`: drawn scenes with instructions, as a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sam3i_edge.cli.output import Json, print_json, progress


def scenes(
    out: Annotated[Path, typer.Argument(help="Folder to write: OUT/images/*.png and OUT/annotations.json.")],
    count: Annotated[int, typer.Option("--count", "-n", min=1, max=10_000_000, help="Scenes to draw.")] = 100,
    seed: Annotated[int, typer.Option("--seed", "-s", min=0, help="An equal seed draws equal scenes.")] = 0,
    as_json: Json = False,
) -> None:
    """Draws scenes with instructions and masks, in the SAM3-I annotation layout; goes on where it was cut."""
    from sam3i_edge.data.annotations import ANNOTATIONS, write_scenes

    with progress() as shown:
        task = shown.add_task("drawing", total=1)
        records = write_scenes(
            out, count, seed, lambda words, share: shown.update(task, description=words, completed=share)
        )
    texts = sum(len(record.concept) + len(record.simple) + len(record.complex) for record in records)
    facts = {
        "scenes": count,
        "records": len(records),
        "instructions": texts,
        "seed": seed,
        "annotations": str(out / ANNOTATIONS),
    }
    if as_json:
        print_json(facts)
    else:
        typer.echo(
            f"{count:,} scenes, {len(records):,} records with {texts:,} instructions: {facts['annotations']}"
        )
