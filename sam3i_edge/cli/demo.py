"""`sam3i-edge demo`: asks about two scenes at every level, and shows how right the answers are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sam3i_edge.cli.examples import draw_example, table_example
from sam3i_edge.cli.output import Json, note, print_json, print_table
from sam3i_edge.cli.segment import Device, Threads

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from sam3i_edge.data.instructions import Instruction
    from sam3i_edge.data.scene import Scene
    from sam3i_edge.segmenter import Segmenter


def demo(
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Folder for the pictures [default: demo-output]; with --web for the page, to be hosted.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", "-s", min=0, help="Another seed shows other scenes.")] = 11,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="As of segment. [default: sam3i-table for the table, sam3i-nano for all else]",
        ),
    ] = None,
    device: Device = "auto",
    threads: Threads = None,
    as_json: Json = False,
    web: Annotated[
        bool, typer.Option("--web", help="Serve a page that runs the model in the browser.")
    ] = False,
    server: Annotated[
        bool, typer.Option("--server", help="Serve the page, and run the model here: for large ones.")
    ] = False,
    host: Annotated[
        str | None,
        typer.Option(help="With --server: address to listen on, 0.0.0.0 for all. [default: 127.0.0.1]"),
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port of the page. [default: a free one]")
    ] = None,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> None:
    """Segments a rendered table and a drawn scene by instructions of every level, and says how right it was.

    With --web or --server a page does the segmenting, of pictures and cameras, until Ctrl+C.
    """
    if web or server:
        from sam3i_edge.cli.demo_page import page

        page(
            out, seed, model or "sam3i-nano", device, threads, as_json,
            server=server, host=host, port=port, open_page=open_page,
        )  # fmt: skip
        return
    if host is not None or port is not None or open_page:
        raise typer.BadParameter("--host, --port and --open are of the page: add --web or --server")
    _in_the_terminal(out or Path("demo-output"), seed, model, device, threads, as_json)


def _in_the_terminal(
    out: Path, seed: int, model: str | None, device: str, threads: int | None, as_json: bool
) -> None:
    from sam3i_edge.segmenter import Segmenter

    scenes = []
    for name, own, example in (
        ("table", "sam3i-table", table_example),
        ("drawn", "sam3i-nano", draw_example),
    ):
        with Segmenter(model or own, device, threads=threads) as segmenter:
            out.mkdir(parents=True, exist_ok=True)
            scenes.append(_ask(segmenter, out, name, *example(seed)))
    facts = {"seed": seed, "scenes": scenes}
    if as_json:
        print_json(facts)
    else:
        _print(facts)


def _ask(
    segmenter: Segmenter, out: Path, name: str, scene: Scene, instructions: Sequence[Instruction]
) -> dict[str, Any]:
    import numpy as np

    from sam3i_edge.masks import overlay

    picture = overlay.write(scene.pixels(), out / f"{name}.png")
    encoded, answers, notes = segmenter.encode(scene.pixels()), [], list[str]()
    for number, asked in enumerate(instructions, start=1):
        result = encoded.segment(asked.text, level=asked.level)
        notes = list(result.notes)
        target: NDArray[np.bool_] = np.zeros(scene.size, bool)
        for index in asked.targets:
            target |= scene.objects[index].mask
        answers.append(
            {
                "instruction": asked.text,
                "level": asked.level,
                "asked_for": asked.granularity,
                "there": len(asked.targets),
                "found": len(result),
                "presence": result.presence,
                "iou": _iou(result.merged, target),
                "ms": result.timings_ms["total"],
                "overlay": str(result.save(out / f"{name}-{number}-{asked.level}.png")),
            }
        )
    info = segmenter.info
    return {
        "scene": str(picture),
        "model": info.model,
        "device": info.device,
        "runtime": info.runtime,
        "precision": info.precision,
        "notes": notes,
        "answers": answers,
    }


def _iou(found: NDArray[np.bool_], target: NDArray[np.bool_]) -> float:
    """Intersection over union; 1 when nothing was there and nothing was found."""
    union = int((found | target).sum())
    return int((found & target).sum()) / union if union else 1.0


def _print(facts: dict[str, Any]) -> None:
    for shown in facts["scenes"]:
        print_table(
            f"{Path(shown['scene']).name}: {shown['model']} on {shown['device']} ({shown['runtime']}, "
            f"{shown['precision']}), seed {facts['seed']}",
            ("instruction", "level", "there*", "found*", "IoU*", "ms*", "overlay"),
            [
                (
                    answer["instruction"],
                    answer["level"],
                    str(answer["there"]),
                    str(answer["found"]),
                    f"{answer['iou']:.2f}",
                    f"{answer['ms']:.0f}",
                    Path(answer["overlay"]).name,
                )
                for answer in shown["answers"]
            ],
        )
    for text in dict.fromkeys(f"{one['model']}: {text}" for one in facts["scenes"] for text in one["notes"]):
        note(text)
    note("there: objects that the instruction describes; IoU: the found masks against theirs")
    table = Path(facts["scenes"][0]["scene"])
    typer.echo(f"\nThe pictures are in {table.parent}/. Next, ask something yourself:")
    typer.echo(
        f"  sam3i-edge segment {table} 'the rightmost thing' --model {facts['scenes'][0]['model']} "
        f"-o {table.with_name('mine.png')}"
    )
