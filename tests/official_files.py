"""Where the released code's numbers lie: beside the project, as they are large. Without them tests skip."""

from __future__ import annotations

from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "shared" / "fixtures" / "public"
if not FOLDER.is_dir():
    pytest.skip(f"needs the released code's numbers in {FOLDER}", allow_module_level=True)
