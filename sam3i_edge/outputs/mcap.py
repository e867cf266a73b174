"""Answers in an MCAP, which Foxglove opens: pictures, what is drawn over them, detections, label images."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from sam3i_edge.errors import RuntimeUnavailable
from sam3i_edge.files import whole_file
from sam3i_edge.install_hint import install_hint
from sam3i_edge.outputs.answer import Answer, Timeline
from sam3i_edge.ros_messages import (
    ANNOTATIONS,
    COMPRESSED,
    DETECTIONS,
    IMAGE,
    annotations_message,
    detections_message,
    header_message,
    jpeg_message,
    labels_message,
    message_types,
)

if TYPE_CHECKING:
    from rosbags.rosbag2 import Writer
    from rosbags.typesys.store import Typestore


@contextlib.contextmanager
def mcap_file(path: Path) -> Iterator[McapFile]:
    """One file, of messages of ROS 2; it appears when the block ends well.

    Raises:
        RuntimeUnavailable: the library is not installed.
    """
    try:
        from rosbags.rosbag2 import StoragePlugin, Writer
    except ModuleNotFoundError as error:
        raise RuntimeUnavailable(f"{path}: an MCAP needs {error.name}: {install_hint('ros')}") from error
    # The library writes a folder, with the file in it under the folder's name.
    with (
        whole_file(path) as temporary,
        tempfile.TemporaryDirectory(dir=path.absolute().parent, prefix=f".{path.name}.") as scratch,
    ):
        folder = Path(scratch, "seen")
        with Writer(folder, version=8, storage_plugin=StoragePlugin.MCAP) as writer:
            yield McapFile(writer, message_types())
        os.replace(folder / "seen.mcap", temporary)


class McapFile:
    """The topics `/image`, `/annotations`, `/detections` and `/label_image`. Made by `mcap_file`.

    Frames have the times of their video, and each picture is a second.
    """

    def __init__(self, writer: Writer, types: Typestore) -> None:
        self._writer, self._types = writer, types
        self._timeline = Timeline(10**9)
        self._topics = {
            kind: writer.add_connection(topic, kind, typestore=types)
            for topic, kind in (
                ("/image", COMPRESSED),
                ("/annotations", ANNOTATIONS),
                ("/detections", DETECTIONS),
                ("/label_image", IMAGE),
            )
        }
        self.kept: dict[str, str | None] = {}  # it begins anew

    def write(self, answer: Answer) -> None:
        """Adds a picture's messages, named by their `frame_id`; what could not be read has none."""
        if answer.error is not None:
            return
        types, time_ns = self._types, self._timeline.ticks(answer)
        header = header_message(types, time_ns, answer.name)
        for kind, message in (
            (COMPRESSED, jpeg_message(types, header, answer.image)),
            (ANNOTATIONS, annotations_message(types, header, answer.results)),
            (DETECTIONS, detections_message(types, header, answer.results)),
            (IMAGE, labels_message(types, header, answer.results)),
        ):
            self._writer.write(self._topics[kind], time_ns, types.serialize_cdr(message, kind))
