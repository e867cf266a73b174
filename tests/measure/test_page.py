"""The report as a browser's parser sees it: whole, offline, and with the figures."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

import pytest

from sam3i_edge.measure import svg
from sam3i_edge.measure.cells import peer_tables
from sam3i_edge.measure.page import html
from sam3i_edge.measure.schema import Curve, GraphLimit, Peer, Point, Rate, Ratio, Roofline, Skipped

_VOID = {"meta", "br"}


class _Page(HTMLParser):
    """Checks that tags nest, and collects text, cells and attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.fixture
def full(make_row: Any, make_results: Any) -> Any:
    ratio = Ratio(value=2, low=1.9, high=2.1)
    return make_results(
        make_row("fp32", 0.8, 20),
        make_row("int8", 0.79, 10, speedup=ratio, joules=0.25),
        make_row("int4", status="disagrees", problem="masks <differ> & more", latency={}, accuracy=None),
        skipped=(Skipped(model="tiny", device="cpu", runtime="openvino", precision="x", reason="no <such>"),),
        roofline=Roofline(
            rates=(Rate(name="float32", value=150.5, unit="Gop/s", how="torch"),),
            graphs=(GraphLimit(variant="v", graph="detector", operations=10**9, attention=10**7, integer=0.5,
                               bytes=10**6, possible_ms=5, achieved_ms=10),),
            left_out=("bfloat16: torch is not installed",),
        ),
        curves=(Curve(title="growth", x="instructions", y="ms",
                      points=(Point(x=1, p50=10, p90=11), Point(x=64, p50=400, p90=420))),),
        peers=(Peer(task="t", peer="dense", ours="native", peer_ms=80, ours_ms=10, speedup=ratio,
                    agreement="equal"),),
    )  # fmt: skip


def test_the_page_is_whole_offline_and_tells_everything(full: Any) -> None:
    text = html(full, target_ms=12)
    page = _Page(text)
    assert page.links == []  # one file, no network
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    words = " ".join(page.texts)
    for told in (
        "Take tiny cpu onnxruntime int8", "p90 at most 12 ms", "a <chip>", "masks <differ> & more",
        "no <such>", "float32", "150.5", "50%", "growth", "dense", "2.00x", "0.25",
        "10.0 ms, 2.00x (1.90 to 2.10)", "bfloat16: torch is not installed", "commit abc", "disagrees",
    ):  # fmt: skip
        assert told in words, told
    assert page.tags.count("svg") == 3


def test_charts_are_well_formed_and_stay_inside(full: Any, make_row: Any) -> None:
    text = html(full)
    for part in text.split("<svg")[1:]:
        root = ElementTree.fromstring("<svg" + part.partition("</svg>")[0] + "</svg>")
        _, _, width, height = map(float, root.attrib["viewBox"].split())
        for mark in root.iter("{http://www.w3.org/2000/svg}circle"):
            assert 0 < float(mark.attrib["cx"]) < width
            assert 0 < float(mark.attrib["cy"]) < height


def test_an_interrupted_run_says_so(make_row: Any, make_results: Any) -> None:
    cut = make_row(status="interrupted", problem="interrupted by Ctrl-C", latency={})
    text = html(make_results(cut, complete=False))
    _Page(text)
    assert "This run was interrupted: rows are missing." in text
    assert "interrupted by Ctrl-C" in text


def test_nothing_measured_is_a_page_too(make_results: Any) -> None:
    _Page(html(make_results()))


def test_a_flat_curve_has_a_chart(make_results: Any) -> None:
    flat = Curve(
        title="flat", x="frames", y="MiB", points=(Point(x=1, p50=0, p90=0), Point(x=2, p50=0, p90=0))
    )
    ElementTree.fromstring(svg.curve(flat))


def test_peers_are_a_table_a_task_with_a_column_for_each_of_ours() -> None:
    ratio = Ratio(value=2, low=1.9, high=2.1)
    peers = [
        Peer(task=task, peer=peer, ours=ours, peer_ms=80, ours_ms=40, speedup=ratio,
             agreement=f"as {peer}", peer_peak_bytes=size)
        for task, peer, size in (("a", "slow", 1 << 30), ("a", "other", None), ("b", "slow", 1 << 30))
        for ours in ("int8", "bf16")
    ]  # fmt: skip
    (first, header, rows), (second, _, more) = peer_tables(peers[:-1])
    assert (first, second) == ("a", "b (as slow)")
    assert header == ("peer", "ms", "MiB", "int8", "bf16", "agreement")
    cell = "40.0 ms, 2.00x (1.90 to 2.10)"
    assert rows[0] == ("slow", "80.0", "1,024", cell, cell, "as slow")
    assert rows[1:] == [("other", "80.0", "", cell, cell, "as other")]
    assert more == [("slow", "80.0", "1,024", cell)]
