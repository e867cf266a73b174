"""The page, clicked through in a real browser."""

from __future__ import annotations

import pytest

from sam3i_edge import Segmenter
from sam3i_edge.bundle.folder import Bundle, find_bundle
from sam3i_edge.web.site import Site

pytestmark = pytest.mark.slow


def _expect(page, selector):
    from playwright.sync_api import expect

    return expect(page.locator(selector))


def _ready(page):
    _expect(page, "#ask").to_be_enabled()
    return page


def _found(page, count):
    """Waits for an answer of so many instances."""
    _expect(page, "#answer").to_contain_text(f"{count or 'Nothing'} found")
    _expect(page, "#found li").to_have_count(count)


def _pixel(page, row, column):
    """The colour that the canvas shows at a place of its picture, 0 to 1."""
    return page.evaluate(
        """([row, column]) => {
            const canvas = document.getElementById("canvas"), context = canvas.getContext("2d");
            return [...context.getImageData(column * canvas.width, row * canvas.height, 1, 1).data];
        }""",
        [row, column],
    )


@pytest.fixture
def page(nano, open_page):
    return _ready(open_page(nano.address))


@pytest.fixture(scope="module")
def wanted(example):
    """What Python finds in the example."""
    with Segmenter("sam3i-nano") as segmenter:
        return [segmenter.segment(example.png, text) for text in example.instructions]


def test_an_example_is_asked_and_what_was_found_is_shown_and_hidden(page, wanted, example):
    manifest = Bundle.open(find_bundle("sam3i-nano")).manifest
    for note in manifest.notes:  # such as what it was trained on
        _expect(page, "#note").to_contain_text(note[1:])
    page.click("#examples button")
    _found(page, len(wanted[0]))
    assert page.input_value("#instruction") == example.instructions[0]
    assert f"level {wanted[0].level}" in page.inner_text("#answer")
    assert "detect" in page.inner_text("#timings")
    height, width = wanted[0].image_size
    rows, columns = wanted[0].masks[0].nonzero()
    middle = len(rows) // 2
    place = (rows[middle] + 0.5) / height, (columns[middle] + 0.5) / width
    place = [float(share) for share in place]
    shown = _pixel(page, *place)
    page.keyboard.press("Tab")  # out of the field, where 1 is a letter
    page.locator("#found .show").first.focus()
    page.keyboard.press("1")
    assert page.get_attribute("#found .show >> nth=0", "aria-pressed") == "false"
    assert _pixel(page, *place) != shown
    box = page.locator("#canvas").bounding_box()
    bare = _pixel(page, *place)
    page.locator("#found .show").first.click()
    assert _pixel(page, *place) == shown
    page.mouse.click(box["x"] + place[1] * box["width"], box["y"] + place[0] * box["height"])
    if manifest.variants["onnx-fp32"].boxes:
        _expect(page, "#clear").to_be_visible()  # a click on what was found makes it an example
    else:
        assert _pixel(page, *place) == bare  # or hides it


def test_questions_by_keyboard_and_those_asked_before(page, wanted, example):
    page.click("#examples button")
    _found(page, len(wanted[0]))
    page.locator("#open").focus()
    page.keyboard.press("/")
    page.keyboard.type(example.instructions[1])
    page.keyboard.press("Enter")
    _expect(page, "#answer").to_contain_text(f"level {wanted[1].level}")
    _found(page, len(wanted[1]))
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")
    assert page.input_value("#instruction") == example.instructions[0]
    page.select_option("#level", "complex")
    _expect(page, "#answer").to_contain_text("level complex;")
    page.click("#past summary")
    page.select_option("#level", "auto")
    page.click(f"#history button:has-text('{example.instructions[1]}')")
    _expect(page, "#answer").to_contain_text(f"level {wanted[1].level}, chosen by grammar")
    _found(page, len(wanted[1]))


def test_what_cannot_be_asked_is_said(page, wanted, example):
    page.click("#ask")
    _expect(page, "#message").to_contain_text("there is no picture: open one")
    page.click("#examples button")
    _expect(page, "#message").to_be_hidden()
    _expect(page, "#answer").to_contain_text("found")
    page.fill("#instruction", "  ")
    page.click("#ask")
    _expect(page, "#message").to_contain_text("the instruction is empty")
    page.set_input_files("#file", {"name": "a.png", "mimeType": "image/png", "buffer": b"none"})
    _expect(page, "#message").to_contain_text("no picture that this browser reads")
    page.fill("#instruction", example.instructions[0])
    page.click("#ask")
    _found(page, len(wanted[0]))  # in the picture before
    _expect(page, "#message").to_be_hidden()


