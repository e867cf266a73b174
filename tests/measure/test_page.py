"""The report as a browser's parser sees it: whole, offline, and with the figures."""

from __future__ import annotations

from base64 import b64decode
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

import pytest

from sam3i_edge.measure.page import html
from sam3i_edge.measure.schema import Ratio, Skipped

_VOID = {"meta", "br", "img"}


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
    )  # fmt: skip


def test_the_page_is_whole_offline_and_tells_everything(full: Any) -> None:
    text = html(full, target_ms=12)
    page = _Page(text)
    assert "http" not in text  # one file, no network
    assert not {"script", "link", "iframe"} & set(page.tags)
    words = " ".join(page.texts)
    for told in (
        "Take tiny cpu onnxruntime int8", "p90 at most 12 ms", "a <chip> with AVX2, 2 cores, 8 GiB",
        "masks <differ> & more", "no <such>", "2.00x", "0.25", "commit abc", "disagrees",
    ):  # fmt: skip
        assert told in words, told


def test_its_plots_are_embedded_and_well_formed(full: Any) -> None:
    links = _Page(html(full)).links
    pareto, steps = (b64decode(link.removeprefix("data:image/svg+xml;base64,")) for link in links)
    for plot in (pareto, steps):
        assert ElementTree.fromstring(plot).tag == "{http://www.w3.org/2000/svg}svg"
    # matplotlib leaves every text beside its outlines as a comment.
    assert b"int8, 1.0 MB" in pareto
    assert b"onnxruntime int8 simple" in steps
    assert b"int4" not in pareto + steps  # it disagrees


def test_an_interrupted_run_says_so(make_row: Any, make_results: Any) -> None:
    cut = make_row(status="interrupted", problem="interrupted by Ctrl-C", latency={})
    text = html(make_results(cut, complete=False))
    _Page(text)
    assert "This run was interrupted: rows are missing." in text
    assert "interrupted by Ctrl-C" in text


def test_nothing_measured_is_a_page_without_plots_that_recommends_nothing(make_results: Any) -> None:
    page = _Page(html(make_results()))
    assert "img" not in page.tags
    assert "Nothing can be recommended" in " ".join(page.texts)
