"""Captions in other scripts: in a font that has them, or left out and said; never question marks."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import ImageFont, features

from sam3i_edge.masks import caption, fonts
from sam3i_edge.masks.caption import _Pen, add_caption

SIZES = {"scale": 0.6, "weight": 1, "margin": 5}
STAR = (
    "\u043a\u0440\u0430\u0441\u043d\u0430\u044f \u0437\u0432\u0435\u0437\u0434\u0430"  # red star, in Russian
)


@pytest.fixture
def dejavu(monkeypatch):
    """A machine whose only font has Latin, Greek, Cyrillic and Arabic letters, and no Chinese."""
    matplotlib = pytest.importorskip("matplotlib")
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    monkeypatch.setattr(fonts, "_fonts", lambda: (str(path),))
    fonts._best_font.cache_clear()
    yield str(path)
    fonts._best_font.cache_clear()


@pytest.fixture
def no_fonts(monkeypatch):
    monkeypatch.setattr(fonts, "_fonts", lambda: ())
    fonts._best_font.cache_clear()
    yield
    fonts._best_font.cache_clear()


@pytest.fixture
def opencv_drew(monkeypatch):
    """The lines that OpenCV drew."""
    lines, put = [], cv2.putText
    monkeypatch.setattr(
        cv2, "putText", lambda canvas, line, *rest: lines.append(line) or put(canvas, line, *rest)
    )
    return lines


def _below(title, note=""):
    return add_caption(np.zeros((100, 400, 3), np.uint8), title, note, **SIZES)[100:]


def test_ascii_is_drawn_by_opencv_whatever_fonts_there_are(dejavu, opencv_drew):
    _below("the red star", "1 found")
    assert opencv_drew == ["the red star", "1 found"]


def test_another_script_is_drawn_in_a_font_that_has_it(dejavu, opencv_drew):
    assert fonts.drawable(STAR) == (STAR, dejavu, 0)
    drawn = _below(STAR)
    assert drawn.max() > 200
    assert opencv_drew == []
    assert (drawn.shape != (other := _below("\u0441" + STAR[1:])).shape) or (drawn != other).any()


def test_what_the_font_lacks_is_left_out_and_said(dejavu, opencv_drew):
    assert fonts.drawable(f"\u7ea2\u661f {STAR}") == (STAR, dejavu, 2)
    _below(f"\u7ea2\u661f {STAR}")
    assert opencv_drew == ["left out: 2 characters that no font here has"]


def test_without_fonts_accents_go_and_scripts_are_left_out(no_fonts, opencv_drew):
    _below("caf\u00e9 \ufb01sh \u7ea2\u661f", "1 found")
    _below("\u7ea2\u661f")
    assert opencv_drew == [
        "cafe fish", "1 found", "left out: 2 characters that no font here has",
        "left out: 2 characters that no font here has",
    ]  # fmt: skip


def test_letters_that_need_shaping_are_left_out_where_nothing_shapes(dejavu, monkeypatch):
    arabic = "\u0646\u062c\u0645\u0629"
    if features.check("raqm"):
        assert fonts.drawable(arabic) == (arabic, dejavu, 0)
    fonts._best_font.cache_clear()
    monkeypatch.setattr(features, "check", lambda _: False)
    assert fonts.drawable(arabic) == ("", None, 4)
    assert fonts.drawable(STAR) == (STAR, dejavu, 0)


def test_control_characters_and_what_has_no_width_are_not_drawn(no_fonts):
    assert fonts.drawable("red\x07\nstar\u200d\ufe0f") == ("red star", None, 0)


def test_a_damaged_font_is_passed_over(tmp_path, monkeypatch):
    (tmp_path / "deep").mkdir()
    for name in ("b.ttf", "deep/A-Bold.TTF", "LastResort.otf", "c.txt"):
        (tmp_path / name).write_bytes(b"no font")
    monkeypatch.setattr(fonts, "_FOLDERS", (str(tmp_path), str(tmp_path / "missing")))
    fonts._fonts.cache_clear()
    fonts._best_font.cache_clear()
    try:
        assert [Path(path).name for path in fonts._fonts()] == ["b.ttf", "A-Bold.TTF"]
        assert fonts.drawable("\u661f") == ("", None, 1)
    finally:
        fonts._fonts.cache_clear()
        fonts._best_font.cache_clear()


@pytest.mark.parametrize("font", [None, "dejavu"])
def test_lines_are_wrapped_and_cut(font, request):
    pen = _Pen.of(font and request.getfixturevalue(font), 0.5, 1, caption.WHITE)
    assert (pen.font is None) == (font is None)
    assert pen.wrap("word " * 4000, 600)[-1].endswith("...")
    words = "a few words that need two lines"
    assert len(pen.wrap(words, 200)) > 1
    assert " ".join(pen.wrap(words, 200)) == words
    for line in pen.wrap("x" * 5000, 600):
        assert pen.width(line) <= 600
    assert isinstance(pen.font, ImageFont.FreeTypeFont | None)
