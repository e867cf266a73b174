"""An image as users have it -> uint8 RGB -> the tensor that the image encoder takes."""

from __future__ import annotations

import io
import struct
import threading
import warnings
import zlib
from pathlib import Path
from typing import BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, TiffImagePlugin, UnidentifiedImageError

from sam3i_edge.errors import ImageError
from sam3i_edge.masks import native

ImageSource: TypeAlias = "str | Path | bytes | bytearray | memoryview | NDArray[np.generic] | Image.Image"

MAX_PIXELS = 64_000_000

# Raster formats that Pillow decodes by itself: EPS would start Ghostscript, others hold no pixels of their
# own. HEIF is there once the user has registered pillow-heif.
_FORMATS = (
    "PNG", "JPEG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "PPM", "AVIF", "JPEG2000", "TGA", "ICO", "HEIF",
)  # fmt: skip
# What Pillow's decoders raise on damaged files.
_DAMAGE = (
    OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, AttributeError,
    RuntimeError, OverflowError, struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_EXTRA_SAMPLES = 338  # the tag of a TIFF that says what bands beyond the third are
_FLOAT_SLACK = 1e-3
_opening = threading.Lock()


def load_image(image: ImageSource, *, bgr: bool = False) -> NDArray[np.uint8]:
    """Reads an image of any usual kind.

    Args:
        image: one of
            - path of a file: PNG, JPEG, WebP, BMP, GIF and TIFF (their first frame), PPM, AVIF, JPEG 2000,
              TGA, ICO;
            - bytes of such a file;
            - numpy array [H, W], [H, W, 1] (grey), [H, W, 3] (RGB) or [H, W, 4] (RGBA): uint8, uint16
              (65,535 is white) or float (1.0 is white);
            - PIL image of any mode.
        bgr: the array's colours are in OpenCV's order, blue first.

    Returns:
        uint8 [H, W, 3] RGB, C-contiguous, read-only, a copy. EXIF rotation is applied. Transparent pixels are
        blended over white; a TIFF's fourth band counts as such only where the file says so. 16-bit values are
        scaled, not stretched. Colour profiles are not applied.

    Raises:
        ImageError: the file is missing, truncated or no image; it has no pixels or more than 64 megapixels
            (found in the header, before anything is decoded); an array of another shape or dtype, or floats
            that are NaN, infinite or outside 0..1 (a thousandth over is clipped).
        TypeError: `image` is none of these types, or `bgr` is said of anything but an array.
    """
    if bgr and not isinstance(image, np.ndarray):
        raise TypeError(
            f"bgr=True is for arrays as OpenCV gives them, got {type(image).__name__}: leave it out, what is "
            "read here is in RGB"
        )
    if isinstance(image, np.ndarray):
        # Grey has one channel; what has neither 3 nor 4 is refused, whatever its order.
        turn = bgr and image.ndim == 3 and image.shape[2] in (3, 4)
        pixels = _from_array(image[..., [2, 1, 0, 3][: image.shape[2]]] if turn else image)
    elif isinstance(image, Image.Image):
        pixels = _from_pil(image, "the image")
    elif isinstance(image, (str, Path)):
        pixels = _from_path(image)
    elif isinstance(image, (bytes, bytearray, memoryview)):
        pixels = _from_file(io.BytesIO(image), f"the {len(image):,} bytes")
    else:
        raise TypeError(
            f"an image must be a path, bytes, a numpy array or a PIL image, got {type(image).__name__}"
        )
    pixels.flags.writeable = False
    return pixels


def to_pixel_values(
    image: NDArray[np.uint8],
    size: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    *,
    implementation: native.Implementation | None = None,
) -> NDArray[np.float32]:
    """The image encoder's input: antialiased bilinear resize to a square on uint8, then normalisation.

    The aspect is not kept and nothing is padded, as in the official code. There the resize is torchvision's;
    Pillow's, used here, differs from it by at most one grey level. It is taken across first and then down,
    whatever the picture's shape and Pillow's version.

    Args:
        image: uint8 [H, W, 3] RGB.
        size: side S of the square, pixels.
        mean: of the three channels, on a scale of 0..1.
        std: likewise.
        implementation: as in `sam3i_edge.masks.native.choose`.

    Returns:
        float32 [1, 3, S, S], (x / 255 - mean) / std.

    Raises:
        RuntimeUnavailable: as in `sam3i_edge.masks.native.choose`.
        ValueError: `image` is not uint8 [H, W, 3], or `size`, `mean` or `std` is out of range.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ValueError(f"image must be uint8 [H, W, 3], got {image.dtype} {list(image.shape)}")
    if size < 1 or len(mean) != 3 or len(std) != 3 or not (np.isfinite([*mean, *std]).all() and min(std) > 0):
        raise ValueError(f"want size >= 1 and three means and positive deviations, got {size}, {mean}, {std}")
    library = native.choose(implementation)
    if library is not None:
        return library.pixel_values(image, size, mean, std)
    narrow = Image.fromarray(image).resize((size, image.shape[0]), Image.Resampling.BILINEAR)
    small = narrow.resize((size, size), Image.Resampling.BILINEAR)
    values = np.asarray(small).transpose(2, 0, 1).astype(np.float32, order="C") / np.float32(255)
    values -= np.asarray(mean, dtype=np.float32)[:, None, None]
    values /= np.asarray(std, dtype=np.float32)[:, None, None]
    return values[None]


def _from_path(path: str | Path) -> NDArray[np.uint8]:
    text = str(path)
    if text.startswith(("http://", "https://")):
        raise ImageError(f"{text} is an address, not a file: download it first")
    try:
        if not Path(path).exists():
            raise ImageError(f"no image at {text!r}: check the path")
        if not Path(path).is_file():
            raise ImageError(f"{text!r} is not a file: name one image")
        with Path(path).open("rb") as file:
            return _from_file(file, text)
    except ImageError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        raise ImageError(f"cannot read {text!r}: {error}") from error


def _from_file(file: BinaryIO, name: str) -> NDArray[np.uint8]:
    if not file.read(1):
        raise ImageError(f"{name}: empty, 0 bytes; want an image file")
    file.seek(0)
    Image.init()
    formats = [known for known in _FORMATS if known in Image.OPEN]
    try:
        # Pillow warns above 89 megapixels; here that is an error with one message, given by _check_size.
        with _opening, warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            opened = Image.open(file, formats=formats)
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name}: {error}; at most {MAX_PIXELS:,} are allowed: make it smaller") from error
    except UnidentifiedImageError as error:
        raise ImageError(
            f"{name}: not an image that can be read, or its header is damaged; "
            "want PNG, JPEG, WebP, BMP, GIF, TIFF, AVIF or PPM"
        ) from error
    except _DAMAGE as error:
        raise ImageError(f"{name}: damaged image header ({error}): save the image again") from error
    with opened:
        return _from_pil(opened, name)


def _from_pil(image: Image.Image, name: str) -> NDArray[np.uint8]:
    _check_size(image.height, image.width, name)
    try:
        image.load()
    except _DAMAGE as error:
        raise ImageError(f"{name}: truncated or damaged ({error}): save or download it again") from error
    has_alpha = image.has_transparency_data and not _is_without_alpha(image)
    method = _TRANSPOSE.get(_orientation(image))
    if method is not None:
        image = image.transpose(method)
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _from_array(_wide_values(image, name))
    try:
        if has_alpha:
            return _over_white(np.asarray(image.convert("RGBA")))
        return np.array(image.convert("RGB"))
    except ValueError as error:  # premultiplied grey, for one
        raise ImageError(f"{name}: colours of mode {image.mode} ({error}): save it as RGB") from error


def _is_without_alpha(image: Image.Image) -> bool:
    """Whether it is a TIFF that does not say what its fourth band is, as cameras for infrared write.

    Pillow takes that for alpha, and the picture would come out nearly white.
    """
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return False
    return image.mode == "RGBA" and _EXTRA_SAMPLES not in image.tag_v2


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1 to 8; an EXIF block that cannot be read says nothing, the pixels are whole."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except _DAMAGE:
        return 1
    return value if isinstance(value, int) else 1


def _wide_values(image: Image.Image, name: str) -> NDArray[np.generic]:
    """Values of a PIL image of 16 or 32 bits a pixel, as the array that means the same."""
    values = np.asarray(image)
    if values.dtype.kind == "f":
        return values
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise ImageError(f"{name}: 32-bit values from {low} to {high}; want 0 to 65535: scale them first")
    return values.astype(np.uint16)


def _from_array(array: NDArray[np.generic]) -> NDArray[np.uint8]:
    found = f"array of {array.dtype} {list(array.shape)}"
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        hint = ": move the channels last" if array.ndim == 3 and array.shape[0] in (1, 3, 4) else ""
        raise ImageError(f"{found}; want [H, W], [H, W, 1], [H, W, 3] or [H, W, 4]{hint}")
    _check_size(array.shape[0], array.shape[1], found)
    values = _as_uint8(array, found)
    if values.ndim == 2:
        values = values[:, :, None]
    if values.shape[2] == 1:
        return np.repeat(values, 3, axis=2)
    if values.shape[2] == 4:
        return _over_white(values)
    return np.array(values, order="C")


def _as_uint8(array: NDArray[np.generic], found: str) -> NDArray[np.uint8]:
    if array.dtype == np.uint8:
        return array.view(np.uint8)
    if array.dtype.kind == "u" and array.dtype.itemsize == 2:
        levels = ((np.arange(65536) * 255 + 32767) // 65535).astype(np.uint8)
        return np.take(levels, array.astype(np.uint16, copy=False))
    if array.dtype.kind != "f":
        raise ImageError(f"{found}; want uint8, uint16 or float 0..1: convert it first")
    low, high = float(array.min()), float(array.max())  # NaN where any value is
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ImageError(f"{found} holds NaN or infinite values; want 0..1: replace them first")
    if low < -_FLOAT_SLACK or high > 1 + _FLOAT_SLACK:
        raise ImageError(f"{found} spans {low:g} to {high:g}; want 0..1: scale it, or pass uint8 0..255")
    return np.rint(np.clip(array.astype(np.float32), 0, 1) * 255).astype(np.uint8)


def _over_white(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Blends [H, W, 4] over white: what viewers show, where dropping alpha shows hidden colours."""
    alpha = rgba[:, :, 3:].astype(np.uint16)  # the sum below stays under 65,153
    blended = (rgba[:, :, :3] * alpha + 255 * (255 - alpha) + 127) // 255
    return blended.astype(np.uint8, order="C")


def _check_size(height: int, width: int, name: str) -> None:
    if height < 1 or width < 1:
        raise ImageError(f"{name}: {width} x {height} pixels, nothing to segment")
    if height * width > MAX_PIXELS:
        raise ImageError(
            f"{name}: {width} x {height} is {height * width / 1e6:.0f} megapixels, "
            f"at most {MAX_PIXELS // 1_000_000} are allowed: make it smaller or cut it into tiles"
        )
