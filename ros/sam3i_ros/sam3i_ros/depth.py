"""Boxes and centroids in space, from masks and an aligned depth image."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header
from vision_msgs.msg import Detection3D, Detection3DArray

from sam3i_edge import Result
from sam3i_edge.errors import ImageError
from sam3i_ros.messages import hypothesis_of

_KEPT = 10  # depth images that wait for their image
_LEAST_PIXELS = 10  # with depth: fewer are noise
# Pixels at edges see what lies behind: points whose depth is further from the median than so many median
# deviations, and than so many metres, do not count.
_DEVIATIONS = 5.0
_LEAST_SPREAD = 0.02
_ENCODINGS = {"16UC1": (np.uint16, 1e-3), "32FC1": (np.float32, 1.0)}


class DepthImages:
    """The last depth images and the camera that gives them."""

    def __init__(self) -> None:
        self._images: deque[Image] = deque(maxlen=_KEPT)
        self._camera: CameraInfo | None = None

    def add(self, message: Image) -> None:
        """Keeps a depth image."""
        self._images.append(message)

    def calibrate(self, message: CameraInfo) -> None:
        """Keeps what is known of the camera."""
        self._camera = message

    def near(self, header: Header, tolerance: float) -> tuple[NDArray[np.float32], CameraInfo]:
        """The depth nearest in time as `metres_of` gives it, and the camera.

        Args:
            header: that of the image.
            tolerance: seconds that they may be apart.

        Raises:
            ImageError: there is none so near, it cannot be used, or no camera_info came.
        """
        if self._camera is None:
            raise ImageError("use_depth needs camera_info, and none came")
        apart = [(abs(_seconds(one.header) - _seconds(header)), one) for one in list(self._images)]
        seconds, nearest = min(apart, key=lambda pair: pair[0], default=(math.inf, None))
        if nearest is None or seconds > tolerance:
            raise ImageError(f"the nearest depth is {seconds:.3f} s from the image: see depth_tolerance")
        return metres_of(nearest), self._camera


def _seconds(header: Header) -> float:
    return header.stamp.sec + header.stamp.nanosec * 1e-9


def metres_of(message: Image) -> NDArray[np.float32]:
    """[H, W] float32 metres, NaN where there is no depth.

    Raises:
        ImageError: the encoding is neither 16UC1 (millimetres) nor 32FC1 (metres), or bytes are missing.
    """
    if message.encoding not in _ENCODINGS:
        raise ImageError(f"depth is {message.encoding!r}: want {' or '.join(_ENCODINGS)}")
    kind, unit = _ENCODINGS[message.encoding]
    dtype = np.dtype(kind).newbyteorder(">" if message.is_bigendian else "<")
    height, width, step = message.height, message.width, message.step
    values = np.frombuffer(message.data, np.uint8)
    if not height or not width or step < width * dtype.itemsize or values.size < height * step:
        raise ImageError(f"depth of {width} x {height} pixels has {values.size} bytes, {step} a row")
    rows = np.ascontiguousarray(values[: height * step].reshape(height, step)[:, : width * dtype.itemsize])
    depth = rows.view(dtype).astype(np.float32) * np.float32(unit)
    return np.where(np.isfinite(depth) & (depth > 0), depth, np.float32(np.nan))


def points_of(mask: NDArray[np.bool_], depth: NDArray[np.float32], camera: CameraInfo) -> NDArray[np.float64]:
    """[N, 3] metres in the camera's optical frame (x right, y down, z ahead), without outliers in depth.

    Args:
        mask: [H, W].
        depth: [H, W] metres, NaN where there is none.
        camera: of which K is read; the image is rectified.
    """
    rows, columns = np.nonzero(mask & np.isfinite(depth))
    z = depth[rows, columns].astype(np.float64)
    if len(z):
        apart = np.abs(z - np.median(z))
        near = apart <= max(_LEAST_SPREAD, _DEVIATIONS * float(np.median(apart)))
        rows, columns, z = rows[near], columns[near], z[near]
    fx, fy, cx, cy = camera.k[0], camera.k[4], camera.k[2], camera.k[5]
    return np.stack([(columns - cx) * z / fx, (rows - cy) * z / fy, z], axis=1)


def detections_3d_message(
    header: Header,
    results: Sequence[Result],
    ids: Sequence[Sequence[str]],
    depth: NDArray[np.float32],
    camera: CameraInfo,
) -> Detection3DArray:
    """A box along the camera's axes and a centroid, the median, for each instance that has depth.

    Args:
        header: that of the image; depth is aligned with it, so its frame is the camera's.
        results: one for each instruction.
        ids: for each of them, the id of each instance, as in the 2-D detections.
        depth: as `metres_of` gives it.
        camera: of the image.

    Raises:
        ImageError: depth and image differ in size, or the camera is not calibrated.
    """
    size = results[0].image_size
    if depth.shape != size:
        raise ImageError(
            f"depth is {depth.shape[1]} x {depth.shape[0]} pixels, the image {size[1]} x {size[0]}"
        )
    if camera.k[0] <= 0 or camera.k[4] <= 0:
        raise ImageError("camera_info has no focal length: calibrate the camera")
    message = Detection3DArray(header=header)
    for result, numbers in zip(results, ids, strict=True):
        for row, (mask, number) in enumerate(zip(result.iter_masks(), numbers, strict=True)):
            points = points_of(mask, depth, camera)
            if len(points) < _LEAST_PIXELS:
                continue
            low, high = points.min(axis=0), points.max(axis=0)
            hypothesis = hypothesis_of(result, row)
            one = Detection3D(header=header, id=number, results=[hypothesis])
            _place(hypothesis.pose.pose.position, np.median(points, axis=0))
            _place(one.bbox.center.position, (low + high) / 2)
            _place(one.bbox.size, high - low)
            message.detections.append(one)
    return message


def _place(target: object, values: NDArray[np.float64]) -> None:
    target.x, target.y, target.z = values.tolist()  # type: ignore[attr-defined]
