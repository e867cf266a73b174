"""`sam3i-edge label`: a data set's labels, from pictures and instructions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, cast

import typer

from sam3i_edge.cli.needs import needs
from sam3i_edge.cli.output import Json, note, print_json, print_table, progress
from sam3i_edge.cli.segment import Device, Model, Precision, Threads
from sam3i_edge.levels import LEVELS, Level, as_level


def label(
    pictures: Annotated[str, typer.Argument(help="A folder, or a pattern such as 'photos/*.jpg'.")],
    instructions: Annotated[
        Path, typer.Option("--instructions", metavar="FILE", help="A text file, one a line: the categories.")
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            help="A folder, or for one format a file (.json, .xml), beside which FILE.labels holds the work. "
            "The same command goes on.",
        ),
    ],
    format: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            "-f",
            help="coco, yolo, label-studio, cvat or fiftyone. May be given several times. [default: coco]",
        ),
    ] = None,
    polygons: Annotated[
        bool, typer.Option("--polygons", help="In COCO and FiftyOne, polygons instead of run lengths.")
    ] = False,
    review: Annotated[
        bool, typer.Option("--review", help="Put what is uncertain where 'sam3i-edge review' shows it.")
    ] = False,
    model: Model = "sam3i-nano",
    device: Device = "auto",
    precision: Precision = "auto",
    runtime: Annotated[str, typer.Option("--runtime", help="auto or one that serves the device.")] = "auto",
    level: Annotated[str, typer.Option("--level", "-l", help=f"auto, {', '.join(LEVELS)}.")] = "auto",
    threshold: Annotated[
        float, typer.Option("--threshold", "-t", min=0, max=1, help="Least score of a label.")
    ] = 0.5,
    margin: Annotated[
        float, typer.Option(min=0, max=1, help="Scores so near to the threshold are uncertain.")
    ] = 0.15,
    duplicates: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="Of labels whose masks overlap by more than this IoU, the best is kept."
        ),
    ] = 0.7,
    workers: Annotated[
        int, typer.Option("--workers", "-w", min=1, max=1_024, help="Processes of this machine.")
    ] = 1,
    ray: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Do the work on a Ray cluster: auto, or host:port."),
    ] = None,
    threads: Threads = None,
    shard: Annotated[
        int, typer.Option(min=1, max=100_000, help="Pictures that are kept together, or done again.")
    ] = 64,
    as_json: Json = False,
) -> None:
    """Labels pictures with what instructions describe, in the formats of the usual tools."""
    from dataclasses import asdict

    from sam3i_edge.devices.machine import usable_cores
    from sam3i_edge.label.run import label as run_label
    from sam3i_edge.label.shards import LabelConfig
    from sam3i_edge.pipeline.instruction import read_instructions
    from sam3i_edge.pipeline.video import silence_opencv
    from sam3i_edge.shards.map import Map, one_by_one
    from sam3i_edge.shards.processes import in_processes

    if ray is not None and workers > 1:
        raise ValueError("--workers are processes of this machine, --ray has its own: give one of them")
    silence_opencv()
    if threads is None and (workers > 1 or ray is not None):
        threads = 1 if ray is not None else max(1, usable_cores() // workers)
    config = LabelConfig(
        pictures=pictures if any(c in pictures for c in "*?[") else str(Path(pictures).resolve()),
        instructions=tuple(read_instructions(instructions)),
        model=model,
        device=device,
        precision=precision,
        runtime=runtime,
        level=cast("Level | Literal['auto']", level if level == "auto" else as_level(level)),
        threshold=threshold,
        margin=margin,
        duplicates=duplicates,
        threads=threads,
        shard=shard,
    )
    # Not forked: a GPU, and a runtime's threads, do not live on in a fork.
    run: Map = in_processes(workers, start="spawn") if workers > 1 else one_by_one
    if ray is not None:
        with needs("label --ray", "scale"):
            from sam3i_edge.shards.cluster import on_cluster

            run = on_cluster(ray, gpu=device == "cuda")
    with progress() as shown:
        task = shown.add_task("", total=1.0)
        report = run_label(
            config,
            out,
            formats=format or ["coco"],
            outlines=polygons,
            review=review,
            run=run,
            progress=lambda words, share: shown.update(task, description=words, completed=share),
        )
    for name, reason in report.broken.items():
        note(reason if name in reason else f"{name}: {reason}")
    if as_json:
        print_json(asdict(report))
        return
    print_table(
        f"{report.pictures:,} pictures labelled, {len(report.broken):,} could not be read; "
        f"{report.uncertain:,} answers are uncertain, {report.decided:,} of them decided",
        ("instruction", "labels*", "duplicates dropped*"),
        [(text, f"{count:,}", f"{report.dropped[text]:,}") for text, count in report.labels.items()],
    )
    for name, place in report.written.items():
        note(f"{name} written to {place}")
    if review:
        folder = out if not out.suffix or out.is_dir() else f"{out}.labels"
        note(
            f"'sam3i-edge review {folder}' shows what is uncertain; the same command takes over what is "
            "decided there"
        )
