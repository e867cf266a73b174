"""Outputs by the ending of their names. One more kind is one more line of `_BY_SUFFIX`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Final, TypeAlias

from sam3i_edge.masks import overlay
from sam3i_edge.outputs.answer import Output
from sam3i_edge.outputs.coco import write_coco
from sam3i_edge.outputs.drawn import Drawn, drawn_folder, drawn_video
from sam3i_edge.outputs.lines import Lines
from sam3i_edge.outputs.mcap import mcap_file
from sam3i_edge.outputs.rerun import rerun_log

Settings: TypeAlias = Mapping[str, Any]


@contextlib.contextmanager
def _coco(path: Path, settings: Settings) -> Iterator[Output]:
    """The lines are kept beside it until it is whole."""
    kept = path.with_name(f".{path.name}.unfinished")
    with Lines(kept, settings) as lines:
        yield lines
        write_coco(path, lines, settings["instructions"])
    kept.unlink()


_BY_SUFFIX: Final[dict[str, Callable[[Path, Settings], AbstractContextManager[Output]]]] = {
    ".json": _coco,
    ".jsonl": Lines,
    ".mcap": lambda path, _: mcap_file(path),
    ".mp4": lambda path, _: drawn_video(path),
    ".rrd": lambda path, _: rerun_log(path),
    **dict.fromkeys(overlay.SUFFIXES, lambda path, _: nullcontext(Drawn(path))),
}


def open_output(path: Path, settings: Settings) -> AbstractContextManager[Output]:
    """The output of a name: a folder where it has no ending, or is one.

    Args:
        path: to write.
        settings: see `Lines`.

    Raises:
        ValueError: nothing is written under such a name.
        OSError: the folder it lies in does not exist.
        DataError: in its block, see `Lines`.
    """
    check_output(path)
    if path.is_dir() or not path.suffix:
        return drawn_folder(path, settings)
    return _BY_SUFFIX[path.suffix.lower()](path, settings)


def check_output(path: Path) -> None:
    """Raises what `open_output` raises, and opens nothing."""
    if path.is_dir() or not path.suffix:
        return
    if path.suffix.lower() not in _BY_SUFFIX:
        raise ValueError(
            f"cannot write {str(path)!r}: want a folder, or a name ending in {', '.join(_BY_SUFFIX)}"
        )
    if not path.parent.is_dir():
        raise FileNotFoundError(f"cannot write {str(path)!r}: make the folder {str(path.parent)!r} first")
