"""`sam3i-edge evaluate`: how right a model is on annotated images, by level and granularity."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sam3i_edge.cli.output import Json, note, print_json, print_table, progress
from sam3i_edge.cli.segment import Device, Precision, Threads
from sam3i_edge.files import whole_file

if TYPE_CHECKING:
    from sam3i_edge.evaluate.report import Report


def evaluate(
    model: Annotated[str, typer.Argument(help="sam3i-nano, the folder of a bundle, or a Hub id org/name.")],
    data: Annotated[
        Path, typer.Option("--data", help="Folder with annotations.json (SAM3-I layout) and images/.")
    ],
    device: Device = "auto",
    precision: Precision = "auto",
    level: Annotated[
        Literal["column", "auto"],
        typer.Option(
            "--level",
            "-l",
            help="column: each instruction at the level it is filed under; auto: the model chooses.",
        ),
    ] = "column",
    threshold: Annotated[
        float | None,
        typer.Option("--threshold", "-t", min=0, max=1, help="Least score. [default: the model's, 0.5]"),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Evaluate the first so many images only.")] = None,
    threads: Threads = None,
    outcomes: Annotated[
        Path | None,
        typer.Option(help="Also write every pair's outcome to this file, one JSON object a line."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Asks every instruction of a data set and reports gIoU, cIoU, P@0.5, presence and cgF1."""
    from sam3i_edge.data.annotations import ANNOTATIONS, IMAGES, read_annotations
    from sam3i_edge.evaluate import run
    from sam3i_edge.segmenter import Segmenter

    # What can be refused cheaply is refused before a model is opened.
    if outcomes is not None and not outcomes.absolute().parent.is_dir():
        raise ValueError(
            f"cannot write {outcomes}: the folder {outcomes.parent} does not exist, make it first"
        )
    records = read_annotations(data / ANNOTATIONS)
    with Segmenter(model, device, precision, threads=threads) as segmenter, progress() as shown:
        info = segmenter.info
        conditions = {
            "model": info.model,
            "device": info.device,
            "runtime": info.runtime,
            "precision": info.precision,
            "level": level,
            "data": str(data),
        }
        task = shown.add_task(f"evaluating {info.model}", total=1)
        report = run.evaluate(
            segmenter,
            records,
            data / IMAGES,
            threshold=threshold,
            choose_level=level == "auto",
            limit=limit,
            progress=lambda words, share: shown.update(task, description=words, completed=share),
            conditions=conditions,
        )
    if outcomes is not None:
        _write_outcomes(report, outcomes)
        note(f"{len(report.outcomes):,} outcomes written to {outcomes}")
    if as_json:
        print_json(report.to_dict())
    else:
        _print(report)


def _print(report: Report) -> None:
    from sam3i_edge.evaluate.tables import of_report

    ran = report.conditions
    typer.echo(
        f"{ran['model']} on {ran['device']} ({ran['runtime']}, {ran['precision']}), {ran['data']}: "
        f"{report.images:,} images, {report.cell().pairs:,} instructions, score above {report.threshold:g}"
    )
    for table in of_report(report):
        typer.echo()
        columns = [name if i < table.words else f"{name}*" for i, name in enumerate(table.header)]
        print_table(table.title, columns, table.rows)
        if table.note:
            typer.echo(table.note)
    if report.routing_accuracy is not None:
        typer.echo(f"right level for {report.routing_accuracy:.1%} of the instructions")


def _write_outcomes(report: Report, path: Path) -> None:
    with whole_file(path) as part, part.open("w", encoding="utf-8") as out:
        for outcome in report.outcomes:
            out.write(json.dumps(outcome.to_dict(), ensure_ascii=False) + "\n")
