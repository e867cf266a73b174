"""`sam3i-edge segment`: pictures, asked by instructions, and one of them by boxes too."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from sam3i_edge.cli.output import Json, note, print_json, print_table, progress
from sam3i_edge.cli.segment_many import check_outputs, segment_many_inputs
from sam3i_edge.levels import LEVELS, Level, LevelChooser, as_level

if TYPE_CHECKING:
    from sam3i_edge.result import Result
    from sam3i_edge.segmenter import Segmenter

_CHOSEN: Mapping[LevelChooser, str] = {
    "caller": "as asked",
    "auto": "chosen by its wording",
    "router": "chosen by the model's router",
}
Model = Annotated[
    str,
    typer.Option(
        "--model", "-m", help="sam3i-nano, sam3i-table, the folder of a bundle, or a Hub id org/name."
    ),
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
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT... [INSTRUCTION]",
            help="Pictures, folders, patterns such as 'photos/*.jpg', videos, the number of a camera, "
            "addresses, or - for a picture on standard input; then what to segment: 'the red star left of "
            "the ring'. It may be left out with --box, -i or --instructions.",
        ),
    ],
    instruction: Annotated[
        list[str] | None, typer.Option("--instruction", "-i", help="May be given several times.")
    ] = None,
    instructions: Annotated[
        Path | None,
        typer.Option("--instructions", metavar="FILE", help="A text file, an instruction a line."),
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
    runtime: Annotated[str, typer.Option("--runtime", help="auto or one that serves the device.")] = "auto",
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
    every: Annotated[int, typer.Option("--every", min=1, help="Of frames, take one of so many.")] = 1,
    track: Annotated[
        str | None,
        typer.Option("--track", metavar="TRACKER", help="Ids from frame to frame: iou, bytetrack or ocsort."),
    ] = None,
    smooth: Annotated[
        float | None,
        typer.Option(min=0, help="With --track, how much of a track's score before stays, below 1."),
    ] = None,
    rerun: Annotated[
        bool, typer.Option("--rerun", help="Show it in rerun's viewer; -o FILE.rrd keeps it.")
    ] = False,
    bgr: Annotated[
        bool, typer.Option("--bgr", help="Arrays (.npy) are in OpenCV's order, blue first.")
    ] = False,
    threads: Threads = None,
    output: Annotated[
        list[Path] | None,
        typer.Option(
            "--output",
            "-o",
            help="A picture (.png, .jpg), a folder of them, a video (.mp4), COCO (.json), lines (.jsonl), "
            "rerun (.rrd), Foxglove (.mcap). May be given several times; folders, .json and .jsonl go on "
            "where they stopped. [default: of one picture IMAGE-segmented.png here; none with --json]",
        ),
    ] = None,
    topic: Annotated[
        str | None,
        typer.Option(
            help="Of the images in a recording (.mcap, .bag, a rosbag2 folder): every one is segmented, and "
            "what was found is written as a recording. [default of --output: RECORDING-detections here]"
        ),
    ] = None,
    jsonl: Annotated[bool, typer.Option("--jsonl", help="Print one line of JSON a picture.")] = False,
    as_json: Json = False,
) -> None:
    """Segments what an instruction describes, or what boxes show, in one picture or in many."""
    from sam3i_edge.cli.recording import write_recording
    from sam3i_edge.inputs.find import find_inputs
    from sam3i_edge.pipeline.instruction import check_instruction, read_instructions
    from sam3i_edge.pipeline.video import silence_opencv
    from sam3i_edge.segmenter import Segmenter
    from sam3i_edge.tracking import TRACKERS

    # What can be refused cheaply is refused before a model is opened.
    asked = cast("Level | Literal['auto']", level if level == "auto" else as_level(level))
    if jsonl and as_json:
        raise typer.BadParameter("--json is one object and --jsonl a line a picture: give one of them")
    if track is not None and track not in TRACKERS:
        raise typer.BadParameter(f"--track {track!r}: choose from {', '.join(TRACKERS)}")
    if smooth is not None and (track is None or smooth >= 1):
        raise typer.BadParameter("--smooth is of the scores of tracks, and below 1: give --track too")
    texts = list(instruction or ()) + ([] if instructions is None else read_instructions(instructions))
    if not texts and len(inputs) > 1:
        *inputs, last = inputs
        if os.path.isfile(last):
            raise typer.BadParameter(f"{last} is a file and no INSTRUCTION: say what to segment with -i")
        texts = [last]
    for text in texts:
        check_instruction(text)
    if not texts and not box:
        raise typer.BadParameter("give an INSTRUCTION, --box, or both")
    paths = output or []
    open_segmenter = partial(
        Segmenter, model, device, precision, runtime, threshold=threshold, threads=threads, image_cache=0
    )
    if topic is not None:
        if len(inputs) > 1 or len(texts) != 1 or box or len(paths) > 1:
            raise typer.BadParameter("a recording is asked by one INSTRUCTION, without --box")
        output_folder = paths[0] if paths else None
        write_recording(inputs[0], topic, texts[0], asked, suppress, output_folder, open_segmenter, as_json)
        return
    if os.environ.get("SAM3I_LOG") != "debug":
        silence_opencv()
    if len(inputs) == 1 and len(texts) < 2 and not (jsonl or track or bgr or rerun or every > 1):
        picture = _one_picture(inputs[0], paths)
        if picture is not None:
            with_model = partial(_opened, model, open_segmenter)
            _segment_one(picture, texts, box or [], asked, suppress, with_model, paths, as_json)
            return
    if box:
        raise typer.BadParameter("--box is of one picture and at most one instruction")
    found = find_inputs(inputs, stdin=sys.stdin.buffer.read, every=every)
    if track is not None and not any(one.moving for one in found):
        raise typer.BadParameter("--track is for the frames of videos and cameras, and there are none")
    if bgr and not any(one.arrays for one in found):
        raise typer.BadParameter("--bgr is for arrays (.npy); pictures, videos and cameras tell their order")
    check_outputs(paths, found, shown=jsonl or rerun)
    with _opened(model, open_segmenter) as segmenter:
        segment_many_inputs(
            segmenter,
            found,
            texts,
            paths,
            printed=jsonl,
            watched=rerun,
            as_json=as_json,
            level=asked,
            suppress=suppress,
            tracker=track,
            smoothing=smooth or 0.0,
            bgr=bgr,
        )


def _opened(model: str, open_segmenter: Callable[[], Segmenter]) -> Segmenter:
    with progress() as shown:
        shown.add_task(f"opening {model}", total=None)
        return open_segmenter()


def _one_picture(text: str, paths: Sequence[Path]) -> str | bytes | None:
    """What `load_image` takes, where the text names one picture whose answer goes to one picture at most."""
    from sam3i_edge.inputs.find import is_one_picture
    from sam3i_edge.masks import overlay

    if len(paths) > 1 or any(path.suffix.lower() not in overlay.SUFFIXES for path in paths):
        return None
    if text == "-":
        return sys.stdin.buffer.read()
    return text if is_one_picture(text) else None


def _segment_one(
    picture: str | bytes,
    texts: Sequence[str],
    box: Sequence[str],
    level: Level | Literal["auto"],
    suppress: float | None,
    open_segmenter: Callable[[], Segmenter],
    paths: Sequence[Path],
    as_json: bool,
) -> None:
    from sam3i_edge.masks import overlay
    from sam3i_edge.pipeline.preprocess import load_image
    from sam3i_edge.pipeline.prompt import BoxPrompt

    corners, box_labels = zip(*map(_read_box, box), strict=True) if box else (None, None)
    output = paths[0] if paths else None
    if output is None and not as_json:
        output = Path(f"{'image' if isinstance(picture, bytes) else Path(picture).stem}-segmented.png")
    if output is not None:
        overlay.check_path(output)
    pixels = load_image(picture)
    if corners is not None:
        BoxPrompt.of(corners).check_inside((pixels.shape[0], pixels.shape[1]))
    with open_segmenter() as segmenter:
        result = segmenter.segment(
            pixels,
            texts[0] if texts else None,
            boxes=corners,
            box_labels=box_labels,
            level=level,
            suppress=suppress,
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
    chosen = _CHOSEN[result.level_chosen_by]
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
