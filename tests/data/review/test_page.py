"""The page in a real browser."""

from __future__ import annotations

import json

import numpy as np
import pytest

from sam3i_edge.masks import rle

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright, of the extra dev")


@pytest.fixture
def page(chromium, server):
    """The page, loaded. An error of its script, or a request to another host, fails the test."""
    opened = chromium.new_page(viewport={"width": 1000, "height": 700})
    wrong = []
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on(
        "request",
        lambda asked: (
            asked.url.startswith((server.url.split("#")[0], "blob:", "data:")) or wrong.append(asked.url)
        ),
    )
    opened.goto(server.url)
    _shows(opened, "1 / 4")
    yield opened
    opened.close()
    assert wrong == []


def _shows(page, place):
    sync_api.expect(page.locator("#place")).to_have_text(place)
    sync_api.expect(page.locator("body[aria-busy=false]")).to_be_visible()


def _decisions(folder):
    path = folder / "decisions.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _click_object(page, mask):
    """Clicks the middle pixel of a mask, as the canvas shows it."""
    pixels = rle.decode(mask).nonzero()
    middle = len(pixels[0]) // 2
    row, column = int(pixels[0][middle]), int(pixels[1][middle])
    box = page.locator("#canvas").bounding_box()
    height, width = mask["size"]
    page.mouse.click(
        box["x"] + (column + 0.5) / width * box["width"], box["y"] + (row + 0.5) / height * box["height"]
    )


def test_accept_mend_and_reject_by_mouse_to_the_summary(page, folder, lines):
    sync_api.expect(page.locator("#text")).to_have_text(lines[0]["text"])
    page.click("#accept")
    _shows(page, "2 / 4")
    objects = lines[1]["targets"] + lines[1]["others"]
    _click_object(page, objects[2])  # a click on an object begins to mend
    _click_object(page, objects[0])
    page.fill("#edit", "all but the first")
    page.click("#save")
    _shows(page, "3 / 4")
    page.click("#reject")
    _shows(page, "4 / 4")
    page.click("#accept")
    sync_api.expect(page.locator("#headline")).to_have_text("Everything is decided")
    assert [line["decision"] for line in _decisions(folder)] == ["accept", "mend", "reject", "accept"]
    mended = _decisions(folder)[1]
    assert (mended["text"], mended["targets"]) == ("all but the first", objects[1:3])
    assert page.locator("#rows tr").all_inner_texts() == ["simple\t1\t0\t0\t0", "complex\t1\t1\t1\t0"]
    assert f"review {folder} --apply" in page.inner_text("#command")


def test_the_same_by_keyboard(page, folder, lines):
    page.keyboard.press("r")
    _shows(page, "2 / 4")
    page.keyboard.press("m")
    page.keyboard.press("End")
    page.keyboard.type(" please")
    page.keyboard.press("Enter")
    _shows(page, "3 / 4")
    page.keyboard.press("m")
    page.locator("#objects button").first.focus()
    assert page.locator("#objects button").all_inner_texts()[0] == "4"  # as the file calls it
    page.keyboard.press("7")
    page.keyboard.press("Control+Enter")
    _shows(page, "4 / 4")
    page.keyboard.press("ArrowLeft")
    _shows(page, "3 / 4")
    page.keyboard.press("a")  # again: the later decision counts
    _shows(page, "4 / 4")
    page.keyboard.press("a")
    sync_api.expect(page.locator("#headline")).to_be_visible()
    found = [
        (line["id"], line["decision"], line.get("text"), len(line["targets"])) for line in _decisions(folder)
    ]
    assert found == [
        ("item-0", "reject", None, 0),
        ("item-1", "mend", lines[1]["text"] + " please", 2),
        ("item-2", "mend", lines[2]["text"], 2),
        ("item-2", "accept", lines[2]["text"], 1),
        ("item-3", "accept", lines[3]["text"], 1),
    ]


def test_undo_goes_back_to_what_it_took_back(page, folder):
    assert page.is_disabled("#undo")
    page.keyboard.press("a")
    _shows(page, "2 / 4")
    page.keyboard.press("r")
    _shows(page, "3 / 4")
    page.keyboard.press("Control+z")
    _shows(page, "2 / 4")
    page.click("#undo")
    _shows(page, "1 / 4")
    sync_api.expect(page.locator("#counts")).to_have_text("0 of 4 decided")
    assert [line["decision"] for line in _decisions(folder)] == ["accept", "reject", "undo", "undo"]


