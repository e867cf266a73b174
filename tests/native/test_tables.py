"""The tables of native/ and web/ are those that scripts/native_tables.py writes."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts/native_tables.py"


def test_tables_are_up_to_date():
    if not SCRIPT.is_file():
        pytest.skip("needs the source tree")
    spec = importlib.util.spec_from_file_location("native_tables", SCRIPT)
    tables = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tables)
    for name, make in tables.FILES.items():
        assert (tables.ROOT / name).read_text(encoding="utf-8") == make(), (
            f"run python {SCRIPT}: {name} is old"
        )
