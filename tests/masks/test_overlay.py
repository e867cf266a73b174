import numpy as np
import pytest

from sam3i_edge import files
from sam3i_edge.masks import overlay
from sam3i_edge.masks.caption import BACKDROP
from sam3i_edge.masks.overlay import PALETTE, draw, write


def _scene(height, width, count=2, level=140):
    """A flat image with `count` rectangles side by side, their masks, boxes and scores."""
    image = np.full((height, width, 3), level, np.uint8)
    masks = np.zeros((count, height, width), np.bool_)
    boxes = np.zeros((count, 4), np.float32)
    for number in range(count):
        x0, x1 = width * (2 * number + 1) // (2 * count + 1), width * (2 * number + 2) // (2 * count + 1)
        y0, y1 = height // 3, max(height // 3 + 1, height * 2 // 3)
        masks[number, y0:y1, x0:x1] = True
        boxes[number] = x0, y0, x1, y1
    return image, masks, boxes, np.linspace(0.9, 0.6, count).astype(np.float32)


def _near(picture, color):
    return np.abs(picture.astype(int) - color).max(axis=2) <= 12


def test_masks_are_tinted_outlined_and_the_rest_is_darkened():
    image, masks, boxes, scores = _scene(600, 900)
    before = image.copy()
    picture = draw(image, masks, boxes, scores, title="every square")
    np.testing.assert_array_equal(image, before)
    assert picture.dtype == np.uint8
    assert picture.shape[1] == 900
    assert picture.shape[0] > 600
    for number, (x0, y0, x1, y1) in enumerate(boxes.astype(int)):
        inside = picture[(y0 + y1) // 2, (x0 + x1) // 2].astype(int)
        np.testing.assert_allclose(inside, (140 * 11 + np.array(PALETTE[number]) * 9) / 20, atol=2)
        edge = picture[(y0 + y1) // 2 - 5 : (y0 + y1) // 2 + 5, x0 - 5 : x0 + 6]
        assert _near(edge, PALETTE[number]).any()
        label = picture[y0 - 30 : y0, x0 : x0 + 40]  # the score's tag, above the box
        assert _near(label, PALETTE[number]).sum() > 200
    np.testing.assert_array_equal(picture[10, 10], [77, 77, 77])


def test_undimmed_the_rest_keeps_its_colours_and_masks_are_tinted_less():
    image, masks, boxes, scores = _scene(600, 900)
    picture = draw(image, masks, boxes, scores, title="every square", dim=False)
    np.testing.assert_array_equal(picture[10, 10], image[10, 10])
    x0, y0, x1, y1 = boxes[0].astype(int)
    inside = picture[(y0 + y1) // 2, (x0 + x1) // 2]
    np.testing.assert_allclose(inside, (140 * 16 + np.array(PALETTE[0]) * 4) / 20, atol=2)


def test_nothing_found_undimmed_keeps_the_picture():
    image, *_ = _scene(600, 900)
    picture = draw(image, [], np.zeros((0, 4), np.float32), np.zeros(0, np.float32), title="", dim=False)
    np.testing.assert_array_equal(picture[10, 10], image[10, 10])


def test_the_caption_changes_with_its_text():
    scene = _scene(480, 640)
    one = draw(*scene, title="every square", note="2 found")
    other = draw(*scene, title="each circle", note="2 found")
    assert one.shape == other.shape
    np.testing.assert_array_equal(one[:480], other[:480])
    assert (one[480:] != other[480:]).any()
    assert one[480:].max() > 200  # light text on dark


def test_the_score_is_drawn():
    image, masks, boxes, scores = _scene(480, 640, 1)
    one = draw(image, masks, boxes, scores, title="")
    other = draw(image, masks, boxes, scores / 2, title="")
    assert (one != other).any()


def test_boxes_follow_an_enlarged_image():
    image, masks, boxes, scores = _scene(96, 160, 1)
    boxes += [-8, -8, 8, 8]  # off the mask's outline, which has the same colour
    picture = draw(image, masks, boxes, scores, title="")
    x0, y0, x1, y1 = (boxes[0] * 3).astype(int)
    assert picture.shape[1] == 480
    for x, y in ((x0, y1), (x1, y0), (x1, y1)):  # corners; the label covers the fourth
        assert _near(picture[y - 1 : y + 2, x - 1 : x + 2], PALETTE[0]).any()


def test_without_instances_it_says_so():
    image, masks, boxes, scores = _scene(480, 640, 0)
    picture = draw(image, masks, boxes, scores, title="the purple heart")
    assert (image == 140).all()
    band = picture[220:260]
    assert band.max() > 200  # text
    assert _near(band, BACKDROP).mean() > 0.5
    found = draw(*_scene(480, 640, 1), title="the purple heart")
    assert not _near(found[220:260], BACKDROP).any()


@pytest.mark.parametrize(
    ("size", "width", "least"),
    [
        ((100, 160), 480, 300),
        ((480, 480), 480, 480),
        ((1, 1), 480, 480),
        ((1080, 1920), 1920, 1080),
        ((3000, 40), 320, 3000),
    ],
)
def test_small_images_are_enlarged_and_narrow_ones_get_a_margin(size, width, least):
    for count in (0, 1, 3):
        picture = draw(*_scene(*size, count), title="one two three " * 5, note="a note")
        assert picture.shape[1] == width
        assert picture.shape[0] > least


@pytest.mark.parametrize("size", [(1, 1), (2, 700), (700, 2), (64, 64), (333, 501)])
def test_any_size_and_touching_boxes(size):
    height, width = size
    image = np.zeros((height, width, 3), np.uint8)
    masks = np.ones((3, height, width), np.bool_)
    masks[1] = False  # a mask may be empty
    boxes = np.array([[0, 0, width, height], [-9, -9, 2 * width, 2 * height], [0, 0, 0, 0]], np.float32)
    scores, title = np.float32([0.9, 0.8, 0.7]), "caf\u00e9 \u661f \u00b7 " + "long" * 200
    picture = draw(image, masks, boxes, scores, title=title)
    assert picture.shape[0] > height
    assert picture.shape[1] >= max(width, 320)
    plain = draw(image, np.zeros_like(masks), boxes, scores, title=title)
    assert plain.shape == picture.shape
    if 2 not in size:  # there the lines of the boxes cover every pixel
        assert (picture != plain).any()


def test_long_captions_are_cut_after_three_lines():
    short = draw(*_scene(480, 640), title="word " * 40)
    long = draw(*_scene(480, 640), title="word " * 4000)
    unbroken = draw(*_scene(480, 640), title="x" * 5000)
    assert short.shape == long.shape == unbroken.shape


def test_labels_do_not_cover_each_other():
    taken = []
    for _ in range(4):
        x, y = overlay._free_place((100, 100, 200, 200), (50, 20), (400, 400), taken)
        label = (x, y, x + 50, y + 20)
        assert not any(overlay._overlap(label, other) for other in taken)
        taken.append(label)
    x, y = overlay._free_place((0, 0, 10, 10), (50, 20), (400, 400), [])
    assert x >= 0
    assert y >= 0


def test_colours_stay_apart_for_colour_blind_eyes():
    # Vienot, Brettel and Mollon 1999: linear RGB as a deuteranope (a protanope) sees it.
    deuteranope = np.array([[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]])
    protanope = np.array([[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]])
    linear = (np.array(PALETTE) / 255) ** 2.2
    for seen in (linear, linear @ deuteranope.T, linear @ protanope.T):
        colors = np.clip(seen, 0, 1) ** (1 / 2.2) * 255
        apart = np.linalg.norm(colors[:, None] - colors[None], axis=2) + 999 * np.eye(len(PALETTE))
        assert apart.min() > 30


def test_mismatched_parts_are_refused():
    image, masks, boxes, scores = _scene(60, 60, 2)
    with pytest.raises(ValueError, match="2 scores, but 1 masks"):
        draw(image, masks[:1], boxes, scores, title="")
    with pytest.raises(ValueError, match=r"2 scores want boxes \[2, 4\], got \[1, 4\]"):
        draw(image, masks, boxes[:1], scores, title="")
    with pytest.raises(ValueError, match=r"uint8 \[H, W, 3\]"):
        draw(image[:, :, 0], masks, boxes, scores, title="")


def test_png_holds_the_pixels_in_rgb_order(tmp_path):
    from PIL import Image

    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    path = write(picture, tmp_path / "a.PNG")
    np.testing.assert_array_equal(np.asarray(Image.open(path)), picture)
    flat = np.full((16, 16, 3), (200, 100, 0), np.uint8)
    for name in ("a.jpg", "b.jpeg"):
        with Image.open(write(flat, tmp_path / name)) as read:
            assert read.format == "JPEG"
            assert np.abs(np.asarray(read).astype(int) - flat).max() <= 4


def test_an_unfinished_file_is_not_seen(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(b"old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(files.os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write(np.zeros((4, 4, 3), np.uint8), path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_paths_that_are_refused(tmp_path):
    picture = np.zeros((4, 4, 3), np.uint8)
    for name in ("a.gif", "a", "a.png.txt"):
        with pytest.raises(ValueError, match=r"must end in \.png, \.jpg, \.jpeg"):
            write(picture, tmp_path / name)
    with pytest.raises(FileNotFoundError, match="make the folder"):
        write(picture, tmp_path / "no" / "a.png")
    (tmp_path / "dir.png").mkdir()
    with pytest.raises(IsADirectoryError, match="it is a folder"):
        write(picture, tmp_path / "dir.png")
    with pytest.raises(ValueError, match=r"use \.png"):
        write(np.zeros((65_501, 1, 3), np.uint8), tmp_path / "a.jpg")
