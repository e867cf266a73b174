"""A report's figures laid out as grids of text, for a terminal, a log or a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sam3i_edge.evaluate.cgf1 import IOU_THRESHOLDS, CgF1
from sam3i_edge.evaluate.report import OVERALL, Cell, Report, Timing
from sam3i_edge.levels import LEVELS

# Where the two thresholds that papers quote stand in IOU_THRESHOLDS.
_HALF = 0
_THREE_QUARTERS = 5

_MASK_NOTE = """\
gIoU, P@0.5: pairs with a target; +none: gIoU over all pairs, a right none is 1
found, presence: how often "anything returned", "presence above 0.5" are right
none: how often nothing is returned where there is nothing"""


_WAYS_NOTE = """\
gIoU, P@0.5: pairs with a target; +none: gIoU over all pairs, a right none is 1
none: how often nothing is returned where there is nothing; ms: the median"""


@dataclass(frozen=True, slots=True)
class Table:
    """A titled grid of cells already in words.

    Attributes:
        title: what it shows.
        header: names of the columns.
        rows: as many cells each as the header.
        words: how many leading columns hold words; the others hold figures, aligned to the right.
        note: what the header's words mean, lines of up to 80 characters; may be empty.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: int = 1
    note: str = ""

    def plain(self) -> str:
        """The grid as aligned lines, title first and note last."""
        lines = (self.header, *self.rows)
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        texts = (
            "  ".join(
                cell.ljust(width) if i < self.words else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(line, widths, strict=True))
            )
            for line in lines
        )
        return "\n".join((self.title, *(text.rstrip() for text in texts), *self.note.splitlines()))


def of_report(report: Report) -> tuple[Table, ...]:
    """A report's figures: masks, instances, routing (where the model chose), timings."""
    grids = [masks(report.cells), instances(report.cgf1)]
    if report.routing:
        grids.append(routing(report.routing))
    grids.append(timings({"encode": report.encode, "instruction": report.instruction}))
    return tuple(grids)


def masks(cells: Sequence[Cell]) -> Table:
    """Figures of the merged masks and of presence."""
    header = (
        "level",
        "granularity",
        "pairs",
        "gIoU",
        "+none",
        "cIoU",
        "P@0.5",
        "found",
        "presence",
        "none",
    )
    rows = []
    for c in cells:
        figures = (
            *(c.giou, c.giou_with_none, c.ciou, c.p_at_50),
            *(c.found_accuracy, c.presence_accuracy, c.none_accuracy),
        )
        rows.append((c.level, c.granularity, str(c.pairs), *map(_figure, figures)))
    return Table("merged masks and presence", header, tuple(rows), words=2, note=_MASK_NOTE)


def beside(reports: Mapping[str, Report]) -> Table:
    """Figures of several ways to answer the same questions, by level."""
    header = ("level", "way", "pairs", "gIoU", "+none", "cIoU", "P@0.5", "none", "ms a question")
    rows = []
    for level in (*LEVELS, OVERALL):
        for way, report in reports.items():
            if level not in report.cgf1:
                continue
            c = report.cell(level)
            figures = map(_figure, (c.giou, c.giou_with_none, c.ciou, c.p_at_50, c.none_accuracy))
            took = f"{report.instruction.median_ms:.1f}" if level == OVERALL else ""
            rows.append((level, way, str(c.pairs), *figures, took))
    return Table("ways to an answer", header, tuple(rows), words=2, note=_WAYS_NOTE)


def instances(figures: Mapping[str, CgF1]) -> Table:
    """CgF1 and its parts by level."""
    at = [IOU_THRESHOLDS[i] for i in (_HALF, _THREE_QUARTERS)]
    header = ("level", "pairs", "cgF1", "pmF1", "IL_MCC", *(f"cgF1@{t:g}" for t in at))
    rows = []
    for level, f in figures.items():
        values = (f.cgf1, f.positive_micro_f1, f.il_mcc, f.cgf1_at[_HALF], f.cgf1_at[_THREE_QUARTERS])
        rows.append((level, str(f.pairs), *map(_figure, values)))
    return Table("instances", header, tuple(rows))


def routing(chosen_by_column: Mapping[str, Mapping[str, int]]) -> Table:
    """How often the model put each column's instructions at each level."""
    rows = []
    for column, chosen in chosen_by_column.items():
        counts = [chosen.get(level, 0) for level in LEVELS]
        rows.append((column, *map(str, counts), _figure(chosen.get(column, 0) / sum(counts))))
    return Table("level chosen by the model", ("column", *LEVELS, "right"), tuple(rows))


def timings(steps: Mapping[str, Timing]) -> Table:
    """Median and 90th percentile of each step."""
    rows = tuple((name, str(t.count), f"{t.median_ms:.1f}", f"{t.p90_ms:.1f}") for name, t in steps.items())
    return Table("time, ms", ("step", "count", "median", "p90"), rows)


def _figure(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{round(value, 3) + 0.0:.3f}"  # adding zero turns -0.0, of a tiny negative, into 0.0
