"""Images and results of sam3i-edge as messages, and back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header
from vision_msgs.msg import (
    Detection2D,
    Detection2DArray,
    LabelInfo,
    ObjectHypothesisWithPose,
    VisionClass,
)

from sam3i_edge import Result
from sam3i_edge.masks import overlay
from sam3i_edge.masks.label_image import label_image
from sam3i_edge.pipeline.preprocess import load_image
from sam3i_edge.pipeline.ros_image import from_ros

AnyImage = Image | CompressedImage

_ENCODINGS = {np.dtype(np.uint8): "mono8", np.dtype(np.uint16): "16UC1"}


def pixels_of(message: AnyImage) -> NDArray[np.uint8]:
    """[H, W, 3] uint8 RGB.

    Raises:
        ImageError: it is damaged, or its encoding is none of those that `from_ros` takes.
    """
    if isinstance(message, CompressedImage):
        return load_image(message.data.tobytes())
    return from_ros(message.encoding, message.height, message.width, message.step, message.data)


def image_message(header: Header, pixels: NDArray[np.generic], encoding: str) -> Image:
    """An image of [H, W] or [H, W, 3]."""
    height, width = pixels.shape[:2]
    step = pixels.nbytes // height
    message = Image(header=header, height=height, width=width, encoding=encoding, step=step)
    message.data = np.ascontiguousarray(pixels).tobytes()
    return message


def hypothesis_of(result: Result, row: int) -> ObjectHypothesisWithPose:
    """What instance `row` of a result is: the instruction, and the score."""
    message = ObjectHypothesisWithPose()
    message.hypothesis.class_id = result.instruction
    message.hypothesis.score = float(result.scores[row])
    return message


def detections_message(
    header: Header, results: Sequence[Result], ids: Sequence[Sequence[str]]
) -> Detection2DArray:
    """Every instance of every instruction, in the order of the instructions and best first.

    Args:
        header: that of the image.
        results: one for each instruction.
        ids: for each of them, the id of each instance.
    """
    message = Detection2DArray(header=header)
    for result, numbers in zip(results, ids, strict=True):
        for row, (box, number) in enumerate(zip(result.boxes.tolist(), numbers, strict=True)):
            x0, y0, x1, y1 = box
            one = Detection2D(header=header, id=number, results=[hypothesis_of(result, row)])
            one.bbox.center.position.x, one.bbox.center.position.y = (x0 + x1) / 2, (y0 + y1) / 2
            one.bbox.size_x, one.bbox.size_y = x1 - x0, y1 - y0
            message.detections.append(one)
    return message


def masks_of(results: Sequence[Result]) -> Iterator[NDArray[np.bool_]]:
    """Masks [H, W] bool in the order of `detections_message`."""
    for result in results:
        yield from result.iter_masks()


def labels_message(header: Header, results: Sequence[Result], labels: str) -> Image:
    """The label image, mono8 or 16UC1, 0 where nothing was found.

    Args:
        header: that of the image.
        results: one for each instruction.
        labels: "instance", the place in the list of detections from 1, or "class", that of the instruction.
    """
    numbers = [number for number, result in enumerate(results, start=1) for _ in range(len(result))]
    if labels == "instance":
        numbers = list(range(1, len(numbers) + 1))
    picture = label_image(masks_of(results), numbers, results[0].image_size)
    return image_message(header, picture, _ENCODINGS[picture.dtype])


def label_info_message(header: Header, names: Sequence[str], threshold: float) -> LabelInfo:
    """What the numbers of a label image mean, from 1."""
    classes = [VisionClass(class_id=number, class_name=name) for number, name in enumerate(names, start=1)]
    return LabelInfo(header=header, class_map=classes, threshold=threshold)


def overlay_message(header: Header, pixels: NDArray[np.uint8], results: Sequence[Result]) -> Image:
    """The image with what was found drawn over it and the instructions below, rgb8; it may be larger."""
    drawn = overlay.draw(
        np.ascontiguousarray(pixels),
        masks_of(results),
        np.concatenate([result.boxes for result in results]),
        np.concatenate([result.scores for result in results]),
        title=" | ".join(str(result.instruction) for result in results),
        dim=False,
    )
    return image_message(header, drawn, "rgb8")
