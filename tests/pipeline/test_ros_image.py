import array

import numpy as np
import pytest

from sam3i_edge.errors import ImageError
from sam3i_edge.pipeline.ros_image import from_ros

RGB = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)


def message(pixels, padding=0):
    """Rows of a message whose step is longer than what they hold."""
    rows = np.pad(pixels.reshape(pixels.shape[0], -1), ((0, 0), (0, padding)), constant_values=77)
    return *pixels.shape[:2], rows.shape[1], rows.tobytes()


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize(
    ("encoding", "pixels"),
    [
        ("rgb8", RGB),
        ("bgr8", RGB[..., ::-1]),
        ("rgba8", np.dstack([RGB, RGB[..., :1]])),
        ("bgra8", np.dstack([RGB[..., ::-1], RGB[..., :1]])),
    ],
)
def test_colours_come_in_order(encoding, pixels, padding):
    height, width, step, data = message(pixels, padding)
    np.testing.assert_array_equal(from_ros(encoding, height, width, step, data), RGB)
    np.testing.assert_array_equal(from_ros(encoding, height, width, step, array.array("B", data)), RGB)


def test_grey_is_the_same_in_every_channel():
    grey = RGB[..., :1]
    np.testing.assert_array_equal(from_ros("mono8", *message(grey, 3)), np.repeat(grey, 3, 2))


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("16UC1", 2, 2, 4, bytes(8)), "16UC1.*depth.*want rgb8, bgr8, rgba8, bgra8, mono8"),
        (("yuv422_yuy2", 2, 2, 4, bytes(8)), "yuv422_yuy2"),
        (("rgb8", 0, 2, 6, b""), "2 x 0 pixels"),
        (("rgb8", 2, 2, 5, bytes(12)), "6 bytes, and step is 5"),
        (("rgb8", 2, 2, 6, bytes(11)), "12 bytes, the image has 11"),
    ],
)
def test_what_is_no_picture_is_refused(arguments, problem):
    with pytest.raises(ImageError, match=problem):
        from_ros(*arguments)
