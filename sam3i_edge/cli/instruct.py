"""`sam3i-edge instruct`: instructions for any annotated pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sam3i_edge.cli.needs import needs
from sam3i_edge.cli.output import Json, note, print_json, print_table, progress


def instruct(
    source: Annotated[
        str,
        typer.Argument(
            help="Annotated pictures: a scene file (scenes.jsonl), COCO, LVIS or PACO instances, RefCOCO's "
            "references as JSON or Parquet, SAM3-I's annotations; or a folder that holds one."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write; the same command goes on.")],
    vocabulary: Annotated[
        str, typer.Option(help="The words: shapes, tabletop, coco, or a JSON file of that layout.")
    ] = "coco",
    images: Annotated[
        Path | None, typer.Option(help="Folder of the pictures. [default: looked for beside SOURCE]")
    ] = None,
    instances: Annotated[
        Path | None, typer.Option(help="Of RefCOCO's references. [default: instances.json beside SOURCE]")
    ] = None,
    split: Annotated[str, typer.Option(help="Of RefCOCO, such as train. [default: all]")] = "",
    pixel_colors: Annotated[
        bool, typer.Option("--pixel-colors", help="Colours from pixels where SOURCE tells none.")
    ] = False,
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
    llm_url: Annotated[
        str | None,
        typer.Option(
            "--llm-url",
            help="An OpenAI-compatible endpoint, up to /v1, that words what is proven; its key is read "
            "from SAM3I_LLM_API_KEY.",
        ),
    ] = None,
    llm_model: Annotated[str | None, typer.Option("--llm-model", help="The model's name there.")] = None,
    llm_vision: Annotated[bool, typer.Option("--llm-vision", help="Show it the pictures.")] = False,
    llm_budget: Annotated[
        int | None, typer.Option("--llm-budget", min=1, help="Tokens that all runs of OUT may cost.")
    ] = None,
    llm_requests: Annotated[int, typer.Option("--llm-requests", min=1, help="At a time.")] = 8,
    as_json: Json = False,
) -> None:
    """Writes instructions at three levels for annotated pictures, each proven on what is annotated."""
    import contextlib
    from dataclasses import asdict

    from sam3i_edge.data.annotations import ANNOTATIONS
    from sam3i_edge.data.instruct.run import instruct as run_instruct
    from sam3i_edge.data.instruct.shards import InstructConfig
    from sam3i_edge.data.instruct.worded import Wording
    from sam3i_edge.data.language_model.model import CACHE, LanguageModel, ModelSettings
    from sam3i_edge.levels import as_level
    from sam3i_edge.shards.map import Map, one_by_one
    from sam3i_edge.shards.processes import in_processes

    if (ray is not None) + (workers > 1) + (llm_url is not None) > 1:
        raise ValueError(
            "--workers are processes of this machine, --ray has its own, and a language model is asked by "
            "one: give one of --workers, --ray and --llm-url"
        )
    if (llm_url is None) != (llm_model is None):
        raise ValueError("--llm-url and --llm-model belong together: give both")
    config = InstructConfig(
        source=str(Path(source).resolve()),
        images=str(images.resolve()) if images else "",
        instances=str(instances.resolve()) if instances else "",
        split=split,
        pixel_colors=pixel_colors,
        vocabulary=vocabulary,
        levels=tuple(as_level(level.strip()) for level in levels.split(",")),
        per_image=per_image,
        review=review,
        seed=seed,
    )
    run: Map = in_processes(workers) if workers > 1 else one_by_one
    if ray is not None:
        with needs("instruct --ray", "scale"):
            from sam3i_edge.shards.cluster import on_cluster

            run = on_cluster(ray)
    with contextlib.ExitStack() as stack:
        wording = None
        if llm_url is not None and llm_model is not None:
            settings = ModelSettings(
                url=llm_url, model=llm_model, vision=llm_vision, budget=llm_budget, concurrency=llm_requests
            )
            out.mkdir(parents=True, exist_ok=True)
            wording = Wording(model=stack.enter_context(LanguageModel(settings, out / CACHE)))
        shown = stack.enter_context(progress())
        task = shown.add_task("", total=1.0)
        report = run_instruct(
            config,
            out,
            run=run,
            wording=wording,
            progress=lambda words, share: shown.update(task, description=words, completed=share),
        )
        if wording is not None:
            calls, tokens = wording.model.paid()
            note(f"language model: {calls:,} calls and {tokens:,} tokens so far")
            for why, count in wording.model.bad_answers.items():
                note(f"{count:,} of its answers could not be read: {why}")
            if report.waiting:
                reason = wording.model.stopped or "some requests failed"
                note(f"{report.waiting:,} instructions wait for it ({reason}); the same command goes on")
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
