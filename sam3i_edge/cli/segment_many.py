"""What `segment` does with many pictures, or with several instructions."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import typer

from sam3i_edge.cli.output import note, print_json, print_table, rated_progress

if TYPE_CHECKING:
    from sam3i_edge.inputs.find import Input
    from sam3i_edge.many import Report
    from sam3i_edge.outputs.answer import Output
    from sam3i_edge.segmenter import Segmenter


def check_outputs(paths: Sequence[Path], inputs: Sequence[Input], *, shown: bool) -> None:
    """Refuses what cannot be written, before a model is opened.

    Raises:
        ValueError, OSError: an output cannot be written, or there is none.
    """
    from sam3i_edge.masks import overlay
    from sam3i_edge.outputs.open import check_output

    if not paths and not shown:
        raise typer.BadParameter(
            "say where the results go: -o FOLDER, -o FILE.json (COCO), .jsonl or .mp4, or --jsonl"
        )
    places = [path.resolve() for path in paths]
    if twice := [path for number, path in enumerate(paths) if places[number] in places[:number]]:
        raise typer.BadParameter(f"-o {twice[0]} is given twice: give it once")
    for path in paths:
        check_output(path)
        if path.suffix.lower() in overlay.SUFFIXES and [one.count for one in inputs] != [1]:
            raise typer.BadParameter(f"-o {path} is one picture, and there are several: name a folder")


def segment_many_inputs(
    segmenter: Segmenter,
    inputs: Sequence[Input],
    instructions: Sequence[str],
    paths: Sequence[Path],
    *,
    printed: bool,
    watched: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Segments, writes, and says what was done; see `many.segment_many` for the options.

    Raises:
        typer.Exit: a live source was lost, or nothing could be read.
    """
    from sam3i_edge.many import segment_many
    from sam3i_edge.outputs.lines import Printed
    from sam3i_edge.outputs.open import open_output
    from sam3i_edge.outputs.rerun import rerun_log

    info = segmenter.info
    settings = {
        "instructions": list(instructions),
        "model": info.model,
        "runtime": info.runtime,
        "precision": info.precision,
        "threshold": info.threshold,
    }
    counts = [one.count for one in inputs]
    total = None if None in counts else sum(count for count in counts if count is not None)
    said = 0
    with contextlib.ExitStack() as stack:
        outputs: list[Output] = [stack.enter_context(open_output(path, settings)) for path in paths]
        outputs += [Printed(sys.stdout)] if printed else []
        outputs += [stack.enter_context(rerun_log())] if watched else []
        stopped = stack.enter_context(_stopped_by_hand()) if any(one.live for one in inputs) else []
        tell = stack.enter_context(rated_progress("pictures", total))

        def told(report: Report) -> None:
            nonlocal said
            for name, why in list(report.broken.items())[said:]:
                note(why if name in why else f"{name}: {why}")
            said = len(report.broken)
            tell(report.pictures + report.kept + len(report.broken), report.kept + len(report.broken))

        report = segment_many(
            segmenter, inputs, instructions, outputs, told=told, stopped=lambda: bool(stopped), **options
        )
    _say(report, paths, printed=printed, as_json=as_json)
    if report.lost is not None:
        note(report.lost)
    if report.lost is not None or (report.broken and not report.pictures + report.kept):
        raise typer.Exit(1)


def _say(report: Report, paths: Sequence[Path], *, printed: bool, as_json: bool) -> None:
    title = (
        f"{report.pictures:,} pictures segmented, {report.kept:,} were there from a run before, "
        f"{len(report.broken):,} could not be read"
    )
    if as_json:
        print_json({"outputs": [str(path) for path in paths], **asdict(report)})
    elif printed:
        note(title)
    else:
        print_table(
            title, ("instruction", "found*"), [(text, f"{n:,}") for text, n in report.instances.items()]
        )
    for path in paths:
        note(f"written to {path}")


@contextlib.contextmanager
def _stopped_by_hand() -> Iterator[list[int]]:
    """A list that Ctrl+C fills, so that the picture at hand is finished; the second Ctrl+C interrupts."""
    stopped: list[int] = []

    def stop(number: int, _: FrameType | None) -> None:
        if stopped:
            raise KeyboardInterrupt
        stopped.append(number)

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield stopped
    finally:
        signal.signal(signal.SIGINT, before)
