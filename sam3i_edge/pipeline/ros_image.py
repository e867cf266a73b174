"""The pixels of ROS image messages, as cameras of robots and recordings give them."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from sam3i_edge.errors import ImageError

# Encoding: bytes of a pixel, and which are red, green and blue. A camera's alpha channel says nothing.
_ENCODINGS: Final[dict[str, tuple[int, list[int]]]] = {
    "rgb8": (3, [0, 1, 2]),
    "bgr8": (3, [2, 1, 0]),
    "rgba8": (4, [0, 1, 2]),
    "bgra8": (4, [2, 1, 0]),
    "mono8": (1, [0, 0, 0]),
}
_REASONS: Final = {
    "16UC1": ", which holds depth or raw counts, not brightness",
    "32FC1": ", which holds depth, not brightness",
    "8UC3": ", which does not say whether red or blue is first",
}


def from_ros(encoding: str, height: int, width: int, step: int, data: object) -> NDArray[np.uint8]:
    """The pixels of a `sensor_msgs/Image`.

    Args:
        encoding: one of rgb8, bgr8, rgba8, bgra8 (alpha is left out) and mono8.
        height: rows.
        width: pixels in a row.
        step: bytes from one row to the next.
        data: the message's bytes: bytes, array.array or a numpy array of uint8.

    Returns:
        uint8 [H, W, 3] RGB; of rgb8 and rgba8 a view of `data`.

    Raises:
        ImageError: another encoding, no pixels, rows longer than `step`, or fewer bytes than `height` rows.
    """
    if encoding not in _ENCODINGS:
        raise ImageError(
            f"the image's encoding is {encoding!r}{_REASONS.get(encoding, '')}: want {', '.join(_ENCODINGS)}"
        )
    size, order = _ENCODINGS[encoding]
    if height < 1 or width < 1:
        raise ImageError(f"the image has {width} x {height} pixels: is its camera running?")
    if step < width * size:
        raise ImageError(f"a row of {width} {encoding} pixels has {width * size} bytes, and step is {step}")
    values: NDArray[np.uint8] = np.frombuffer(data, dtype=np.uint8)  # type: ignore[call-overload]
    if values.size < height * step:
        raise ImageError(
            f"{height} rows of {step} bytes are {height * step} bytes, the image has {values.size}"
        )
    rows = values[: height * step].reshape(height, step)[:, : width * size].reshape(height, width, size)
    return rows[..., :3] if order == [0, 1, 2] else rows[..., order]
