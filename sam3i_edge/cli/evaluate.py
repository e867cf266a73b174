"""`sam3i-edge evaluate`: how right a model is on annotated images, by level and granularity."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sam3i_edge.cli.output import Json, note, print_json, print_table, progress
from sam3i_edge.cli.segment import Device, Precision, Threads
from sam3i_edge.files import whole_file

if TYPE_CHECKING:
    from sam3i_edge.evaluate.agent.loop import Reasoner
    from sam3i_edge.evaluate.report import Report
    from sam3i_edge.evaluate.tables import Table

_ORACLE = "oracle"


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
    agent: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Also ask through an agent: the OpenAI-compatible endpoint of a model that sees, up to /v1, "
            "whose key is read from SAM3I_LLM_API_KEY; or 'oracle', a rule that knows the answers.",
        ),
    ] = None,
    agent_model: Annotated[str | None, typer.Option("--agent-model", help="Its name there.")] = None,
    agent_cache: Annotated[
        Path | None,
        typer.Option("--agent-cache", help="File that keeps its answers: the same command goes on."),
    ] = None,
    agent_budget: Annotated[
        int | None, typer.Option("--agent-budget", min=1, help="Tokens that all runs of that file may cost.")
    ] = None,
    agent_rounds: Annotated[
        int, typer.Option("--agent-rounds", min=1, help="How often it tries noun phrases, at most.")
    ] = 3,
    agent_errors: Annotated[
        float,
        typer.Option("--agent-errors", min=0, max=1, help="Share of the oracle's answers that err."),
    ] = 0.0,
    as_json: Json = False,
) -> None:
    """Asks every instruction of a data set and reports gIoU, cIoU, P@0.5, presence and cgF1."""
    from sam3i_edge.data.annotations import ANNOTATIONS, IMAGES, read_annotations
    from sam3i_edge.evaluate import run
    from sam3i_edge.evaluate.agent.comparison import Comparison, compare
    from sam3i_edge.evaluate.agent.loop import Agent
    from sam3i_edge.evaluate.tables import of_report
    from sam3i_edge.segmenter import Segmenter

    # What can be refused cheaply is refused before a model is opened.
    for file in (outcomes, agent_cache):
        if file is not None and not file.absolute().parent.is_dir():
            raise ValueError(f"cannot write {file}: the folder {file.parent} does not exist, make it first")
    at_endpoint = (agent_model, agent_cache)
    if agent in (None, _ORACLE) and any(value is not None for value in (*at_endpoint, agent_budget)):
        raise ValueError("--agent-model, --agent-cache and --agent-budget need an endpoint: give --agent URL")
    if agent not in (None, _ORACLE) and None in at_endpoint:
        raise ValueError("an endpoint needs --agent-model NAME and --agent-cache FILE: give both")
    if agent_errors and agent != _ORACLE:
        raise ValueError("--agent-errors is of the rule that knows the answers: give --agent oracle")
    records = read_annotations(data / ANNOTATIONS)
    with contextlib.ExitStack() as stack:
        reasoner: Reasoner | None = None
        if agent == _ORACLE:
            from sam3i_edge.evaluate.agent.oracle import Oracle

            reasoner = Oracle(records, data / IMAGES, errors=agent_errors)
        elif agent is not None and agent_model is not None and agent_cache is not None:
            from sam3i_edge.data.language_model.model import LanguageModel, ModelSettings
            from sam3i_edge.evaluate.agent.vision_model import VisionModel

            settings = ModelSettings(url=agent, model=agent_model, vision=True, budget=agent_budget)
            reasoner = VisionModel(stack.enter_context(LanguageModel(settings, agent_cache)))
        segmenter = stack.enter_context(Segmenter(model, device, precision, threads=threads))
        shown = stack.enter_context(progress())
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
        options: run.Options = {
            "threshold": threshold,
            "choose_level": level == "auto",
            "limit": limit,
            "progress": lambda words, share: shown.update(task, description=words, completed=share),
            "conditions": conditions,
        }
        found: Report | Comparison
        if reasoner is None:
            found = run.evaluate(segmenter, records, data / IMAGES, **options)
        else:
            through = Agent(segmenter, reasoner, rounds=agent_rounds)
            found = compare(through, records, data / IMAGES, **options)
    if outcomes is not None:
        note(f"{_write_outcomes(found.lines(), outcomes):,} outcomes written to {outcomes}")
    if as_json:
        print_json(found.to_dict())
    elif isinstance(found, Comparison):
        _print(found.direct, found.tables())
        for why, count in found.failures.items():
            typer.echo(f"{count:,} questions without a whole answer: {why}")
    else:
        _print(found, of_report(found))
        if found.routing_accuracy is not None:
            typer.echo(f"right level for {found.routing_accuracy:.1%} of the instructions")


def _print(report: Report, tables: Sequence[Table]) -> None:
    ran = report.conditions
    typer.echo(
        f"{ran['model']} on {ran['device']} ({ran['runtime']}, {ran['precision']}), {ran['data']}: "
        f"{report.images:,} images, {report.cell().pairs:,} instructions, score above {report.threshold:g}"
    )
    for table in tables:
        typer.echo()
        columns = [name if i < table.words else f"{name}*" for i, name in enumerate(table.header)]
        print_table(table.title, columns, table.rows)
        if table.note:
            typer.echo(table.note)


def _write_outcomes(lines: Iterable[Mapping[str, object]], path: Path) -> int:
    """Writes a line each, and gives their number."""
    count = 0
    with whole_file(path) as part, part.open("w", encoding="utf-8") as out:
        for line in lines:
            out.write(json.dumps(line, ensure_ascii=False) + "\n")
            count += 1
    return count
