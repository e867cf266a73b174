"""`sam3i-edge instruct`: instructions for any annotated pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sam3i_edge.cli.needs import needs
from sam3i_edge.cli.output import Json, print_json, print_table, progress


def instruct(
    source: Annotated[
        str,
        typer.Argument(
            help="Annotated pictures: a scene file (scenes.jsonl), COCO, LVIS or PACO instances, SAM3-I's "
            "annotations; or a folder that holds one."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write; the same command goes on.")],
    vocabulary: Annotated[
        str, typer.Option(help="The words: shapes, tabletop, coco, or a JSON file of that layout.")
    ] = "coco",
    images: Annotated[
        Path | None, typer.Option(help="Folder of the pictures. [default: looked for beside SOURCE]")
    ] = None,
    levels: Annotated[str, typer.Option(help="Some of concept, simple, complex.")] = "concept,simple,complex",
    per_image: Annotated[
        int, typer.Option("--per-image", min=1, max=1_000, help="Instructions of a picture, at most.")
    ] = 12,
    review: Annotated[
        int, typer.Option(min=0, max=1_000, help="Of a picture, at most, that are not proven: for 'review'.")
    ] = 1,
    seed: Annotated[int, typer.Option("--seed", "-s", min=0, help="Decides what is drawn.")] = 0,
    workers: Annotated[
        int, typer.Option("--workers", "-w", min=1, max=1_024, help="Processes of this machine.")
    ] = 1,
    ray: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Do the work on a Ray cluster: auto, or host:port."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Writes instructions at three levels for annotated pictures, each proven on what is annotated."""
    from dataclasses import asdict

    from sam3i_edge.data.annotations import ANNOTATIONS
    from sam3i_edge.data.instruct.processes import in_processes
    from sam3i_edge.data.instruct.run import instruct as run_instruct
    from sam3i_edge.data.instruct.shards import InstructConfig, one_by_one
    from sam3i_edge.levels import as_level

    if ray is not None and workers > 1:
        raise ValueError("--workers are processes of this machine, --ray has its own: leave one out")
    config = InstructConfig(
        source=str(Path(source).resolve()),
        images=str(images.resolve()) if images else "",
        vocabulary=vocabulary,
        levels=tuple(as_level(level.strip()) for level in levels.split(",")),
        per_image=per_image,
        review=review,
        seed=seed,
    )
    run = in_processes(workers) if workers > 1 else one_by_one
    if ray is not None:
        with needs("instruct --ray", "scale"):
            from sam3i_edge.data.instruct.cluster import on_cluster

            run = on_cluster(ray)
    with progress() as shown:
        task = shown.add_task("", total=1.0)
        report = run_instruct(
            config,
            out,
            run=run,
            progress=lambda words, share: shown.update(task, description=words, completed=share),
        )
    if as_json:
        print_json({"out": str(out), **asdict(report)})
        return
    print_table(
        f"{out / ANNOTATIONS}: {report.instructions:,} instructions for {report.pictures:,} pictures; "
        f"{report.review:,} wait for a decision ('sam3i-edge review {out}')",
        ("counted by", "", "*"),
        [(kind, name, f"{count:,}") for kind, name, count in report.rows()],
    )
    for line in report.notes:
        typer.echo(line)
    if report.left_out_count:
        typer.echo(f"pictures that could not be used: {report.left_out_count:,}")
        for reason in report.left_out:
            typer.echo(f"  {reason}")
