"""`sam3i-edge compare`: two runs of `sam3i-edge benchmark`, row by row."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sam3i_edge.cli.output import Json, print_json, print_table


def compare(
    a: Annotated[Path, typer.Argument(metavar="A.json", help="results.json of the run before.")],
    b: Annotated[Path, typer.Argument(metavar="B.json", help="results.json of the run after.")],
    as_json: Json = False,
) -> None:
    """Compares two runs of `benchmark`; exit code 1 where B is slower or less accurate."""
    from dataclasses import asdict

    from sam3i_edge.measure import comparison
    from sam3i_edge.measure.cells import COMPARED, compared_cells
    from sam3i_edge.measure.schema import read_results

    first, second = read_results(a), read_results(b)
    rows = comparison.compare(first, second)
    apart = comparison.differences(first, second)
    worse = comparison.worse(rows)
    if as_json:
        found = [{**asdict(row), "speedup": row.speedup and row.speedup.model_dump()} for row in rows]
        print_json({"rows": found, "differences": apart, "worse": worse})
    else:
        columns = [name if i in (0, 1, 8) else f"{name}*" for i, name in enumerate(COMPARED)]
        print_table(f"A: {a}; B: {b}", columns, compared_cells(rows))
        for line in apart:
            typer.echo(f"A and B differ in {line}")
        typer.echo("B is slower or less accurate" if worse else "B is not worse than A")
    if worse:
        raise typer.Exit(1)
