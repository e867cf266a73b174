"""The script that writes docs/results/data-engine.md."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sam3i_edge.data.scenes import draw_scene
from sam3i_edge.data.sources import write_scene_file


def test_a_row_and_its_page(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "scripts"))
    import instruct_figures as script

    write_scene_file(tmp_path / "drawn", (draw_scene(np.random.default_rng((0, n))) for n in range(3)))
    row = script.figures("drawn shapes", tmp_path / "drawn", "shapes")
    assert row.report.pictures == 3
    assert row.cells.total() == row.report.instructions > 20
    assert row.second > 0
    page = script.page([row], 3)
    assert f"| instructions | {row.report.instructions} |" in page
    assert "| concept, all | " in page
