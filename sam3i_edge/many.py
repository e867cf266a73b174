"""Many pictures, one after the other, to any outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from sam3i_edge.errors import ImageError, StreamError
from sam3i_edge.following import Follower
from sam3i_edge.inputs.find import Input
from sam3i_edge.inputs.picture import Picture
from sam3i_edge.levels import Level
from sam3i_edge.outputs.answer import Answer, Output
from sam3i_edge.segmenter import Segmenter
from sam3i_edge.tracking import TrackerName


@dataclass(slots=True)
class Report:
    """What a run did.

    Attributes:
        pictures: that were segmented.
        kept: that a run before had segmented.
        instances: that were found, by instruction.
        broken: name and reason of each that could not be read, in this run or before; of a video, why it
            ended early.
        lost: why a live source ended, or None.
    """

    pictures: int = 0
    kept: int = 0
    instances: dict[str, int] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    lost: str | None = None


def segment_many(
    segmenter: Segmenter,
    inputs: Sequence[Input],
    instructions: Sequence[str],
    outputs: Sequence[Output],
    *,
    level: Level | Literal["auto"] = "auto",
    threshold: float | None = None,
    suppress: float | None = None,
    tracker: TrackerName | None = None,
    smoothing: float = 0.0,
    bgr: bool = False,
    told: Callable[[Report], None] = lambda report: None,
    stopped: Callable[[], bool] = lambda: False,
) -> Report:
    """Asks every instruction of every picture, and writes what was found to the outputs.

    A picture is encoded once. What an output has from a run before is not written to it again, and a picture
    that all have is not segmented again; with a tracker frames are, so that their ids are the same. A picture
    that cannot be read, or a video that ends early, is counted and named in the outputs, and the next one
    follows. A live source that is lost ends, and the report says why.

    Args:
        segmenter: asked; without an image cache it holds one picture at a time.
        inputs: of `find_inputs`.
        instructions: at least one.
        outputs: of `open_output`.
        level: as in `Segmenter.segment`.
        threshold: likewise.
        suppress: likewise.
        tracker: gives the instances of videos and cameras their ids, one tracker an instruction.
        smoothing: as in `Segmenter.stream`, where there is a tracker.
        bgr: arrays in files are in OpenCV's order.
        told: called after each picture.
        stopped: asked after each picture; True ends the run as if there were no more.

    Raises:
        OSError: an output cannot be written.
        RuntimeUnavailable: as in `Segmenter.segment`.
    """
    report = Report(instances=dict.fromkeys(instructions, 0))
    for one in inputs:
        follow = None
        if tracker is not None and one.moving:
            follow = [Follower(tracker, smoothing) for _ in instructions]
        for picture, failed in _pictures(one, report):
            waiting = [output for output in outputs if picture.name not in output.kept]
            if not waiting and (follow is None or failed is not None):
                _count_kept(report, picture.name, outputs)
                told(report)
                continue
            answer = Answer(picture.name, error=failed)
            if failed is None:
                try:
                    pixels = picture.read(bgr=bgr)
                except ImageError as error:
                    answer = Answer(picture.name, error=str(error))
                else:
                    results = segmenter.segment(
                        pixels, list(instructions), level=level, threshold=threshold, suppress=suppress
                    )
                    if follow is not None:
                        results = [its.follow(result) for its, result in zip(follow, results, strict=True)]
                    answer = Answer(picture.name, results, picture.seconds)
            for output in waiting:
                output.write(answer)
            if waiting:
                _count(report, answer)
            else:
                _count_kept(report, picture.name, outputs)
            told(report)
            if stopped():
                return report
    return report


def _pictures(one: Input, report: Report) -> Iterator[tuple[Picture, str | None]]:
    """The pictures of an input; one more stands for what ended it early, with the reason."""
    try:
        for picture in one.pictures():
            yield picture, None
    except StreamError as error:
        if one.live:
            report.lost = str(error)
        else:
            yield Picture(f"{one.name}/end", b""), str(error)


def _count(report: Report, answer: Answer) -> None:
    if answer.error is not None:
        report.broken[answer.name] = answer.error
        return
    report.pictures += 1
    for result in answer.results:
        report.instances[result.instruction or ""] += len(result)


def _count_kept(report: Report, name: str, outputs: Sequence[Output]) -> None:
    error = next((output.kept[name] for output in outputs), None)
    if error is None:
        report.kept += 1
    else:
        report.broken[name] = error
