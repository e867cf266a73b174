"""`sam3i-edge demo`: draws a scene, asks about it at every level, and shows how right the answers are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sam3i_edge.cli.drawn_example import draw_example
from sam3i_edge.cli.output import Json, note, print_json, print_table
from sam3i_edge.cli.segment import Device, Model, Threads

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def demo(
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Folder for the pictures [default: demo-output]; with --web for the page, to be hosted.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", "-s", min=0, help="Another seed draws another scene.")] = 11,
    model: Model = "sam3i-nano",
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
    """Draws a scene, segments it by instructions of every level, and compares with what was drawn.

    With --web or --server a page does the segmenting, of pictures and cameras, until Ctrl+C.
    """
    if web or server:
        from sam3i_edge.cli.demo_page import page

        page(
            out, seed, model, device, threads, as_json,
            server=server, host=host, port=port, open_page=open_page,
        )  # fmt: skip
        return
    if host is not None or port is not None or open_page:
        raise typer.BadParameter("--host, --port and --open are of the page: add --web or --server")
    _in_the_terminal(out or Path("demo-output"), seed, model, device, threads, as_json)


def _in_the_terminal(
    out: Path, seed: int, model: str, device: str, threads: int | None, as_json: bool
) -> None:
    import numpy as np

    from sam3i_edge.masks import overlay
    from sam3i_edge.segmenter import Segmenter

    drawn, instructions = draw_example(seed)
    with Segmenter(model, device, threads=threads) as segmenter:
        out.mkdir(parents=True, exist_ok=True)
        picture = overlay.write(drawn.pixels(), out / "scene.png")
        scene = segmenter.encode(drawn.pixels())
        answers, notes = [], list[str]()
        for number, asked in enumerate(instructions, start=1):
            result = scene.segment(asked.text, level=asked.level)
            notes = list(result.notes)
            target: NDArray[np.bool_] = np.any(drawn.masks[list(asked.targets)], axis=0)
            answers.append(
                {
                    "instruction": asked.text,
                    "level": asked.level,
                    "asked_for": asked.granularity,
                    "drawn": len(asked.targets),
                    "found": len(result),
                    "presence": result.presence,
                    "iou": _iou(result.merged, target),
                    "ms": result.timings_ms["total"],
                    "overlay": str(result.save(out / f"{number}-{asked.level}.png")),
                }
            )
        info = segmenter.info
    facts = {
        "scene": str(picture),
        "seed": seed,
        "model": info.model,
        "device": info.device,
        "runtime": info.runtime,
        "precision": info.precision,
        "notes": notes,
        "answers": answers,
    }
    if as_json:
        print_json(facts)
    else:
        _print(facts, answers)


def _iou(found: NDArray[np.bool_], target: NDArray[np.bool_]) -> float:
    """Intersection over union; 1 when nothing was there and nothing was found."""
    union = int((found | target).sum())
    return int((found & target).sum()) / union if union else 1.0


def _print(facts: dict[str, Any], answers: list[dict[str, Any]]) -> None:
    print_table(
        f"{facts['model']} on {facts['device']} ({facts['runtime']}, {facts['precision']}), "
        f"a scene drawn with seed {facts['seed']}",
        ("instruction", "level", "drawn*", "found*", "IoU*", "ms*", "overlay"),
        [
            (
                answer["instruction"],
                answer["level"],
                str(answer["drawn"]),
                str(answer["found"]),
                f"{answer['iou']:.2f}",
                f"{answer['ms']:.0f}",
                Path(answer["overlay"]).name,
            )
            for answer in answers
        ],
    )
    for text in facts["notes"]:
        note(f"{facts['model']}: {text}")
    scene = Path(facts["scene"])
    note("drawn: objects that the instruction describes; IoU: the found masks against the drawn ones")
    typer.echo(f"\nThe pictures are in {scene.parent}/. Next, ask something yourself:")
    typer.echo(f"  sam3i-edge segment {scene} 'the largest shape' -o {scene.with_name('mine.png')}")
