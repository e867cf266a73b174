"""The process of one row: opens one variant, and answers the commands that come on its standard input.

A command is a pickled (name, arguments); an answer (value, problem), where one of both is None.
"""

from __future__ import annotations

import os
import pickle
import sys
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from sam3i_edge.devices.machine import peak_memory
from sam3i_edge.errors import Sam3iError

if TYPE_CHECKING:
    from sam3i_edge.agreement import Instances, Pair
    from sam3i_edge.data.annotations import Record
    from sam3i_edge.measure.questions import Question
    from sam3i_edge.segmenter import Segmenter

Timed = tuple[dict[str, list[float]], float | None]


class Session:
    """One opened variant and what can be asked of it."""

    def __init__(self) -> None:
        self._opened: Segmenter | None = None
        self._questions: tuple[Question, ...] = ()
        self._asked = 0

    def open(self, folder: Path, device: str, precision: str, runtime: str, threads: int) -> None:
        """Opens the variant on as many cores as threads; nothing is cached, so every query is a whole one."""
        hold_to(threads)
        from sam3i_edge.segmenter import Segmenter

        self._opened = Segmenter(
            folder, device, precision, runtime, threads=threads, image_cache=0, instruction_cache=0
        )

    @property
    def _segmenter(self) -> Segmenter:
        if self._opened is None:
            raise RuntimeError("a session is opened first")
        return self._opened

    def ask(self, question: Question, count: int = 1) -> int:
        """Answers one question `count` times, masks included; gives the instances found last."""
        found = 0
        for _ in range(count):
            result = self._segmenter.segment(question.image, question.text, level=question.level)
            found = len(result.masks)
        return found

    def peak_memory(self) -> int:
        """Most memory that this process has held, bytes."""
        return peak_memory()

    def answers(self, pairs: Sequence[Pair]) -> list[Instances]:
        """What the variant finds in each pair."""
        from sam3i_edge.agreement import Instances

        found = []
        for pair in pairs:
            result = self._segmenter.segment(pair.image, pair.text, level=pair.level)
            found.append(Instances(scores=result.scores, boxes=result.boxes, masks=result.masks))
        return found

    def accuracy(self, records: Sequence[Record], images: Path) -> dict[str, float | int | None]:
        """Accuracy over annotated records."""
        from sam3i_edge.evaluate.run import evaluate

        cell = evaluate(self._segmenter, records, images).cell()
        return {
            "pairs": cell.pairs,
            "giou": cell.giou,
            "p_at_50": cell.p_at_50,
            "presence": cell.presence_accuracy,
        }

    def load(self, questions: Sequence[Question]) -> None:
        """Takes the questions that `timed` asks."""
        self._questions = tuple(questions)

    def timed(self, count: int) -> Timed:
        """Asks the next `count` questions in turn.

        Returns:
            Step -> ms by query, and the joules of all, or None where they cannot be read. Making the masks as
            run lengths is part of the post-processing.
        """
        from sam3i_edge.measure.energy import meter_of
        from sam3i_edge.measure.schema import END_TO_END, INSTRUCTION, STEPS

        meter = meter_of(self._segmenter.info.device)
        before = None if meter is None else meter.read()
        times: dict[str, list[float]] = {name: [] for name in (*STEPS, INSTRUCTION, END_TO_END)}
        for _ in range(count):
            question = self._questions[self._asked % len(self._questions)]
            self._asked += 1
            started = time.perf_counter()
            result = self._segmenter.segment(question.image, question.text, level=question.level)
            answered = time.perf_counter()
            _ = result.mask_rle
            ended = time.perf_counter()
            spent = {name: result.timings_ms[name] for name in STEPS}
            spent["postprocess"] += 1e3 * (ended - answered)
            for name in STEPS:
                times[name].append(spent[name])
            times[INSTRUCTION].append(sum(spent[name] for name in STEPS[2:]))
            times[END_TO_END].append(1e3 * (ended - started))
        after = None if meter is None else meter.read()
        if meter is None or before is None or after is None:
            return times, None
        return times, meter.joules(before, after)


def hold_to(cores: int) -> None:
    """Holds this process to as many cores, where the system can do that."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, set(islice(sorted(os.sched_getaffinity(0)), cores)))


def serve(session: object, commands: BinaryIO, answers: BinaryIO) -> None:
    """Answers commands, each the name of a session's method and its arguments, until their stream ends."""
    while True:
        try:
            name, arguments = pickle.load(commands)
        except EOFError:
            return
        value, problem = None, None
        try:
            value = getattr(session, name)(*arguments)
        except (Sam3iError, ValueError, OSError, MemoryError) as error:
            problem = f"{type(error).__name__}: {' '.join(str(error).split())}"
        pickle.dump((value, problem), answers, protocol=pickle.HIGHEST_PROTOCOL)
        answers.flush()


def answer(session: object) -> None:
    """Serves a session on this process's standard input and output."""
    # What a runtime prints must not mix with the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(session, sys.stdin.buffer, answers)


if __name__ == "__main__":
    answer(Session())
