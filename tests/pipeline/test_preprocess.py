"""Images of every kind, bad ones, and the resize against the official processor's output.

`fixtures/preprocess.npz`, made by the official image processor: `image_uint8` [301, 247, 3] and
`pixel_levels` uint8 [3, 224, 224], what it made of that before normalisation.
"""

import io
import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from sam3i_edge.errors import ImageError
from sam3i_edge.pipeline import preprocess
from sam3i_edge.pipeline.preprocess import load_image, to_pixel_values

FIXTURE = Path(__file__).parents[1] / "fixtures" / "preprocess.npz"
HALF = (0.5, 0.5, 0.5)


@pytest.fixture
def rgb():
    return np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)


def _encoded(image, format, **options):
    data = io.BytesIO()
    image.save(data, format, **options)
    return data.getvalue()


def _header_only_png(width, height):
    """A valid PNG header that promises pixels, and no pixels."""
    import struct
    import zlib

    body = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", len(body)) + b"IHDR" + body + struct.pack(">I", zlib.crc32(b"IHDR" + body))
    empty = struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    return b"\x89PNG\r\n\x1a\n" + chunk + empty


def test_every_source_gives_the_same_pixels(rgb, tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(rgb).save(path)
    for source in (
        str(path),
        path,
        path.read_bytes(),
        bytearray(path.read_bytes()),
        rgb,
        Image.fromarray(rgb),
    ):
        image = load_image(source)
        assert image.dtype == np.uint8
        assert image.flags.c_contiguous
        np.testing.assert_array_equal(image, rgb)


def test_the_pixels_are_a_read_only_copy(rgb):
    image = load_image(rgb)
    kept = image.copy()
    rgb[:] = 0
    np.testing.assert_array_equal(image, kept)
    with pytest.raises(ValueError, match="read-only"):
        image[0] = 0


def test_strided_and_flipped_arrays(rgb):
    np.testing.assert_array_equal(load_image(rgb[::-1, ::2, ::-1]), rgb[::-1, ::2, ::-1])


def test_any_layout_in_memory_becomes_one(rgb):
    for given in (rgb, rgb[..., 0], np.dstack([rgb, rgb[..., 0]])):
        got = load_image(np.asfortranarray(given))
        assert got.flags.c_contiguous
        np.testing.assert_array_equal(got, load_image(given))


def test_grey_arrays(rgb):
    grey = rgb[:, :, 0]
    for source in (grey, grey[:, :, None], Image.fromarray(grey)):
        np.testing.assert_array_equal(load_image(source), np.repeat(grey[:, :, None], 3, axis=2))


def test_transparent_pixels_are_blended_over_white():
    rgba = np.array([[[200, 0, 100, 255], [200, 0, 100, 0], [200, 0, 100, 128]]], dtype=np.uint8)
    want = [[[200, 0, 100], [255, 255, 255], [227, 127, 177]]]
    np.testing.assert_array_equal(load_image(rgba), want)
    np.testing.assert_array_equal(load_image(_encoded(Image.fromarray(rgba), "PNG")), want)


def _four_bands(pixels, extra_samples):
    """A TIFF of four bands that says what the fourth is; with None it says nothing."""
    height, width, _ = pixels.shape
    entries = [
        (256, 3, 1, width), (257, 3, 1, height), (258, 3, 4, None), (259, 3, 1, 1), (262, 3, 1, 2),
        (273, 4, 1, None), (277, 3, 1, 4), (278, 3, 1, height), (279, 4, 1, pixels.nbytes),
    ]  # fmt: skip
    if extra_samples is not None:
        entries.append((338, 3, 1, extra_samples))
    after = 8 + 2 + 12 * len(entries) + 4
    places = {258: after, 273: after + 8}
    packed = [struct.pack("<HHII", tag, *rest, places.get(tag, value)) for tag, *rest, value in entries]
    head = b"II*\0" + struct.pack("<IH", 8, len(entries))
    return head + b"".join(packed) + struct.pack("<I4H", 0, 8, 8, 8, 8) + pixels.tobytes()


@pytest.mark.parametrize(("extra_samples", "seen"), [(None, True), (0, True), (2, False)])
def test_the_fourth_band_of_a_tiff_is_alpha_only_where_it_says_so(rgb, extra_samples, seen):
    bands = np.dstack([rgb, np.zeros_like(rgb[..., 0])])
    want = rgb if seen else np.full_like(rgb, 255)
    content = _four_bands(bands, extra_samples)
    np.testing.assert_array_equal(load_image(content), want)
    np.testing.assert_array_equal(load_image(Image.open(io.BytesIO(content))), want)


def test_grey_with_alpha_and_palette_with_transparency():
    pixels = Image.fromarray(np.array([[[10, 255], [10, 0]]], dtype=np.uint8))
    assert pixels.mode == "LA"
    np.testing.assert_array_equal(load_image(_encoded(pixels, "PNG")), [[[10, 10, 10], [255, 255, 255]]])
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    np.testing.assert_array_equal(load_image(_encoded(palette, "PNG")), [[[10, 20, 30], [40, 50, 60]]])
    np.testing.assert_array_equal(
        load_image(_encoded(palette, "PNG", transparency=1)), [[[10, 20, 30], [255, 255, 255]]]
    )


def test_sixteen_bits_are_scaled_whatever_the_container():
    deep = np.array([[0, 128, 129, 257 * 7, 65535]], dtype=np.uint16)
    want = np.repeat(np.array([[[0], [0], [1], [7], [255]]], dtype=np.uint8), 3, axis=2)
    for source in (
        deep,
        deep.astype(">u2"),
        _encoded(Image.fromarray(deep), "PNG"),
        Image.fromarray(deep.astype(np.int32)),
    ):
        np.testing.assert_array_equal(load_image(source), want)


def test_floats_are_scaled(rgb):
    for dtype in (np.float16, np.float32, np.float64):
        np.testing.assert_array_equal(load_image((rgb / 255).astype(dtype)), rgb)
    np.testing.assert_array_equal(load_image(np.float32([[-0.0005, 1.0005]])), [[[0] * 3, [255] * 3]])


@pytest.mark.parametrize(("low", "high"), [(-0.0009, 1.0), (0.0, 1.0009)])
def test_a_thousandth_over_is_clipped(low, high):
    np.testing.assert_array_equal(load_image(np.float64([[low, high]])), [[[0] * 3, [255] * 3]])


@pytest.mark.parametrize(("low", "high"), [(-0.0011, 1.0), (0.0, 1.0011)])
def test_more_than_a_thousandth_over_is_refused(low, high):
    with pytest.raises(ImageError, match=r"want 0..1: scale it"):
        load_image(np.float64([[low, high]]))


@pytest.mark.parametrize("channels", [3, 4])
def test_colours_in_the_order_of_opencv(rgb, channels):
    given = np.dstack([rgb, np.full(rgb.shape[:2], 90, np.uint8)])[..., :channels]
    turned = given[..., [2, 1, 0, 3][:channels]]
    want = load_image(given)
    got = load_image(turned, bgr=True)
    np.testing.assert_array_equal(got, want)
    assert got.flags.c_contiguous
    assert not np.array_equal(load_image(turned), want)


def test_bgr_changes_nothing_else(rgb, tmp_path):
    grey = rgb[..., 0]
    np.testing.assert_array_equal(load_image(grey, bgr=True), load_image(grey))
    with pytest.raises(ImageError, match="want \\[H, W\\]"):
        load_image(rgb[..., :2], bgr=True)
    for image in (tmp_path / "a.png", b"...", Image.fromarray(rgb)):
        with pytest.raises(TypeError, match="bgr=True is for arrays"):
            load_image(image, bgr=True)


def test_cmyk_and_one_bit():
    cmyk = load_image(_encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=95))
    assert np.abs(cmyk.astype(int) - [255, 0, 0]).max() <= 3
    assert load_image(_encoded(Image.new("1", (2, 2), 1), "PNG")).min() == 255


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(orientation, rgb):
    # The stored pixels that a viewer shows as `rgb`, after the definition of the tag.
    stored = {
        1: rgb, 2: rgb[:, ::-1], 3: rgb[::-1, ::-1], 4: rgb[::-1], 5: rgb.transpose(1, 0, 2),
        6: np.rot90(rgb), 7: rgb[::-1, ::-1].transpose(1, 0, 2), 8: np.rot90(rgb, -1),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    for format in ("PNG", "TIFF"):
        data = _encoded(Image.fromarray(np.ascontiguousarray(stored)), format, exif=exif)
        np.testing.assert_array_equal(load_image(data), rgb)


def test_unreadable_exif_does_not_hide_the_pixels(rgb):
    data = _encoded(Image.fromarray(rgb), "PNG", exif=b"Exif\x00\x00garbage that is no TIFF header")
    np.testing.assert_array_equal(load_image(data), rgb)


def test_missing_folder_address_and_odd_names(tmp_path):
    with pytest.raises(ImageError, match=r"no image at .*nowhere\.png.*check the path"):
        load_image(tmp_path / "nowhere.png")
    with pytest.raises(ImageError, match="not a file"):
        load_image(tmp_path)
    with pytest.raises(ImageError, match="download it first"):
        load_image("https://example.org/a.png")
    with pytest.raises(ImageError, match=r"cannot read|no image"):
        load_image("a\0b.png")
    with pytest.raises(ImageError, match="cannot read"):
        load_image("x" * 5000)


def test_files_that_are_no_images(tmp_path):
    for data, match in (
        (b"", "0 bytes"),
        (b"hello, world" * 99, "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "not an"),
    ):
        path = tmp_path / "a.png"
        path.write_bytes(data)
        for source in (path, data):
            with pytest.raises(ImageError, match=match):
                load_image(source)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "AVIF"])
