"""The C library of native/: mask logits to run lengths, a picture to the model's input, each in one pass.

The rule: the library when it is there, the definition in Python when it is not; `implementation()` tells
which. Both give the same bits. A library that is there but cannot be used is an error, never skipped.

The library is found in this package's folders. Any installation with a C++ compiler builds it and puts it
there, an editable one into site-packages.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from pathlib import Path
from typing import Literal, TypedDict

import numpy as np
from numpy.typing import NDArray

from sam3i_edge.errors import RuntimeUnavailable
from sam3i_edge.install_hint import install_hint
from sam3i_edge.masks import rle
from sam3i_edge.pipeline.postprocess import resize_mask_logits

Implementation = Literal["native", "reference"]

ABI_VERSION = 1
LIBRARY_NAME = "libsam3i_edge" + {"win32": ".dll", "darwin": ".dylib"}.get(sys.platform, ".so")

_OK, _INVALID_ARGUMENT, _NOT_FINITE, _CAPACITY, _OUT_OF_MEMORY = range(5)


class MaskRuns(TypedDict):
    """One mask as run lengths.

    Attributes:
        size: [H, W], pixels.
        counts: [R] int64, lengths of the runs column by column, background first.
        area: pixels in the mask.
        bbox: [x, y, width, height] of the mask in pixels; zeros when it is empty.
    """

    size: list[int]
    counts: NDArray[np.int64]
    area: int
    bbox: list[int]


class Library:
    """An open sam3i_edge library. Thread-safe, as the library is; ctypes lets other threads run meanwhile."""

    def __init__(self, path: Path, handle: ctypes.CDLL) -> None:
        self.path = path
        self._mask_rle = handle.sam3i_mask_rle
        self._mask_rle.restype = ctypes.c_int32
        self._mask_rle.argtypes = [
            ctypes.c_void_p,
            *[ctypes.c_int32] * 4,
            ctypes.c_float,
            ctypes.c_void_p,
            ctypes.c_int64,
            ctypes.POINTER(ctypes.c_int64),
            ctypes.POINTER(ctypes.c_int64),
            ctypes.POINTER(ctypes.c_int32 * 4),
        ]
        self._pixel_values = handle.sam3i_pixel_values
        self._pixel_values.restype = ctypes.c_int32
        self._pixel_values.argtypes = [ctypes.c_void_p, *[ctypes.c_int32] * 3, *[ctypes.c_void_p] * 3]

    def mask_rle(
        self, logits: NDArray[np.float32], size: tuple[int, int], threshold: float = 0.0
    ) -> MaskRuns:
        """See `mask_rle` of this module."""
        _check(logits, size)
        grid = np.ascontiguousarray(logits)
        (rows, columns), (height, width) = grid.shape, size
        count, area, bbox = ctypes.c_int64(), ctypes.c_int64(), (ctypes.c_int32 * 4)()
        capacity = min(16 * width + 16, height * width + 1)  # eight stretches a column: more than masks have
        while True:
            counts = np.empty(capacity, dtype=np.uint32)
            status = self._mask_rle(
                grid.ctypes.data, rows, columns, height, width, threshold,
                counts.ctypes.data, capacity, ctypes.byref(count), ctypes.byref(area), ctypes.byref(bbox),
            )  # fmt: skip
            if status != _CAPACITY:
                break
            capacity = count.value
        if status == _NOT_FINITE:
            raise ValueError("logits and threshold must be finite and at most 1e30")
        self._check(status, f"the run lengths of a {height} x {width} mask")
        return {
            "size": [height, width],
            "counts": counts[: count.value].astype(np.int64),
            "area": area.value,
            "bbox": list(bbox),
        }

    def pixel_values(
        self, image: NDArray[np.uint8], size: int, mean: tuple[float, ...], std: tuple[float, ...]
    ) -> NDArray[np.float32]:
        """See `sam3i_edge.pipeline.preprocess.to_pixel_values`, which checks the arguments."""
        pixels = np.ascontiguousarray(image)
        height, width, _ = pixels.shape
        means, deviations = np.array(mean, np.float32), np.array(std, np.float32)
        values = np.empty((1, 3, size, size), np.float32)
        status = self._pixel_values(
            pixels.ctypes.data, height, width, size, means.ctypes.data, deviations.ctypes.data,
            values.ctypes.data,
        )  # fmt: skip
        self._check(status, f"a picture of {size} x {size}")
        return values

    def _check(self, status: int, what: str) -> None:
        if status == _OUT_OF_MEMORY:
            raise MemoryError(f"no memory for {what}")
        if status != _OK:
            raise RuntimeUnavailable(f"{self.path} answered status {status}: {_install()}")


def load(path: str | Path) -> Library:
    """Opens the library at a path.

    Raises:
        RuntimeUnavailable: it is no library for this machine, or for another version of this package.
    """
    path = Path(path)
    try:
        handle = ctypes.CDLL(str(path))
    except OSError as error:
        raise RuntimeUnavailable(f"cannot open {path} ({error}): {_install()}") from error
    try:
        version = handle.sam3i_abi_version()
        library = Library(path, handle)
    except AttributeError as error:
        raise RuntimeUnavailable(f"{path} is no sam3i_edge library ({error}): {_install()}") from error
    if version != ABI_VERSION:
        raise RuntimeUnavailable(
            f"{path} speaks version {version} of the interface, this package wants {ABI_VERSION}: "
            f"{_install()}"
        )
    return library


def _install() -> str:
    command = install_hint(options="--force-reinstall --no-deps")
    return f"build it with a C++ compiler: {command}"


@functools.cache
def _installed() -> Library | None:
    import sam3i_edge

    for folder in sam3i_edge.__path__:
        path = Path(folder) / LIBRARY_NAME
        if path.is_file():
            return load(path)
    return None


def available() -> bool:
    """True when the library is installed.

    Raises:
        RuntimeUnavailable: it is there but cannot be used.
    """
    return _installed() is not None


def implementation() -> Implementation:
    """Which one runs when none is asked for.

    Raises:
        RuntimeUnavailable: the library is there but cannot be used.
    """
    return "native" if available() else "reference"


def choose(implementation: Implementation | None) -> Library | None:
    """The library to run, or None for the definition.

    Args:
        implementation: "native" or "reference"; None takes the library when it is installed.

    Raises:
        RuntimeUnavailable: "native" was asked for and is not installed, or the library cannot be used.
        ValueError: there is no such implementation.
    """
    if implementation not in (None, "native", "reference"):
        raise ValueError(f"unknown implementation {implementation!r}; choose native, reference or None")
    library = None if implementation == "reference" else _installed()
    if library is None and implementation == "native":
        import sam3i_edge

        searched = ", ".join(map(str, sam3i_edge.__path__))
        raise RuntimeUnavailable(f"no {LIBRARY_NAME} in {searched}: {_install()}")
    return library


def mask_rle(
    logits: NDArray[np.float32],
    size: tuple[int, int],
    threshold: float = 0.0,
    *,
    implementation: Implementation | None = None,
) -> MaskRuns:
    """One mask's logits resized to the image, cut at the threshold, as run lengths.

    Args:
        logits: [h, w] float32.
        size: (H, W) of the image, pixels; fewer than 2**32 of them.
        threshold: logit above which a pixel is inside.
        implementation: as in `choose`.

    Raises:
        RuntimeUnavailable: as in `choose`.
        ValueError: shape, dtype, size or implementation is wrong, or a value is NaN, infinite or beyond 1e30.
    """
    library = choose(implementation)
    if library is not None:
        return library.mask_rle(logits, size, threshold)
    return mask_rle_reference(logits, size, threshold)


def mask_rle_reference(
    logits: NDArray[np.float32], size: tuple[int, int], threshold: float = 0.0
) -> MaskRuns:
    """The definition of `mask_rle`: `resize_mask_logits`, then the runs of the dense mask."""
    _check(logits, size)
    mask = resize_mask_logits(logits[None], size, threshold=threshold)[0]
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    bbox = [0, 0, 0, 0]
    if len(rows):
        left, top = int(columns[0]), int(rows[0])
        bbox = [left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top]
    return {
        "size": [size[0], size[1]],
        "counts": rle.counts_of(mask),
        "area": int(np.count_nonzero(mask)),
        "bbox": bbox,
    }


def _check(logits: NDArray[np.float32], size: tuple[int, int]) -> None:
    if logits.ndim != 2 or 0 in logits.shape or logits.dtype != np.float32:
        raise ValueError(f"logits must be float32 [h, w], got {logits.dtype} {list(logits.shape)}")
    height, width = size
    if height < 1 or width < 1 or height * width > rle.MOST_PIXELS:
        raise ValueError(f"the image size must be 1 x 1 to 2**32 - 1 pixels, got {height} x {width}")
