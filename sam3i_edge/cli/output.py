"""Where a verb's output goes: results to stdout, for people or as JSON; progress and notes to stderr."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from rich.progress import Progress

_PIPE_WIDTH = 160

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object for scripts.")]


def print_json(value: Mapping[str, Any]) -> None:
    """Prints one JSON object on one line, in ASCII, so that any terminal and pipe takes it."""
    typer.echo(json.dumps(value, allow_nan=False))


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a title and below it a table, to stdout; without rows only the title.

    Args:
        title: a line, wrapped where it is too long.
        columns: headings; those that end in "*" are aligned right, without the star.
        rows: cells by row. Long ones are folded, never cut.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    # A pipe has no width; 80 columns would fold tables that scripts and files have room for.
    console = Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH, highlight=False)
    console.print(escape(title), style="bold")
    if not rows:
        return
    table = Table(box=None, pad_edge=False, show_header=any(columns))
    for column in columns:
        side: Literal["left", "right"] = "right" if column.endswith("*") else "left"
        table.add_column(escape(column.rstrip("*")), justify=side, overflow="fold")
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    console.print(table)


def note(text: str) -> None:
    """Prints a line for people to stderr."""
    typer.echo(text, err=True)


@contextlib.contextmanager
def steps() -> Iterator[Callable[[str, float], None]]:
    """Gives a callback for work of many steps: a sentence, and the share of that step that is done.

    Each new sentence is a line on stderr; on a terminal a bar below it tells the time that the step has left.
    """
    said = ""
    with progress() as shown:
        bar = shown.add_task("", total=1.0)

        def tell(sentence: str, share: float) -> None:
            nonlocal said
            if sentence != said:
                said = sentence
                if shown.disable:
                    note(sentence)
                else:
                    shown.console.print(sentence, markup=False, highlight=False)
            if share < shown.tasks[bar].completed:
                shown.reset(bar)
            shown.update(bar, completed=share)

        yield tell


@contextlib.contextmanager
def progress() -> Iterator[Progress]:
    """Gives a progress display on stderr; on anything but a terminal it shows nothing."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as shown:
        yield shown


@contextlib.contextmanager
def rated_progress(unit: str, total: int | None) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr with a rate and the time left, on a terminal; yields what is told how many are done.

    Args:
        unit: what is counted, in the plural.
        total: how many there are, None where nobody knows.
    """
    began = time.monotonic()
    with progress() as shown:
        task = shown.add_task(unit, total=total)

        def tell(done: int, skipped: int) -> None:
            rate = (done - skipped) / max(time.monotonic() - began, 1e-6)
            of = "" if total is None else f" of {total:,}"
            left = "" if total is None or not rate else f", {max(0, total - done) / rate / 60:,.1f} min left"
            shown.update(task, completed=done, description=f"{done:,}{of} {unit}, {rate:,.1f} a second{left}")

        yield tell
