"""`sam3i-edge segment`: one image, one instruction."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from sam3i_edge.cli.output import Json, note, print_json, print_table, progress
from sam3i_edge.levels import LEVELS, Level, as_level

if TYPE_CHECKING:
    from sam3i_edge.result import Result

Model = Annotated[
    str, typer.Option("--model", "-m", help="sam3i-nano, the folder of a bundle, or a Hub id org/name.")
]
Device = Annotated[str, typer.Option("--device", "-d", help="auto or a device, such as cpu.")]
Precision = Annotated[str, typer.Option("--precision", "-p", help="auto or one the model has, such as fp32.")]
Threads = Annotated[
    int | None, typer.Option("--threads", min=1, help="Threads to compute with. [default: one a core]")
]


def segment(
    image: Annotated[str, typer.Argument(help="An image file, or - for standard input.")],
    instruction: Annotated[str, typer.Argument(help="What to segment: 'the red star left of the ring'.")],
    model: Model = "sam3i-nano",
    device: Device = "auto",
    precision: Precision = "auto",
    level: Annotated[str, typer.Option("--level", "-l", help=f"auto, {', '.join(LEVELS)}.")] = "auto",
    threshold: Annotated[
        float | None,
        typer.Option("--threshold", "-t", min=0, max=1, help="Least score, 0 to 1. [default: the model's]"),
    ] = None,
    threads: Threads = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Overlay to write, .png or .jpg. [default: IMAGE-segmented.png here; none with --json]",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Segments what INSTRUCTION describes in IMAGE and draws it."""
    from sam3i_edge import overlay
    from sam3i_edge.preprocess import load_image
    from sam3i_edge.segmenter import Segmenter
    from sam3i_edge.tokenizer import check_instruction

    # What can be refused cheaply is refused before a model is opened.
    asked = cast("Level | Literal['auto']", level if level == "auto" else as_level(level))
    check_instruction(instruction)
    if output is None and not as_json:
        output = Path(f"{'image' if image == '-' else Path(image).stem}-segmented.png")
    if output is not None:
        overlay.check_path(output)
    pixels = load_image(sys.stdin.buffer.read() if image == "-" else image)
    with progress() as shown:
        shown.add_task(f"opening {model}", total=None)
        segmenter = Segmenter(model, device, precision, threshold=threshold, threads=threads)
    with segmenter:
        result = segmenter.segment(pixels, instruction, level=asked)
    if output is not None:
        result.save(output)
    if as_json:
        print_json(result.to_dict())
    else:
        _print(result)
    _warn(result)
    if output is not None:
        note(f"overlay written to {output}")


def _print(result: Result) -> None:
    rows = [
        (str(number), f"{score:.3f}", ", ".join(f"{side:.1f}" for side in box), f"{area:,}")
        for number, (score, box, area) in enumerate(
            zip(result.scores, result.boxes, result.areas, strict=True), start=1
        )
    ]
    chosen = "chosen by its wording" if result.level_chosen_by == "auto" else "as asked"
    title = (
        f"{len(result)} found for '{result.instruction}' (level {result.level}, {chosen}; "
        f"presence {result.presence:.2f})"
    )
    print_table(title, ("#*", "score*", "box x0, y0, x1, y1 px*", "area px*") if rows else (), rows)
    typer.echo(
        f"{result.model} on {result.device} ({result.runtime}, {result.precision}): "
        f"{result.timings_ms['total']:.0f} ms"
    )


def _warn(result: Result) -> None:
    if result.tokens_cut:
        note(f"the instruction was too long: its last {result.tokens_cut} tokens were not read")
    if result.truncated:
        note("every query of the detector passed the threshold: there may be more instances")
