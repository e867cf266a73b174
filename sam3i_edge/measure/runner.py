"""Runs the rows of a plan, each in a process of its own, and keeps what was found if it is interrupted."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from sam3i_edge.data.annotations import IMAGES, Record, write_scenes
from sam3i_edge.devices import machine
from sam3i_edge.errors import ParityError, RuntimeUnavailable, Sam3iError
from sam3i_edge.levels import LEVELS, Level
from sam3i_edge.measure import conditions, statistics
from sam3i_edge.measure.plan import Plan, Planned
from sam3i_edge.measure.process import RowProcess, cold_start
from sam3i_edge.measure.questions import PICTURE, Question, at_level, gate_pairs, questions
from sam3i_edge.measure.sampling import Samples, measure
from sam3i_edge.measure.schema import END_TO_END, Accuracy, Results, Row, Settings

if TYPE_CHECKING:
    from sam3i_edge.agreement import Instances

# Scenes that neither training, evaluation nor the gates draw.
_SCENE_SEED = 20_261_107

Tell = Callable[[str], None]


BUDGETS = {
    "quick": {"queries": 64, "seconds": 0, "pairs": 240, "starts": 2, "scenes": 40},
    "full": {"queries": 64, "seconds": 10, "pairs": 400, "starts": 5, "scenes": 300},
}


@dataclass(frozen=True, slots=True)
class Data:
    """Records to measure accuracy on, and the folder of their pictures."""

    records: Sequence[Record]
    images: Path


def settings(budget: str, threads: int, data: Path | None) -> Settings:
    """The settings of a run.

    Raises:
        ValueError: no such budget.
    """
    if budget not in BUDGETS:
        raise ValueError(f"unknown budget {budget!r}; choose from {', '.join(BUDGETS)}")
    name = data.absolute().name if data else None
    return Settings.model_validate(
        {"budget": budget, **BUDGETS[budget], "threads": threads, "data": name, "picture": PICTURE}
    )


def drawn(scenes: int, folder: Path) -> Data:
    """Draws as many scenes to measure accuracy on into a new folder."""
    return Data(write_scenes(folder, scenes, _SCENE_SEED), folder / IMAGES)


def blank(plan: Plan, chosen: Settings) -> Results:
    """Results without rows yet."""
    return Results(
        complete=False,
        started=conditions.now(),
        machine=machine.inspect(),
        versions=conditions.versions(),
        commit=conditions.commit(),
        settings=chosen,
        skipped=plan.skipped,
    )


def run(
    plan: Plan,
    results: Results,
    *,
    data: Data | None = None,
    levels: Sequence[Level] = LEVELS,
    tell: Tell | None = None,
    keep: Callable[[Results], None] | None = None,
) -> Results:
    """Measures every row of a plan at every level that it answers.

    Args:
        plan: what to run.
        results: from `blank`; its settings hold.
        data: what to measure accuracy on; None draws scenes.
        levels: which to measure.
        tell: called with a word on each step.
        keep: called with the results after every row, to write them down.

    Returns:
        All rows. After Ctrl-C those so far and the row that was cut off, with `complete` False.

    Raises:
        Sam3iError: the data's pictures are missing, or scenes cannot be drawn.
        OSError: `keep` cannot write.
    """
    say = tell or (lambda _: None)
    scenes = results.settings.scenes
    current: Row | None = None
    try:
        with TemporaryDirectory(prefix="sam3i-edge-") as scratch:
            if data is None:
                say(f"drawing {scenes} scenes")
                data = drawn(scenes, Path(scratch) / "scenes")
            with contextlib.closing(Bench(plan, results.settings, data, say)) as bench:
                for level in levels:
                    for planned in (row for row in plan.rows if level in row.levels):
                        current = started(planned, level)
                        row = bench.row(planned, level, current)
                        results = results.model_copy(update={"rows": (*results.rows, row)})
                        current = None
                        if keep is not None:
                            keep(results)
    except KeyboardInterrupt:
        cut = () if current is None else (_ended(current, "interrupted", "interrupted by Ctrl-C"),)
        return results.model_copy(update={"rows": (*results.rows, *cut), "finished": conditions.now()})
    return results.model_copy(update={"complete": True, "finished": conditions.now()})


def started(planned: Planned, level: Level) -> Row:
    """A row that begins now, with nothing measured yet."""
    return Row(
        model=planned.model,
        variant=planned.variant,
        device=planned.device,
        runtime=planned.runtime,
        precision=planned.precision,
        level=level,
        image_size=planned.side,
        status="ok",
        size_bytes=planned.size_bytes,
        before=conditions.now(),
    )


def _ended(row: Row, status: str, problem: str | None = None) -> Row:
    return row.model_copy(update={"status": status, "problem": problem, "after": conditions.now()})


class Bench:
    """Measures rows one by one, beside the float row of the same bundle and level, which stays open."""

    def __init__(self, plan: Plan, chosen: Settings, data: Data, tell: Tell) -> None:
        self._plan, self._settings, self._data, self._tell = plan, chosen, data, tell
        self._float: tuple[tuple[Path, Level], RowProcess] | None = None
        self._questions = cache(questions)
        self._pairs = cache(lambda levels: gate_pairs(chosen.pairs, levels))
        self._expected: dict[Path, list[Instances]] = {}
        self._agreed: dict[tuple[str, str, str, str], tuple[dict[str, float], str | None]] = {}

    def row(self, planned: Planned, level: Level, row: Row) -> Row:
        """Measures one row; what goes wrong with it is told in the row."""
        name = f"{planned.name} {level}"
        try:
            self._tell(f"{name}: agreement with the float model")
            process = self._reference(planned, level)
            reference = self._plan.references[planned.bundle.root]
            same = (planned.variant, planned.device) == (reference.variant, reference.device)
            with RowProcess(planned, self._settings.threads) as own:
                own.start(self._questions(level)[0])
                agreement, problem = self._agreement(planned, own, process)
                row = row.model_copy(update={"agreement": agreement, "reference": same})
                if problem is not None:
                    return _ended(row, "disagrees", problem)
                self._tell(f"{name}: accuracy")
                row = row.model_copy(update={"accuracy": self._accuracy(own, level)})
                self._tell(f"{name}: cold start and memory")
                row = row.model_copy(update=self._cold(planned, level))
                self._tell(f"{name}: latency")
                own.call("load", self._questions(level))
                taken = measure(
                    own,
                    None if same else process,
                    queries=self._settings.queries,
                    seconds=self._settings.seconds,
                )
                return _ended(row.model_copy(update=_speed(taken)), "ok")
        except (Sam3iError, OSError) as error:
            return _ended(row, "failed", " ".join(str(error).split()))

    def close(self) -> None:
        """Ends the float row's process."""
        if self._float is not None:
            self._float[1].close()
            self._float = None

    def _reference(self, planned: Planned, level: Level) -> RowProcess:
        """The process of the bundle's float row, with the questions of a level."""
        key = planned.bundle.root, level
        if self._float is None or self._float[0] != key:
            self.close()
            reference = self._plan.references.get(planned.bundle.root)
            if reference is None:
                raise RuntimeUnavailable(
                    f"{planned.bundle.manifest.name} has no fp32 variant that runs here, so nothing says "
                    "what the right answers are: add one with 'sam3i-edge export'"
                )
            process = RowProcess(reference, self._settings.threads)
            self._float = key, process
            try:
                process.start(self._questions(level)[0])
                process.call("load", self._questions(level))
            except RuntimeUnavailable:
                self.close()
                raise
        return self._float[1]

    def _agreement(
        self, planned: Planned, own: RowProcess, reference: RowProcess
    ) -> tuple[dict[str, float], str | None]:
        """Figures of a configuration over all of its levels, and what it misses; compared once."""
        from sam3i_edge.agreement import check, compare

        if planned.key not in self._agreed:
            pairs, root = self._pairs(planned.levels), planned.bundle.root
            if root not in self._expected:
                self._expected[root] = reference.call("answers", pairs)
            agreement = compare(self._expected[root], own.call("answers", pairs))
            problem = None
            try:
                check(agreement, planned.precision)
            except ParityError as error:
                problem = f"disagrees with the float model: {error}"
            self._agreed[planned.key] = agreement.to_dict(), problem
        return self._agreed[planned.key]

    def _accuracy(self, process: RowProcess, level: Level) -> Accuracy | None:
        records = at_level(self._data.records, level)
        if not records:
            return None
        return Accuracy.model_validate(process.call("accuracy", records, self._data.images))

    def _cold(self, planned: Planned, level: Level) -> dict[str, object]:
        question: Question = self._questions(level)[0]
        taken = [cold_start(planned, self._settings.threads, question) for _ in range(self._settings.starts)]
        return {
            "cold_start_ms": tuple(round(spent, 1) for spent, _ in taken),
            "peak_memory_bytes": max(peak for _, peak in taken),
        }


def _speed(taken: Samples) -> dict[str, object]:
    """Fields of a row from its samples."""
    whole = taken.times[END_TO_END]
    return {
        "latency": {step: statistics.latency(values) for step, values in taken.times.items()},
        "speedup": statistics.speedup(taken.float_ms, whole) if taken.float_ms else None,
        "warm_up": taken.warm_up,
        "stable": taken.stable,
        "slowed": statistics.slowed(whole),
        "throughput": 1e3 * len(whole) / sum(whole),
        "joules": None if taken.joules is None else taken.joules / len(whole),
    }
