"""`sam3i-edge segment`: one image, asked by an instruction, by boxes, or by both."""

from __future__ import annotations

import sys
from functools import partial
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


def _check_threads(threads: int | None) -> int | None:
    from sam3i_edge.runtimes import check_threads

    try:
        check_threads(threads)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    return threads


Threads = Annotated[
    int | None,
    typer.Option("--threads", callback=_check_threads, help="Threads to compute with. [default: one a core]"),
]


def segment(
    image: Annotated[
        str, typer.Argument(help="An image file, - for standard input, or a recording with --topic.")
    ],
    instruction: Annotated[
        str | None,
        typer.Argument(help="What to segment: 'the red star left of the ring'. May be left out with --box."),
    ] = None,
    box: Annotated[
        list[str] | None,
        typer.Option(
            "--box",
            metavar="X0,Y0,X1,Y1[:+|-]",
            help="An example, in pixels; with :- of what is not meant. May be given several times.",
        ),
    ] = None,
    model: Model = "sam3i-nano",
    device: Device = "auto",
    precision: Precision = "auto",
    level: Annotated[str, typer.Option("--level", "-l", help=f"auto, {', '.join(LEVELS)}.")] = "auto",
    threshold: Annotated[
        float | None,
        typer.Option("--threshold", "-t", min=0, max=1, help="Least score, 0 to 1. [default: the model's]"),
    ] = None,
    suppress: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="Keep only the best of instances whose masks overlap by more than this IoU."
        ),
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
    topic: Annotated[
        str | None,
        typer.Option(
            help="Of the images in a recording (.mcap, .bag, a rosbag2 folder): every one is segmented, and "
            "what was found is written as a recording. [default of --output: RECORDING-detections here]"
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Segments what INSTRUCTION describes in IMAGE, or what boxes show, and draws it."""
    from sam3i_edge.cli.recording import write_recording
    from sam3i_edge.masks import overlay
    from sam3i_edge.pipeline.instruction import check_instruction
    from sam3i_edge.pipeline.preprocess import load_image
    from sam3i_edge.pipeline.prompt import BoxPrompt
    from sam3i_edge.segmenter import Segmenter

    # What can be refused cheaply is refused before a model is opened.
    asked = cast("Level | Literal['auto']", level if level == "auto" else as_level(level))
    open_segmenter = partial(Segmenter, model, device, precision, threshold=threshold, threads=threads)
    corners, box_labels = zip(*map(_read_box, box), strict=True) if box else (None, None)
    if instruction is not None:
        check_instruction(instruction)
    elif not box:
        raise typer.BadParameter("give an INSTRUCTION, --box, or both")
    if topic is not None:
        if instruction is None or box:
            raise typer.BadParameter("a recording is asked by an INSTRUCTION, without --box")
        return write_recording(image, topic, instruction, asked, suppress, output, open_segmenter, as_json)
    if output is None and not as_json:
        output = Path(f"{'image' if image == '-' else Path(image).stem}-segmented.png")
    if output is not None:
        overlay.check_path(output)
    pixels = load_image(sys.stdin.buffer.read() if image == "-" else image)
    if corners is not None:
        BoxPrompt.of(corners).check_inside((pixels.shape[0], pixels.shape[1]))
    with progress() as shown:
        shown.add_task(f"opening {model}", total=None)
        segmenter = open_segmenter()
    with segmenter:
        result = segmenter.segment(
            pixels, instruction, boxes=corners, box_labels=box_labels, level=asked, suppress=suppress
        )
    if output is not None:
        result.save(output)
    if as_json:
        print_json(result.to_dict())
    else:
        _print(result)
    _warn(result)
    if output is not None:
        note(f"overlay written to {output}")


def _read_box(text: str) -> tuple[list[float], int]:
    """Corners and label of "x0,y0,x1,y1" or "x0,y0,x1,y1:-"."""
    sides, colon, sign = text.partition(":")
    try:
        corners = [float(side) for side in sides.split(",")]
    except ValueError:
        corners = []
    if len(corners) != 4 or sign not in (("+", "-") if colon else ("",)):
        raise typer.BadParameter(
            f"--box {text!r}: want x0,y0,x1,y1 in pixels and then :+, :- or nothing, as in 10,20,60,80:-"
        )
    return corners, 0 if sign == "-" else 1


def _print(result: Result) -> None:
    rows = [
        (str(number), f"{score:.3f}", ", ".join(f"{side:.1f}" for side in box), f"{area:,}")
        for number, (score, box, area) in enumerate(
            zip(result.scores, result.boxes, result.areas, strict=True), start=1
        )
    ]
    chosen = "chosen by its wording" if result.level_chosen_by == "auto" else "as asked"
    if result.instruction is None:
        title = f"{len(result)} found by boxes (presence {result.presence:.2f})"
    else:
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
    for text in result.notes:
        note(f"{result.model}: {text}")
    if result.tokens_cut:
        note(f"the instruction was too long: its last {result.tokens_cut} tokens were not read")
    if result.truncated:
        note("every query of the detector passed the threshold: there may be more instances")