def test_of_clicks_while_one_is_answered_the_newest_counts(page, wanted, example):
    page.click("#examples button")
    _found(page, len(wanted[0]))
    page.evaluate(
        """(texts) => {
            for (const text of texts) {
                document.getElementById("instruction").value = text;
                document.getElementById("form").requestSubmit();
            }
        }""",
        ["red things", "nothing of the kind", example.instructions[1]],
    )
    _expect(page, "body[aria-busy=false]").to_be_visible()
    _found(page, len(wanted[1]))
    assert page.locator("#history button").count() == 3  # the second was never asked


def test_a_camera_is_segmented_until_escape(nano, open_page):
    page = _ready(open_page(nano.address, permissions=["camera"]))
    page.fill("#instruction", "green circle")
    page.click("#camera")
    _expect(page, "#answer").to_contain_text("level concept")
    _expect(page, "#canvas").to_have_attribute(
        "aria-label", "Picture of 640 by 480 pixels, 0 found by “green circle”"
    )
    page.fill("#instruction", "the leftmost one")
    page.click("#ask")
    _expect(page, "#answer").to_contain_text("level complex")
    page.locator("#open").focus()
    page.keyboard.press("Escape")
    assert page.get_attribute("#camera", "aria-pressed") == "false"
    assert page.evaluate("document.getElementById('video').srcObject") is None


def test_a_camera_that_is_refused_is_told(page):
    page.click("#camera")
    _expect(page, "#message").to_contain_text("the camera was refused: allow it")
    assert page.get_attribute("#camera", "aria-pressed") == "false"


def test_a_model_that_cannot_be_opened_is_told_again(nano, open_page):
    page = open_page("about:blank", permissions=["camera"])
    page.route("**/detector.onnx", lambda route: route.fulfill(status=404))
    page.goto(nano.address)
    _expect(page, "#message").to_contain_text("detector.onnx answers 404")
    page.click("#camera")
    _expect(page, "#message").to_contain_text("no model is open: reload the page")
    page.click("#examples button")
    _expect(page, "#message").to_contain_text("no model is open: reload the page")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone(nano, open_page, scheme, tmp_path):
    page = open_page(nano.address, viewport={"width": 390, "height": 780}, color_scheme=scheme)
    _ready(page).click("#examples button")
    _expect(page, "#answer").to_contain_text("found")
    page.screenshot(path=tmp_path / f"phone-{scheme}.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (int(ground.split("(")[1].split(",")[0]) < 60) == (scheme == "dark")


def test_it_works_without_its_server_after_the_first_visit(serve, open_page, example, wanted):
    with serve(Site(Bundle.open(find_bundle("sam3i-nano")), [example])) as server:
        page = _ready(open_page(server.address))
        page.evaluate("navigator.serviceWorker.ready.then(() => 1)")
    page.reload()
    _ready(page).click("#examples button")
    _found(page, len(wanted[0]))


def test_boxes_of_what_was_found_are_examples(serve, open_page, example, tiny_box_bundle):
    with serve(Site(tiny_box_bundle, [example])) as server, Segmenter(tiny_box_bundle.root) as segmenter:
        page = _ready(open_page(server.address))
        _expect(page, "#help").to_contain_text("Up to 3")
        page.evaluate("document.getElementById('threshold').value = .05")
        page.click("#examples button")
        first = segmenter.segment(example.png, example.instructions[0], threshold=0.05)
        _found(page, len(first))
        page.click("#found .exclude >> nth=0")
        second = segmenter.segment(
            example.png,
            example.instructions[0],
            threshold=0.05,
            boxes=first.boxes[:1].astype(float),
            box_labels=[0],
        )
        _expect(page, "#answer").to_contain_text(f"presence {second.presence:.2f}")
        _found(page, len(second))
        page.fill("#instruction", "")
        box = page.locator("#canvas").bounding_box()
        page.mouse.move(box["x"] + 10, box["y"] + 10)
        page.mouse.down()
        page.mouse.move(box["x"] + 90, box["y"] + 70, steps=3)
        page.mouse.up()
        _expect(page, "#answer").to_contain_text("level concept")
        _expect(page, "#message").to_be_hidden()
        page.click("#clear")
        _expect(page, "#clear").to_be_hidden()


def test_the_same_page_asks_a_segmenter_of_python(serve, open_page, example, wanted):
    with Segmenter("sam3i-nano") as segmenter, serve(Site(None, [example]), segmenter) as server:
        page = _ready(open_page(server.url))
        _expect(page, "#status").to_contain_text("server")
        page.click("#examples button")
        _found(page, len(wanted[0]))
        scores = [f"{number + 1}: {score:.2f}" for number, score in enumerate(wanted[0].scores)]
        assert page.locator("#found .show").all_inner_texts() == scores
        page.goto("about:blank")
        page.goto(server.address)  # without the token
        _expect(page, "#message").to_contain_text("the token is missing")
