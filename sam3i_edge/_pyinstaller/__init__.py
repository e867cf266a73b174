"""Where PyInstaller finds its hook for this package: it asks the entry point `pyinstaller40`."""

from __future__ import annotations

from pathlib import Path


def hook_dirs() -> list[str]:
    """Folders of hooks."""
    return [str(Path(__file__).parent)]
