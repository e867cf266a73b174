"""Modules that 0.2 moved, importable by their names of 0.1 until 0.3: one warns and is the new one."""

from __future__ import annotations

import importlib
import importlib.machinery
import warnings
from types import ModuleType

_FOLDERS = {
    "bundle": ("hub", "manifest"),
    "devices": ("doctor", "jetson", "machine"),
    "masks": ("native", "overlay", "rle"),
    "pipeline": (
        "caching", "graphs", "postprocess", "preprocess", "prompt", "request", "timing", "tokenizer",
    ),
}  # fmt: skip
MOVED = {
    f"sam3i_edge.{name}": f"sam3i_edge.{folder}.{name}"
    for folder, names in _FOLDERS.items()
    for name in names
}


class MovedModules:
    """Finds the old names; to be last on `sys.meta_path`, so that what is there is found first."""

    def find_spec(
        self, fullname: str, path: object = None, target: object = None
    ) -> importlib.machinery.ModuleSpec | None:
        """See `importlib.abc.MetaPathFinder`."""
        return importlib.machinery.ModuleSpec(fullname, self) if fullname in MOVED else None  # type: ignore[arg-type]

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        """The module under its new name."""
        new = MOVED[spec.name]
        warnings.warn(f"{spec.name} is {new} since 0.2; its old name goes with 0.3", DeprecationWarning, 2)
        module = importlib.import_module(new)
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Gives the module its own spec back, which the import system has replaced."""
        if module.__spec__ is not None:
            module.__spec__ = module.__spec__.loader_state
