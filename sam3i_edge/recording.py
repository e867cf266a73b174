"""Recordings of robots: a topic's images are segmented, and what was found is a recording again.

Reads MCAP, rosbag2 folders (MCAP or SQLite) and ROS 1 bags without ROS, by `rosbags` (Apache-2.0).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from sam3i_edge.errors import ImageError, StreamError
from sam3i_edge.install_hint import install_hint
from sam3i_edge.pipeline.preprocess import load_image
from sam3i_edge.pipeline.ros_image import from_ros
from sam3i_edge.result import Result
from sam3i_edge.ros_messages import (
    COMPRESSED,
    DETECTIONS,
    IMAGE,
    detections_message,
    header_message,
    labels_message,
    message_types,
)

if TYPE_CHECKING:
    from rosbags.highlevel import AnyReader
    from rosbags.interfaces import Connection
    from rosbags.rosbag2 import Writer
    from rosbags.typesys.store import Typestore

_IMAGES: Final = (IMAGE, COMPRESSED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What became of a topic's images.

    Attributes:
        images: images that were segmented.
        instances: instances that were found in them.
        unreadable: images that were left out, as damaged or of another encoding.
        first_problem: why the first of those was left out; "" for none.
    """

    images: int
    instances: int
    unreadable: int
    first_problem: str


@dataclass(slots=True)
class _Frames(Iterator[NDArray[np.uint8]]):
    """The topic's images in order, with the header and the time of the one that was given last."""

    messages: Iterator[tuple[Any, int, Any]]
    reader: AnyReader
    header: Any = None
    time_ns: int = 0
    problems: list[str] = field(default_factory=list)

    def __next__(self) -> NDArray[np.uint8]:
        for connection, time_ns, raw in self.messages:
            message: Any = self.reader.deserialize(raw, connection.msgtype)
            try:
                pixels = _pixels(message, connection.msgtype)
            except ImageError as error:
                self.problems.append(f"the image at {time_ns / 1e9:.3f} s: {error}")
                continue
            self.header, self.time_ns = message.header, time_ns
            return pixels
        raise StopIteration


def segment_recording(
    recording: str | Path,
    topic: str,
    segment: Callable[[Iterator[NDArray[np.uint8]]], Iterator[Result]],
    output: str | Path,
) -> Summary:
    """Segments every image of a topic and writes a rosbag2 folder with one MCAP file.

    It holds `detections` (vision_msgs/Detection2DArray with track ids) and `label_image` (sensor_msgs/Image,
    mono8 or 16UC1, a pixel is the number of its detection from 1), each with the image's header and time.

    Args:
        recording: .mcap, .db3 or .bag, or a rosbag2 folder.
        topic: of sensor_msgs/Image or CompressedImage.
        segment: gives one result for each image in order, such as
            `lambda frames: segmenter.stream(frames, "the red cup")`.
        output: the folder to write. It appears when whole.

    Raises:
        ImportError: the library `rosbags` is not installed.
        FileExistsError: `output` is there already.
        StreamError: there is no such recording, it cannot be read, or has no images at `topic`.
        ImageError: none of the images can be read.
        OSError: the folder cannot be written.
    """
    try:
        from rosbags.highlevel import AnyReader, AnyReaderError
        from rosbags.rosbag2 import StoragePlugin, Writer
    except ImportError as error:
        raise ImportError(f"recordings need the library rosbags: {install_hint('ros')}") from error
    recording, output = Path(recording), Path(output)
    if output.exists():
        raise FileExistsError(f"{output} is there already: name another folder, or remove it")
    types = message_types()
    with tempfile.TemporaryDirectory(dir=output.absolute().parent, prefix=".recording-") as scratch:
        whole = Path(scratch) / output.name  # the folder's name is that of the file in it
        try:
            with AnyReader([recording], default_typestore=types) as reader:
                connections = _connections(reader, recording, topic)
                frames = _Frames(reader.messages(connections), reader)
                with Writer(whole, version=8, storage_plugin=StoragePlugin.MCAP) as writer:
                    images, instances = _write(writer, types, frames, segment(frames))
        except FileNotFoundError as error:
            raise StreamError(
                f"there is no recording at {str(recording)!r}: give a file or a folder"
            ) from error
        except AnyReaderError as error:
            raise StreamError(f"{str(recording)!r} cannot be read: {error}") from error
        if not images:
            raise ImageError(
                frames.problems[0] if frames.problems else f"{topic} of {recording} has no image"
            )
        whole.rename(output)
    return Summary(
        images=images,
        instances=instances,
        unreadable=len(frames.problems),
        first_problem=frames.problems[0] if frames.problems else "",
    )


def _connections(reader: AnyReader, recording: Path, topic: str) -> list[Connection]:
    found = [one for one in reader.connections if one.msgtype in _IMAGES]
    chosen = [one for one in found if one.topic == topic]
    if not chosen:
        topics = ", ".join(sorted({one.topic for one in found})) or "none"
        raise StreamError(f"{str(recording)!r} has no images at {topic!r}; its topics of images: {topics}")
    return chosen


def _pixels(message: Any, kind: str) -> NDArray[np.uint8]:
    if kind == COMPRESSED:
        return load_image(message.data.tobytes())
    return from_ros(message.encoding, message.height, message.width, message.step, message.data)


def _write(writer: Writer, types: Typestore, frames: _Frames, results: Iterator[Result]) -> tuple[int, int]:
    kinds = {"detections": DETECTIONS, "label_image": IMAGE}
    topics = {name: writer.add_connection(f"/{name}", kind, typestore=types) for name, kind in kinds.items()}
    images = instances = 0
    for result in results:
        stamp = frames.header.stamp  # of ROS 1 perhaps, whose headers also count
        header = header_message(types, stamp.sec * 10**9 + stamp.nanosec, frames.header.frame_id)
        for name, message in (
            ("detections", detections_message(types, header, [result])),
            ("label_image", labels_message(types, header, [result])),
        ):
            writer.write(topics[name], frames.time_ns, types.serialize_cdr(message, kinds[name]))
        images, instances = images + 1, instances + len(result)
    return images, instances
