"""The agent's way beside one pass, on the same questions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Unpack

import numpy as np

from sam3i_edge.data.records import Record
from sam3i_edge.errors import DataError
from sam3i_edge.evaluate.agent.loop import Agent, Cost
from sam3i_edge.evaluate.report import Report, Timing
from sam3i_edge.evaluate.run import Options, evaluate
from sam3i_edge.evaluate.tables import Table, beside
from sam3i_edge.runtimes import part


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two ways to answer the same questions.

    Attributes:
        direct: each instruction in one pass.
        agent: each through the agent, see `through`.
        costs: of the agent's questions, in the order of `agent.outcomes`.
    """

    direct: Report
    agent: Report
    costs: tuple[Cost, ...]

    @property
    def failures(self) -> Counter[str]:
        """Questions that the reasoner left, by why; they count with what had been chosen until then."""
        return Counter(cost.failure for cost in self.costs if cost.failure)

    def tables(self) -> tuple[Table, ...]:
        """Masks and times of both ways by level, and what a question of the agent cost."""
        return beside({"direct": self.direct, "agent": self.agent}), _costs(self.costs)

    def to_dict(self) -> dict[str, object]:
        """Plain JSON values."""
        return {
            "direct": self.direct.to_dict(),
            "agent": self.agent.to_dict(),
            "costs": {
                "questions": len(self.costs),
                **{name: sum(getattr(cost, name) for cost in self.costs) for name in _COUNTED},
                "seconds": sum(cost.ms for cost in self.costs) / 1e3,
                "failures": dict(self.failures),
            },
        }

    def lines(self) -> Iterator[dict[str, object]]:
        """Every question of the agent, what came of it and what it cost, as plain JSON values."""
        for outcome, cost in zip(self.agent.outcomes, self.costs, strict=True):
            yield {**outcome.to_dict(), "cost": asdict(cost)}


_COUNTED = ("calls", "tokens", "passes", "rounds")


def compare(agent: Agent, records: Sequence[Record], images: Path, **options: Unpack[Options]) -> Comparison:
    """Asks every simple and complex instruction in both ways.

    Args:
        agent: with the segmenter that answers directly too.
        records: as in `evaluate.run.evaluate`.
        images: the same.
        **options: the same; the direct way alone chooses levels.

    Raises:
        DataError: no record has such an instruction; and as in `evaluate.run.evaluate`.
        RuntimeUnavailable: the agent's model is not asked any more.
    """
    tell = options.pop("progress", None)
    halves: list[Options] = [
        {**options, "progress": None if tell is None else part(tell, number, 2)} for number in range(2)
    ]
    asked = instructions(records)
    direct = evaluate(agent.segmenter, asked, images, **halves[0])
    return Comparison(direct, *through(agent, asked, images, **halves[1]))


def instructions(records: Sequence[Record]) -> list[Record]:
    """The records without their concepts, at which an agent has nothing to do.

    Raises:
        DataError: none has anything else.
    """
    asked = [replace(record, concept=[]) for record in records if record.simple or record.complex]
    if not asked:
        raise DataError(
            "no record has a simple or complex instruction, and an agent has nothing to do at concepts: give "
            "a SAM3-I annotation file with simple_query or complex_query"
        )
    return asked


def through(
    agent: Agent, records: Sequence[Record], images: Path, **options: Unpack[Options]
) -> tuple[Report, tuple[Cost, ...]]:
    """Asks the agent alone; arguments and errors as in `compare`, of records that have no concepts.

    Returns:
        The report, whose time of an instruction is the reasoner's and the passes', and the costs.
    """
    before = len(agent.costs)
    options["choose_level"] = False
    report = evaluate(agent, records, images, **options)
    costs = tuple(agent.costs[before:])
    return replace(report, instruction=Timing.of([cost.ms for cost in costs])), costs


def _costs(costs: Sequence[Cost]) -> Table:
    rows = []
    for name in (*_COUNTED, "ms"):
        values = [getattr(cost, name) for cost in costs]
        each = (
            f"{value:,.{1 if name == 'ms' else 2}f}" for value in (np.mean(values), np.percentile(values, 90))
        )
        rows.append((name, f"{sum(values):,.0f}", *each))
    return Table("what the agent's questions cost", ("", "all", "mean", "p90"), tuple(rows))
