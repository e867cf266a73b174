"""One picture of an input, and how it is read."""

from __future__ import annotations

import urllib.error
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sam3i_edge.errors import ImageError
from sam3i_edge.pipeline.preprocess import ImageSource, load_image

ARRAY: Final = ".npy"
SUFFIXES: Final = (
    ".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".avif", ".jp2", ARRAY,
)  # fmt: skip
_MOST_BYTES: Final = 256 << 20  # of a picture at an address
_PATIENCE: Final = 30.0  # seconds


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture, not read yet unless it is a frame.

    Attributes:
        name: of its input's pictures no other has it: a path, or the input's name and a frame's number.
        image: what `load_image` takes, the path of an array (.npy), or an address (http, https).
        seconds: since the beginning of a video, or since the first frame that came; None for files.
    """

    name: str
    image: ImageSource
    seconds: float | None = None

    def read(self, *, bgr: bool = False) -> NDArray[np.uint8]:
        """Its pixels, [H, W, 3] uint8 RGB.

        Args:
            bgr: arrays in files are in OpenCV's order; it says nothing of other pictures.

        Raises:
            ImageError: it cannot be read, or is no picture.
        """
        if isinstance(self.image, str) and self.image.startswith(("http://", "https://")):
            return load_image(_download(self.image))
        if isinstance(self.image, Path) and self.image.suffix.lower() == ARRAY:
            try:
                array = np.load(self.image, allow_pickle=False)
            except (OSError, ValueError, EOFError) as error:
                raise ImageError(f"{self.image}: no array that can be read ({error})") from error
            if not isinstance(array, np.ndarray):
                raise ImageError(f"{self.image}: several arrays; want one, [H, W, 3]")
            return load_image(array, bgr=bgr)
        return load_image(self.image)


def _download(address: str) -> bytes:
    try:
        with urllib.request.urlopen(address, timeout=_PATIENCE) as answer:
            content: bytes = answer.read(_MOST_BYTES + 1)
    except (OSError, ValueError, HTTPException, urllib.error.URLError) as error:
        raise ImageError(f"{address}: {error}") from error
    if len(content) > _MOST_BYTES:
        raise ImageError(f"{address}: over {_MOST_BYTES:,} bytes; want a picture")
    return content
