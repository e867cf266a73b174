"""Recordings that are written here by `rosbags`, segmented, and read again."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from rosbags.highlevel import AnyReader
from rosbags.rosbag1 import Writer as Rosbag1Writer
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from sam3i_edge.cli.app import main
from sam3i_edge.errors import ImageError, StreamError
from sam3i_edge.recording import segment_recording
from sam3i_edge.ros_messages import VISION_MSGS

ROOT = Path(__file__).resolve().parent.parent
SIZE = (40, 60)
TOPIC = "/camera/image"


def picture(seed):
    return np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), np.uint8)


def image(types, number, encoding="bgr8", *, counted=()):
    header = types["std_msgs/msg/Header"](*counted, types["builtin_interfaces/msg/Time"](number, 7), "lens")
    data = picture(number)[..., ::-1].ravel()
    return types["sensor_msgs/msg/Image"](header, *SIZE, encoding, 0, SIZE[1] * 3, data)


def compressed(types, number, data=None):
    header = types["std_msgs/msg/Header"](types["builtin_interfaces/msg/Time"](number, 7), "lens")
    if data is None:
        data = cv2.imencode(".png", picture(number)[..., ::-1])[1]
    return types["sensor_msgs/msg/CompressedImage"](header, "png", data)


def record(path, messages, storage=StoragePlugin.MCAP):
    """Writes (message type, message) at a time of its number in seconds and gives the folder."""
    types = get_typestore(Stores.ROS2_HUMBLE)
    with Writer(path, version=8, storage_plugin=storage) as writer:
        topics = {}
        for number, (kind, make) in enumerate(messages):
            name = f"sensor_msgs/msg/{kind}"
            if name not in topics:
                topics[name] = writer.add_connection(TOPIC, name, typestore=types)
            message = make(types.types, number)
            writer.write(topics[name], number * 10**9, types.serialize_cdr(message, name))
    return path


def read(path):
    """The messages by topic, with their times."""
    found = {}
    with AnyReader([path]) as reader:
        for connection, time_ns, raw in reader.messages():
            message = reader.deserialize(raw, connection.msgtype)
            found.setdefault(connection.topic, []).append((time_ns, message))
    return found


def answer(segmenter, found, number):
    """Compares what was written of a picture with what `Segmenter` says of it."""
    result = segmenter.segment(picture(number), "the red star")
    time_ns, message = found["/detections"][number]
    assert (time_ns, message.header.stamp.sec, message.header.stamp.nanosec) == (number * 10**9, number, 7)
    assert message.header.frame_id == "lens"
    assert len(message.detections) == len(result) > 0
    for box, score, one in zip(result.boxes, result.scores, message.detections, strict=True):
        sides = one.bbox.center.position.x, one.bbox.center.position.y, one.bbox.size_x, one.bbox.size_y
        assert sides == pytest.approx([*(box[:2] + box[2:]) / 2, *box[2:] - box[:2]], abs=1e-4)
        assert one.results[0].hypothesis.score == pytest.approx(score)
        assert one.results[0].hypothesis.class_id == "the red star"
        assert int(one.id) > 0
    labels = found["/label_image"][number][1]
    pixels = np.frombuffer(labels.data, np.uint8).reshape(SIZE)
    assert labels.encoding == "mono8"
    best = result.masks.argmax(0) + 1
    np.testing.assert_array_equal(pixels, np.where(result.merged, best, 0))


@pytest.mark.parametrize("storage", list(StoragePlugin))
def test_every_image_is_answered_as_segmenter_does(segmenter, tmp_path, storage):
    source = record(tmp_path / "drive", [("Image", image)] * 3, storage)
    out = tmp_path / "found"
    summary = segment_recording(source, TOPIC, lambda frames: segmenter.stream(frames, "the red star"), out)
    found = read(out)
    assert summary.images == len(found["/detections"]) == 3
    assert summary.instances == sum(len(message.detections) for _, message in found["/detections"])
    for number in range(3):
        answer(segmenter, found, number)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["drive", "found"]


def test_a_bag_of_ros_1_is_read(segmenter, tmp_path):
    types = get_typestore(Stores.ROS1_NOETIC)
    with Rosbag1Writer(tmp_path / "drive.bag") as writer:
        topic = writer.add_connection(TOPIC, "sensor_msgs/msg/Image", typestore=types)
        message = image(types.types, 0, counted=(5,))
        writer.write(topic, 0, types.serialize_ros1(message, "sensor_msgs/msg/Image"))
    out = tmp_path / "found"
    segment_recording(
        tmp_path / "drive.bag", TOPIC, lambda frames: segmenter.stream(frames, "the red star"), out
    )
    answer(segmenter, read(out), 0)


def test_damaged_images_are_left_out_and_told(segmenter, tmp_path):
    broken = lambda types, number: compressed(types, number, np.arange(50, dtype=np.uint8))  # noqa: E731
    kinds = [("CompressedImage", one) for one in (compressed, broken, compressed)]
    source = record(tmp_path / "drive", kinds)
    out = tmp_path / "found"
    summary = segment_recording(source, TOPIC, lambda frames: segmenter.stream(frames, "the red star"), out)
    assert (summary.images, summary.unreadable) == (2, 1)
    assert summary.first_problem.startswith("the image at 1.000 s: the 50 bytes")
    assert [time_ns for time_ns, _ in read(out)["/detections"]] == [0, 2 * 10**9]


def test_recordings_that_cannot_be_used_are_refused(segmenter, tmp_path):
    def attempt(source, topic=TOPIC, out="found"):
        segment_recording(source, topic, lambda frames: segmenter.stream(frames, "star"), tmp_path / out)

    source = record(tmp_path / "drive", [("Image", image)])
    depth = record(tmp_path / "depth", [("Image", lambda types, n: image(types, n, "16UC1"))])
    (tmp_path / "noise.mcap").write_bytes(bytes(1000))
    with pytest.raises(StreamError, match=r"no images at '/camera'.*topics of images: /camera/image"):
        attempt(source, "/camera")
    with pytest.raises(StreamError, match="there is no recording"):
        attempt(tmp_path / "none.mcap")
    with pytest.raises(StreamError, match="cannot be read"):
        attempt(tmp_path / "noise.mcap")
    with pytest.raises(ImageError, match="16UC1"):
        attempt(depth)
    with pytest.raises(FileExistsError, match="is there already"):
        attempt(source, out="drive")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["depth", "drive", "noise.mcap"]


def test_the_verb_writes_a_recording(tiny_bundle, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    record(tmp_path / "drive", [("Image", image)] * 2)
    question = ["segment", "drive/drive.mcap", "a star", "--topic", TOPIC, "-m", str(tiny_bundle.root)]
    assert main([*question, "-t", "0", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["output"] == "drive-detections"
    assert printed["images"] == len(read(tmp_path / "drive-detections")["/detections"]) == 2
    assert main(question) == 1
    assert "is there already" in capsys.readouterr().err
    assert main([*question, "--box", "1,1,9,9"]) == 2


def test_the_definitions_are_those_that_the_node_is_tested_with():
    for name, text in VISION_MSGS.items():
        assert (ROOT / "ros" / "test" / "vision_msgs" / "msg" / f"{name}.msg").read_text() == text
