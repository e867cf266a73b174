"""The application: its verbs, and how errors leave it.

Exit codes: 0 ok, 1 failed, 2 wrong usage, 130 interrupted. An error is one line on stderr; with
`SAM3I_LOG=debug` its traceback comes before it.
"""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any, cast

import typer

import sam3i_edge
from sam3i_edge.cli.benchmark import benchmark
from sam3i_edge.cli.bundle import bundle
from sam3i_edge.cli.compare import compare
from sam3i_edge.cli.convert import convert
from sam3i_edge.cli.demo import demo
from sam3i_edge.cli.distill import distill
from sam3i_edge.cli.doctor import doctor
from sam3i_edge.cli.evaluate import evaluate
from sam3i_edge.cli.export import export
from sam3i_edge.cli.info import info
from sam3i_edge.cli.instruct import instruct
from sam3i_edge.cli.label import label
from sam3i_edge.cli.quantize import quantize
from sam3i_edge.cli.review import review
from sam3i_edge.cli.router import router
from sam3i_edge.cli.scenes import scenes
from sam3i_edge.cli.segment import segment
from sam3i_edge.cli.train import train
from sam3i_edge.errors import InstructionError, Sam3iError, UnknownDevice, UnknownModel

app = typer.Typer(
    name="sam3i-edge",
    help="Segments what a sentence describes, on edge devices.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _verb in (
    segment,
    label,
    info,
    demo,
    doctor,
    convert,
    bundle,
    export,
    quantize,
    train,
    distill,
    router,
    evaluate,
    scenes,
    instruct,
    review,
    benchmark,
    compare,
):
    app.command()(_verb)

# Newer versions of Typer carry their own copy of Click: this base has no import path that both have.
_UsageError = cast("type[Exception]", typer.BadParameter.__base__)

_log = logging.getLogger("sam3i_edge")
_LOG_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING}


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sam3i-edge {sam3i_edge.__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _options(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(2)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and gives its exit code.

    Args:
        arguments: what follows the program's name; None takes `sys.argv`.
    """
    wanted = os.environ.get("SAM3I_LOG", "warning").lower()
    if wanted not in _LOG_LEVELS:
        return _report(f"SAM3I_LOG must be {', '.join(_LOG_LEVELS)}, got {wanted!r}", 2)
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
    _log.setLevel(_LOG_LEVELS[wanted])
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # An instruction that the terminal's code page lacks must not cost the result.
            stream.reconfigure(errors="backslashreplace")
    try:
        code = app(args=arguments, prog_name="sam3i-edge", standalone_mode=False)
    except _UsageError as error:
        return _report(f"{cast(Any, error).format_message()} (see 'sam3i-edge --help')", 2)
    except (typer.Abort, KeyboardInterrupt) as error:
        interrupted = isinstance(error, KeyboardInterrupt) or isinstance(error.__cause__, KeyboardInterrupt)
        return _report("interrupted", 130) if interrupted else _report("aborted", 1)
    except (Sam3iError, ValueError, OSError) as error:
        _log.debug("the command failed", exc_info=True)
        return _report(str(error) or type(error).__name__, _exit_code(error))
    except ImportError as error:
        _log.debug("the command failed", exc_info=True)
        return _report(f"a package is missing or broken ({error}): 'sam3i-edge doctor' lists what to add", 1)
    except MemoryError:
        _log.debug("the command failed", exc_info=True)
        return _report("the memory of this machine, or of its container, was not enough", 1)
    except Exception as error:  # the one place: whoever runs a command gets a line, and a way to report it
        _log.debug("the command failed", exc_info=True)
        return _report(
            f"a fault of sam3i-edge, please report it ({type(error).__name__}: {error}): run the command "
            "again with SAM3I_LOG=debug, and send what it prints with that of 'sam3i-edge doctor --json'",
            1,
        )
    if code == 130:  # Typer's own, which says nothing
        return _report("interrupted", code)
    return code if isinstance(code, int) else 0


def _exit_code(error: Exception) -> int:
    if isinstance(error, (InstructionError, UnknownModel, UnknownDevice)):
        return 2
    return 2 if isinstance(error, ValueError) and not isinstance(error, (Sam3iError, OSError)) else 1


def _report(message: str, code: int) -> int:
    typer.echo(f"sam3i-edge: {' '.join(message.split())}", err=True)
    return code
