"""`sam3i-edge segment --topic`: the images of a robot's recording."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

from sam3i_edge.cli.output import note, print_json, progress
from sam3i_edge.levels import Level

if TYPE_CHECKING:
    from sam3i_edge.segmenter import Segmenter


def write_recording(
    recording: str,
    topic: str,
    instruction: str,
    level: Level | Literal["auto"],
    suppress: float | None,
    output: Path | None,
    open_segmenter: Callable[[], Segmenter],
    as_json: bool,
) -> None:
    """Segments every image of a topic, writes a recording of what was found, and tells how much that was."""
    from sam3i_edge.recording import segment_recording

    output = output or Path(f"{Path(recording).stem}-detections")
    with progress() as shown, open_segmenter() as segmenter:
        shown.add_task(f"segmenting {topic}", total=None)
        summary = segment_recording(
            recording,
            topic,
            lambda frames: segmenter.stream(frames, instruction, level=level, suppress=suppress),
            output,
        )
    if summary.unreadable:
        note(f"{summary.unreadable} images were left out; {summary.first_problem}")
    if as_json:
        print_json({"output": str(output), **asdict(summary)})
    else:
        typer.echo(f"{summary.instances} found in {summary.images} images, written to {output}")
