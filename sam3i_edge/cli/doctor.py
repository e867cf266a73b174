"""`sam3i-edge doctor`: what runs here, and what is in the way of the rest."""

from __future__ import annotations

from typing import Any

import typer

from sam3i_edge.cli.output import Json, print_json, print_table, progress


def doctor(as_json: Json = False) -> None:
    """Tries every runtime on every device; exit code 0 when what Segmenter() takes works, else 1."""
    from sam3i_edge.devices.doctor import examine

    with progress() as shown:
        shown.add_task("trying every runtime on every device", total=None)
        facts = examine()
    if as_json:
        print_json(facts)
    else:
        _print(facts)
    if not facts["works"]:
        raise typer.Exit(1)


def _print(facts: dict[str, Any]) -> None:
    default = facts["default"]
    if default["works"]:
        title = f"Segmenter() works: {default['device']}, {default['runtime']}, {default['precision']}"
    else:
        title = f"Segmenter() does not work: {default['reason']}"
    about, cache, offline = facts["platform"], facts["cache"], facts["offline"]
    features = about["features"]
    rows = [
        ("system", f"{about['system']}, {about['architecture']}"),
        ("processor", about["processor"] or "unknown"),
        ("has", ", ".join(name for name, there in features.items() if there) or "none of what matters"),
        ("lacks", ", ".join(name for name, there in features.items() if not there) or "nothing of it"),
        ("memory", f"{_gib(about['memory_bytes'])}, {_gib(about['available_bytes'])} available"),
        *_board(facts["jetson"]),
        ("NVIDIA", _nvidia(facts["nvidia"])),
        ("versions", f"sam3i-edge {about['sam3i_edge']}, Python {about['python']}"),
        ("cache", cache["detail"] or _cache(cache)),
        ("Hub", "offline" if offline["offline"] else "may be asked"),
    ]
    print_table(title, ("", ""), rows)
    typer.echo()
    print_table(
        "runtimes, each tried by running a tiny graph",
        ("device", "runtime", "status", "version", "opens, ms*", "runs, ms*", "error*", ""),
        [
            (
                row["device"],
                row["runtime"],
                row["status"],
                row["version"] or "",
                _number(row["open_ms"], ".0f"),
                _number(row["run_ms"], ".3f"),
                _number(row["error"], ".1e"),
                row["detail"] or "",
            )
            for row in facts["runtimes"]
        ],
    )
    missing = [(row["extra"], ", ".join(row["missing"]), row["install"]) for row in facts["extras"]]
    missing = [row for row in missing if row[1]]
    if missing:
        typer.echo()
        print_table("extras that are not whole", ("extra", "lacks", "add it with"), missing)
    if facts["problems"]:
        typer.echo()
        print_table("known to go wrong", ("",), [(problem,) for problem in facts["problems"]])


def _cache(cache: dict[str, Any]) -> str:
    held = f"{cache['folder']}, {cache['bytes'] / 2**20:.1f} MiB, {cache['engines']} engines"
    if cache["writable"]:
        return held
    return f"{held}; it cannot be written to: set XDG_CACHE_HOME to a folder that can"


def _board(board: dict[str, Any] | None) -> list[tuple[str, str]]:
    if board is None:
        return []
    return [
        (
            "Jetson",
            f"{board['model'] or 'unknown model'}, JetPack {board['jetpack'] or 'unknown'} "
            f"(L4T {board['l4t'] or 'unknown'}), power mode {board['power_mode'] or 'unknown'}",
        )
    ]


def _nvidia(facts: dict[str, Any]) -> str:
    if not facts["gpu"]:
        return f"no GPU: {facts['detail']}"
    return (
        f"compute capability {facts['compute_capability'] or 'unknown'}, "
        f"TensorRT {facts['tensorrt'] or 'not installed'}"
    )


def _gib(size: int | None) -> str:
    return "unknown" if size is None else f"{size / 2**30:.1f} GiB"


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
