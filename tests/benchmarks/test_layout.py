from __future__ import annotations

from pathlib import Path

from sam3i_edge.measure.schema import Ratio
from studies.findings import Curve, Peer, Point
from studies.layout import curve_table, draw_curves, peer_tables


def test_peers_are_a_table_a_task_with_a_column_for_each_of_ours() -> None:
    ratio = Ratio(value=2, low=1.9, high=2.1)
    peers = [
        Peer(task=task, peer=peer, ours=ours, peer_ms=80, ours_ms=40, speedup=ratio,
             agreement=f"as {peer}", peer_peak_bytes=size)
        for task, peer, size in (("a", "slow", 1 << 30), ("a", "other", None), ("b", "slow", 1 << 30))
        for ours in ("int8", "bf16")
    ]  # fmt: skip
    first, second = peer_tables(peers[:-1])
    assert (first.title, second.title) == ("a", "b (as slow)")
    assert first.header == ("peer", "ms", "MiB", "int8", "bf16", "agreement")
    cell = "40.0 ms, 2.00x (1.90 to 2.10)"
    assert first.rows[0] == ("slow", "80.0", "1,024", cell, cell, "as slow")
    assert first.rows[1:] == (("other", "80.0", "", cell, cell, "as other"),)
    assert second.rows == (("slow", "80.0", "1,024", cell),)


def test_a_curve_is_a_table_and_a_picture(tmp_path: Path) -> None:
    points = (Point(x=1, p50=10, p90=11), Point(x=64, p50=400, p90=420))
    curve = Curve(title="growth", x="instructions", y="ms", points=points)
    assert curve_table(curve).rows == (("1", "10.0", "11.0"), ("64", "400.0", "420.0"))
    draw_curves([curve, curve], tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
