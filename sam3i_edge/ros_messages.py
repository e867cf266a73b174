"""What was found as messages of ROS 2, by `rosbags`: detections, label images, and what Foxglove draws."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from sam3i_edge.masks.label_image import label_image
from sam3i_edge.masks.overlay import PALETTE
from sam3i_edge.result import Result

if TYPE_CHECKING:
    from rosbags.typesys.store import Typestore

DETECTIONS: Final = "vision_msgs/msg/Detection2DArray"
IMAGE: Final = "sensor_msgs/msg/Image"
COMPRESSED: Final = "sensor_msgs/msg/CompressedImage"
ANNOTATIONS: Final = "foxglove_msgs/msg/ImageAnnotations"
# The fields of vision_msgs 4, which are written into a recording: a player needs no ROS to read them.
VISION_MSGS: Final = {
    "Point2D": "float64 x\nfloat64 y\n",
    "Pose2D": "vision_msgs/Point2D position\nfloat64 theta\n",
    "BoundingBox2D": "vision_msgs/Pose2D center\nfloat64 size_x\nfloat64 size_y\n",
    "ObjectHypothesis": "string class_id\nfloat64 score\n",
    "ObjectHypothesisWithPose": (
        "vision_msgs/ObjectHypothesis hypothesis\ngeometry_msgs/PoseWithCovariance pose\n"
    ),
    "Detection2D": (
        "std_msgs/Header header\nvision_msgs/ObjectHypothesisWithPose[] results\n"
        "vision_msgs/BoundingBox2D bbox\nstring id\n"
    ),
    "Detection2DArray": "std_msgs/Header header\nvision_msgs/Detection2D[] detections\n",
}
# Those of foxglove_msgs 3, by whose names Foxglove knows what it draws over a picture.
_FOXGLOVE_MSGS: Final = {
    "Color": "float64 r\nfloat64 g\nfloat64 b\nfloat64 a\n",
    "Point2": "float64 x\nfloat64 y\n",
    "CircleAnnotation": (
        "builtin_interfaces/Time timestamp\nfoxglove_msgs/Point2 position\nfloat64 diameter\n"
        "float64 thickness\nfoxglove_msgs/Color fill_color\nfoxglove_msgs/Color outline_color\n"
    ),
    "PointsAnnotation": (
        "builtin_interfaces/Time timestamp\nuint8 UNKNOWN=0\nuint8 POINTS=1\nuint8 LINE_LOOP=2\n"
        "uint8 LINE_STRIP=3\nuint8 LINE_LIST=4\nuint8 type\nfoxglove_msgs/Point2[] points\n"
        "foxglove_msgs/Color outline_color\nfoxglove_msgs/Color[] outline_colors\n"
        "foxglove_msgs/Color fill_color\nfloat64 thickness\n"
    ),
    "TextAnnotation": (
        "builtin_interfaces/Time timestamp\nfoxglove_msgs/Point2 position\nstring text\nfloat64 font_size\n"
        "foxglove_msgs/Color text_color\nfoxglove_msgs/Color background_color\n"
    ),
    "ImageAnnotations": (
        "foxglove_msgs/CircleAnnotation[] circles\nfoxglove_msgs/PointsAnnotation[] points\n"
        "foxglove_msgs/TextAnnotation[] texts\n"
    ),
}
_FILL: Final = 0.35  # opacity of a mask
_LINE: Final = 2.0  # px
_FONT: Final = 14.0  # px


def message_types() -> Typestore:
    """ROS 2's types, and the two packages' above.

    Raises:
        ModuleNotFoundError: the library is not installed.
    """
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore

    types = get_typestore(Stores.ROS2_HUMBLE)
    for package, definitions in (("vision_msgs", VISION_MSGS), ("foxglove_msgs", _FOXGLOVE_MSGS)):
        for name, text in definitions.items():
            types.register(get_types_from_msg(text, f"{package}/msg/{name}"))
    return types


def header_message(types: Typestore, time_ns: int, frame_id: str = "") -> Any:
    """A `std_msgs/Header` of a time."""
    stamp = types.types["builtin_interfaces/msg/Time"](*divmod(time_ns, 10**9))
    return types.types["std_msgs/msg/Header"](stamp, frame_id)


def detections_message(types: Typestore, header: Any, results: Sequence[Result]) -> Any:
    """A `Detection2DArray`: `class_id` is the instruction, `id` the track or a number from 1."""

    def of(name: str, *values: Any) -> Any:
        return types.types[f"vision_msgs/msg/{name}"](*values)

    pose = types.types["geometry_msgs/msg/PoseWithCovariance"](
        types.types["geometry_msgs/msg/Pose"](
            types.types["geometry_msgs/msg/Point"](0.0, 0.0, 0.0),
            types.types["geometry_msgs/msg/Quaternion"](0.0, 0.0, 0.0, 1.0),
        ),
        np.zeros(36),
    )
    found = []
    for result, place, number in _instances(results):
        x0, y0, x1, y1 = result.boxes[place].tolist()
        center = of("Pose2D", of("Point2D", (x0 + x1) / 2, (y0 + y1) / 2), 0.0)
        hypothesis = of("ObjectHypothesis", result.instruction or "", float(result.scores[place]))
        found.append(
            of(
                "Detection2D",
                header,
                [of("ObjectHypothesisWithPose", hypothesis, pose)],
                of("BoundingBox2D", center, x1 - x0, y1 - y0),
                str(number),
            )
        )
    return of("Detection2DArray", header, found)


def labels_message(types: Typestore, header: Any, results: Sequence[Result]) -> Any:
    """An `Image`, mono8 or 16UC1: a pixel is the number of its detection from 1, 0 where there is none."""
    masks = (mask for result in results for mask in result.iter_masks())
    height, width = results[0].image_size
    labels = label_image(masks, range(1, sum(map(len, results)) + 1), (height, width))
    encoding = "mono8" if labels.itemsize == 1 else "16UC1"
    return types.types[IMAGE](
        header, height, width, encoding, 0, width * labels.itemsize, labels.view(np.uint8).ravel()
    )


def jpeg_message(types: Typestore, header: Any, image: NDArray[np.uint8]) -> Any:
    """A `CompressedImage` of a picture [H, W, 3] RGB."""
    import cv2

    data = cv2.imencode(".jpg", image[..., ::-1])[1]
    return types.types[COMPRESSED](header, "jpeg", data)


def annotations_message(types: Typestore, header: Any, results: Sequence[Result]) -> Any:
    """An `ImageAnnotations`: outlines of masks, filled where they have no holes, boxes, and what each is.

    A text has the track, or a number from 1, the instruction and the score.
    """

    def of(name: str, *values: Any) -> Any:
        return types.types[f"foxglove_msgs/msg/{name}"](*values)

    def loop(ring: NDArray[np.float32], color: Sequence[float], fill: float, line: float) -> Any:
        points = [of("Point2", x, y) for x, y in ring.tolist()]
        inside = of("Color", *color, fill)
        return of("PointsAnnotation", header.stamp, 2, points, of("Color", *color, 1.0), [], inside, line)

    loops, texts = [], []
    for at, (result, place, number) in enumerate(_instances(results)):
        key = at if result.track_ids is None else number
        color = [channel / 255 for channel in PALETTE[key % len(PALETTE)]]
        for outer, holes in result.polygons[place]:
            loops.append(loop(outer, color, 0.0 if holes else _FILL, _LINE))
            loops += [loop(hole, color, 0.0, _LINE) for hole in holes]
        x0, y0, x1, y1 = result.boxes[place].tolist()
        loops.append(loop(np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]]), color, 0.0, _LINE / 2))
        text = f"{number}: {result.instruction or 'as shown'} {result.scores[place]:.2f}"
        ink, ground = of("Color", 1.0, 1.0, 1.0, 1.0), of("Color", 0.0, 0.0, 0.0, 0.6)
        texts.append(of("TextAnnotation", header.stamp, of("Point2", x0, y0), text, _FONT, ink, ground))
    return of("ImageAnnotations", [], loops, texts)


def _instances(results: Sequence[Result]) -> Iterator[tuple[Result, int, int]]:
    """Each instance: its result, its place in it, and its track or a number from 1 over all results."""
    count = 0
    for result in results:
        for place in range(len(result)):
            count += 1
            yield result, place, count if result.track_ids is None else int(result.track_ids[place])
