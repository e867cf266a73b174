"""Packages outside the base install, which some verbs need."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from sam3i_edge.errors import RuntimeUnavailable
from sam3i_edge.install_hint import install_hint


@contextlib.contextmanager
def needs(verb: str, extra: str) -> Iterator[None]:
    """Turns a failed import inside the block into an error that says what to install.

    Args:
        verb: the verb that needs the packages.
        extra: the extra of sam3i-edge that installs them.

    Raises:
        RuntimeUnavailable: a package is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as missing:
        if missing.name is not None and missing.name.startswith("sam3i_edge"):
            raise
        raise RuntimeUnavailable(
            f"'sam3i-edge {verb}' needs {missing.name}: {install_hint(extra)}"
        ) from missing
