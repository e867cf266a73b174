"""The report as a real browser lays it out: nothing is fetched, cut off or laid over something else.

Skipped where no Chromium is found; `apt install chromium` or any Chrome on the path will do.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sam3i_edge.measure.page import html
from sam3i_edge.measure.schema import Curve, Peer, Point, Ratio

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome", "headless_shell")
_FOUND = next(filter(None, map(shutil.which, _BROWSERS)), None)
pytestmark = pytest.mark.skipif(
    _FOUND is None, reason=f"none of {', '.join(_BROWSERS)} is on the path: apt install chromium"
)

# Runs in the page and leaves what it saw there, for `--dump-dom`.
_SCRIPT = """<script>
const outside = [], texts = [...document.querySelectorAll("svg text")];
for (const text of texts) {
  const box = text.getBoundingClientRect(), around = text.ownerSVGElement.getBoundingClientRect();
  if (box.left < around.left - 1 || box.right > around.right + 1 || box.top < around.top - 1 ||
      box.bottom > around.bottom + 1) outside.push(text.textContent);
}
const over = [];
for (const svg of document.querySelectorAll("svg")) {
  const boxes = [...svg.querySelectorAll("text")].map(t => [t.textContent, t.getBoundingClientRect()]);
  boxes.forEach(([a, p], i) => boxes.slice(i + 1).forEach(([b, q]) => {
    if (p.left < q.right - 1 && q.left < p.right - 1 && p.top < q.bottom - 2 && q.top < p.bottom - 2)
      over.push([a, b]);
  }));
}
const seen = {
  outside, over, texts: texts.length,
  wide: document.documentElement.scrollWidth - window.innerWidth,
  fetched: performance.getEntriesByType("resource").length,
  disks: [...document.querySelectorAll("circle")].filter(c => c.getBoundingClientRect().width > 2).length,
  tables: [...document.querySelectorAll("table")].map(t => t.scrollWidth - t.clientWidth),
};
document.body.insertAdjacentHTML("beforeend", "<pre id=seen></pre>");
document.getElementById("seen").textContent = JSON.stringify(seen);
</script>"""


@pytest.fixture
def page(make_row: Any, make_results: Any, tmp_path: Path) -> Path:
    ratio = Ratio(value=2, low=1.9, high=2.1)
    rows = [
        make_row(precision, giou, ms, level=level, speedup=ratio, size_bytes=size)
        for precision, giou, ms, size in (
            ("fp32", 0.80, 20, 16_000_000), ("int8", 0.799, 10, 5_000_000), ("int4", 0.798, 10.5, 3_000_000),
        )
        for level in ("concept", "simple", "complex")
    ]  # fmt: skip
    bad = make_row("int8w", status="disagrees", problem="disagrees: 1 - mean_iou", latency={}, accuracy=None)
    points = tuple(Point(x=x, p50=12.5 * x, p90=14.0 * x) for x in (1, 2, 4, 8, 16, 32, 64))
    curves = tuple(Curve(title=f"curve {n}", x="instructions", y="ms", points=points) for n in range(3))
    peer = Peer(task="1008 px, image encoder", peer="a peer with a name of some length, by block",
                ours="OpenVINO int8-bf16", peer_ms=37_000, ours_ms=9_000, speedup=ratio,
                agreement="not compared: random weights", ours_peak_bytes=1 << 30)  # fmt: skip
    path = tmp_path / "report.html"
    path.write_text(html(make_results(*rows, bad, curves=curves, peers=(peer,)), target_ms=15))
    return path


def _browse(path: Path, width: int, *arguments: str) -> str:
    assert _FOUND is not None
    done = subprocess.run(
        [
            _FOUND, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
            f"--user-data-dir={path.parent / 'profile'}", f"--window-size={width},2400",
            "--virtual-time-budget=2000", *arguments, path.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return done.stdout


@pytest.mark.parametrize("width", [1280, 600])
def test_a_browser_lays_it_out_whole(page: Path, width: int) -> None:
    watched = page.with_name("watched.html")
    watched.write_text(page.read_text().replace("</body>", f"{_SCRIPT}</body>"))
    found = re.search(r'<pre id="seen">(.*?)</pre>', _browse(watched, width, "--dump-dom"))
    assert found is not None
    seen = json.loads(unescape(found[1]))
    assert seen["fetched"] == 0
    assert seen["texts"] > 40
    assert seen["disks"] == 3 + 3 * 7
    assert (seen["outside"], seen["over"]) == ([], [])
    assert seen["wide"] <= 0, "the page scrolls sideways"
    if width == 1280:
        assert max(seen["tables"]) <= 0, "a table is cut off"


def test_its_picture_is_not_blank(page: Path) -> None:
    picture = page.with_suffix(".png")
    _browse(page, 1280, f"--screenshot={picture}")
    pixels = np.asarray(Image.open(picture).convert("RGB"))
    assert pixels.shape[1] == 1280
    for colour in ((27, 108, 168), (234, 244, 236), (253, 243, 224)):  # a bar, the answer, the warning
        assert (np.abs(pixels.astype(int) - colour).max(axis=2) < 3).sum() > 200, colour