def test_a_mending_that_is_cancelled_changes_nothing(page, folder, lines):
    page.keyboard.press("m")
    page.fill("#edit", "something else")
    page.click("#objects button >> nth=1")
    page.keyboard.press("Escape")
    sync_api.expect(page.locator("#text")).to_have_text(lines[0]["text"])
    page.click("#accept")
    _shows(page, "2 / 4")
    (line,) = _decisions(folder)
    assert (line["decision"], line["targets"]) == ("accept", lines[0]["targets"])


def test_an_empty_text_is_not_saved(page, folder):
    page.keyboard.press("m")
    page.fill("#edit", "  ")
    page.click("#save")
    sync_api.expect(page.locator("#message")).to_contain_text("empty")
    assert _decisions(folder) == []


def test_a_reload_goes_on_where_it_was(page, lines):
    page.keyboard.press("m")
    page.fill("#edit", "mended words")
    page.keyboard.press("Enter")
    _shows(page, "2 / 4")
    page.reload()
    _shows(page, "2 / 4")
    sync_api.expect(page.locator("#counts")).to_have_text("1 of 4 decided")
    page.keyboard.press("ArrowLeft")
    _shows(page, "1 / 4")
    sync_api.expect(page.locator("#text")).to_have_text("mended words")
    sync_api.expect(page.locator("#stands")).to_contain_text("Mended")


def test_targets_keep_their_colours_and_the_rest_is_darkened(page, lines):
    def brightness(mask):
        pixels = rle.decode(mask).nonzero()
        row, column = (float(axis[len(axis) // 2]) for axis in pixels)
        return page.evaluate(
            """([row, column]) => {
                const canvas = $("canvas"), [height, width] = item.size;
                const x = (column + .5) / width * canvas.width, y = (row + .5) / height * canvas.height;
                const pixel = canvas.getContext("2d").getImageData(x, y, 1, 1).data;
                return pixel[0] + pixel[1] + pixel[2];
            }""",
            [row, column],
        )

    page.keyboard.press("ArrowRight")
    _shows(page, "2 / 4")
    targets, other = lines[1]["targets"], lines[1]["others"][0]
    assert page.evaluate("doubted.size") == 0
    marked = [brightness(mask) for mask in (*targets, other)]
    page.keyboard.press("h")
    plain = [brightness(mask) for mask in (*targets, other)]
    assert marked[:2] == plain[:2]
    assert marked[2] < 0.75 * plain[2]


def test_the_page_reads_every_run_lengths_as_we_do(page):
    random = np.random.default_rng(0)
    runs = [random.integers(0, 2**bits, size) for bits in (1, 5, 12, 26) for size in (1, 2, 3, 40)]
    texts = [rle.compress(counts) for counts in runs]
    assert page.evaluate("texts => texts.map(counts)", texts) == [counts.tolist() for counts in runs]


def test_a_server_that_is_gone_is_said_and_the_click_not_taken(page, server, folder):
    server.shutdown()
    server.socket.close()
    page.click("#accept")
    sync_api.expect(page.locator("#message")).to_contain_text("does not answer")
    sync_api.expect(page.locator("#place")).to_have_text("1 / 4")
    assert _decisions(folder) == []


def test_without_the_token_nothing_is_shown(chromium, server, lines):
    page = chromium.new_page()
    page.goto(server.url.split("#")[0])
    sync_api.expect(page.locator("#message")).to_contain_text("token")
    assert lines[0]["text"] not in page.content()
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(390, 700), (1280, 800)])
def test_nothing_is_cut_off_at_any_width(chromium, server, scheme, size):
    context = chromium.new_context(
        color_scheme=scheme, viewport=dict(zip(("width", "height"), size, strict=True))
    )
    page = context.new_page()
    page.goto(server.url)
    _shows(page, "1 / 4")
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    for name in ("accept", "mend", "reject", "before", "after", "undo", "masks"):
        box = page.locator(f"#{name}").bounding_box()
        assert box["y"] + box["height"] <= size[1]
        assert box["height"] >= 36
    canvas = page.locator("#canvas").bounding_box()
    assert min(canvas["width"], canvas["height"]) > 200
    context.close()
