"""`sam3i-edge review`: a page on which a person decides what was not proven."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from sam3i_edge.cli.output import Json, note, print_json


def review(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder with review.jsonl and images/.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; 0 takes a free one.")] = 0,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    apply: Annotated[
        bool, typer.Option("--apply", help="Put what is decided into DIR/annotations.json, and end.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Serves a page to accept, mend or reject what was not proven, until Ctrl+C; or applies the decisions."""
    if apply:
        if port or open_page:
            raise typer.BadParameter("--apply serves no page: leave out --port and --open")
        _apply(folder, as_json)
        return
    from sam3i_edge.data.review.server import review_server

    with review_server(folder, port) as server:
        counts = server.review.counts()
        for problem in server.review.summary()["problems"]:
            note(f"skipped: {problem}")
        if as_json:
            print_json({"url": server.url, **counts})
        else:
            typer.echo(f"{counts['undecided']:,} to decide at {server.url} (Ctrl+C ends)")
        if open_page:
            typer.launch(server.url)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()
        counts = server.review.counts()
        note(
            f"{counts['accept']:,} accepted, {counts['mend']:,} mended, {counts['reject']:,} rejected, "
            f"{counts['undecided']:,} left; 'sam3i-edge review {folder} --apply' takes them over"
        )


def _apply(folder: Path, as_json: bool) -> None:
    from dataclasses import asdict

    from sam3i_edge.data.annotations import ANNOTATIONS
    from sam3i_edge.data.review.merge import apply_decisions

    applied = apply_decisions(folder)
    for problem in applied.problems:
        note(f"skipped: {problem}")
    if as_json:
        print_json(asdict(applied))
        return
    typer.echo(
        f"{folder / ANNOTATIONS}: {applied.accepted:,} accepted and {applied.mended:,} mended instructions; "
        f"{applied.rejected:,} rejected, {applied.undecided:,} not decided"
    )