def test_truncated_and_damaged_files(format):
    if format == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = _encoded(Image.fromarray(noise), format)
    with pytest.raises(ImageError, match=r"truncated|damaged|not an image"):
        load_image(data[: len(data) // 2])
    # Whatever is done to a file, it reads or it is an ImageError of one line.
    rng, lines = np.random.default_rng(2), []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(60):
            broken = bytearray(data[: rng.integers(1, len(data))] if rng.random() < 0.3 else data)
            for position in rng.integers(0, min(len(broken), 400), 4):
                broken[position] = rng.integers(256)
            try:
                load_image(bytes(broken))
            except ImageError as error:
                lines.append(str(error).count("\n"))
    assert lines
    assert not any(lines)


def test_too_many_pixels_are_refused_by_the_header():
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Pillow's own warning must not reach the user beside the error
        with pytest.raises(ImageError, match=r"10000 x 10000 is 100 megapixels, at most 64"):
            load_image(_header_only_png(10000, 10000))
        with pytest.raises(ImageError, match="at most 64,000,000"):
            load_image(_header_only_png(60000, 60000))
    with pytest.raises(ImageError, match="100 megapixels"):
        load_image(np.broadcast_to(np.uint8(0), (10000, 10000, 3)))


@pytest.mark.parametrize("shape", [(0, 5, 3), (5, 0), (0, 0, 4)])
def test_zero_size(shape):
    with pytest.raises(ImageError, match="nothing to segment"):
        load_image(np.zeros(shape, np.uint8))


@pytest.mark.parametrize(
    ("array", "match"),
    [
        (np.zeros((3, 4, 5), np.uint8), r"\[3, 4, 5\].*move the channels last"),
        (np.zeros((4, 5, 2), np.uint8), r"want \[H, W\]"),
        (np.zeros(4, np.uint8), r"want \[H, W\]"),
        (np.zeros((4, 5), np.int64), "int64.*want uint8"),
        (np.zeros((4, 5), bool), "bool.*want uint8"),
        (np.full((4, 5), 200.0), r"spans 200 to 200; want 0\.\.1"),
        (np.full((4, 5), -0.5, np.float32), "spans -0.5"),
    ],
)
def test_arrays_that_are_refused(array, match):
    with pytest.raises(ImageError, match=match):
        load_image(array)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_one_value_that_is_no_number(bad):
    array = np.zeros((4, 5, 3), np.float32)
    array[3, 4, 2] = bad
    for source in (array, Image.fromarray(np.ascontiguousarray(array[:, :, 2]))):
        with pytest.raises(ImageError, match="NaN or infinite"):
            load_image(source)


def test_other_types_and_modes():
    with pytest.raises(TypeError, match="got list"):
        load_image([[1, 2], [3, 4]])
    with pytest.raises(ImageError, match="mode La"):
        load_image(Image.new("La", (2, 2)))
    with pytest.raises(ImageError, match="32-bit values from 0 to 70000"):
        load_image(Image.fromarray(np.array([[0, 70000]], np.int32)))


def test_pixel_values_are_the_official_ones_within_a_grey_level():
    with np.load(FIXTURE) as arrays:
        image, levels = arrays["image_uint8"], arrays["pixel_levels"]
    values = to_pixel_values(image, 224, HALF, HALF)
    assert values.shape == (1, 3, 224, 224)
    assert values.dtype == np.float32
    assert values.flags.c_contiguous
    difference = np.abs(values[0] - ((levels / np.float32(255) - np.float32(0.5)) / np.float32(0.5)))
    assert difference.max() <= 2 / 255 + 1e-6
    assert (difference > 1e-6).mean() < 0.25


def test_mean_and_deviation_by_channel():
    image = np.full((7, 5, 3), (255, 0, 51), np.uint8)
    values = to_pixel_values(image, 4, (0.5, 0.25, 0.2), (0.5, 0.5, 0.1))
    np.testing.assert_allclose(values[0, :, 0, 0], [1, -0.5, 0], atol=1e-6)


@pytest.mark.parametrize("shape", [(300, 20), (20, 300), (41, 40)])
def test_every_picture_is_taken_across_first_whatever_pillow_does(shape):
    image = np.random.default_rng(4).integers(0, 256, (*shape, 3), dtype=np.uint8)
    across = Image.fromarray(image).resize((16, shape[0]), Image.Resampling.BILINEAR)
    want = np.asarray(across.resize((16, 16), Image.Resampling.BILINEAR), np.float32) / np.float32(255)
    for implementation in ("reference", None):
        values = to_pixel_values(image, 16, (0, 0, 0), (1, 1, 1), implementation=implementation)
        np.testing.assert_array_equal(values[0], want.transpose(2, 0, 1))


def test_small_things_do_not_vanish_when_shrunk():
    image = np.zeros((1000, 1000, 3), np.uint8)
    image[::10] = 255  # one row in ten
    values = to_pixel_values(image, 50, (0, 0, 0), (1, 1, 1))
    assert abs(values.mean() - 0.1) < 0.01
    assert values.max() < 0.3


def test_pixel_values_refuses_bad_arguments(rgb):
    with pytest.raises(ValueError, match=r"uint8 \[H, W, 3\], got float64"):
        to_pixel_values(rgb / 255, 8, HALF, HALF)
    nan = (0.5, float("nan"), 0.5)
    for size, mean, std in (
        (0, HALF, HALF), (8, (0.5,), HALF), (8, HALF, (1, 1, 0)), (8, nan, HALF), (8, HALF, nan),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="three means"):
            to_pixel_values(rgb, size, mean, std)


def test_limit_is_sixty_four_megapixels():
    assert preprocess.MAX_PIXELS == 64_000_000
