"""The node on real ROS 2: lifecycle, images, instructions, what goes wrong, and how it ends."""

from __future__ import annotations

import signal
import time

import cv2
import numpy as np
import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticStatus
from lifecycle_msgs.msg import Transition
from rclpy.action import ActionClient
from ros_client import INSTRUCTION, Client, Process, image
from sam3i_msgs.action import Segment
from sensor_msgs.msg import CameraInfo, CompressedImage
from std_msgs.msg import String

from sam3i_edge.masks.label_image import label_image

ORDERS = {"rgb8": [0, 1, 2], "bgr8": [2, 1, 0], "rgba8": [0, 1, 2, 0], "bgra8": [2, 1, 0, 0], "mono8": [0]}


def sides(one):
    """(x0, y0, x1, y1) of a detection."""
    center, width, height = one.bbox.center.position, one.bbox.size_x, one.bbox.size_y
    return [center.x - width / 2, center.y - height / 2, center.x + width / 2, center.y + height / 2]


def compare(detections, result):
    assert len(detections) == len(result) > 0
    for one, box, score in zip(detections, result.boxes, result.scores, strict=True):
        assert sides(one) == pytest.approx(box.tolist(), abs=1e-4)
        assert one.results[0].hypothesis.score == pytest.approx(float(score), abs=1e-6)
        assert one.results[0].hypothesis.class_id == result.instruction


def labels_of(message):
    kind = {"mono8": np.uint8, "16UC1": np.uint16}[message.encoding]
    return np.frombuffer(message.data, kind).reshape(message.height, message.width)


def test_lifecycle(client):
    assert client.state() == "unconfigured"
    for values, reason in (({"model": "no-such-model"}, "model"), ({"device": "no-such-device"}, "device")):
        assert client.set(**values) == "", reason
        assert not client.change(Transition.TRANSITION_CONFIGURE)
        assert client.state() == "unconfigured"
    assert client.set(model="sam3i-nano", device="cpu") == ""
    assert "Wrong parameter type" in client.set(instructions="no list")
    assert "threshold" in client.set(threshold=1.5)  # rclpy's own words, as those before
    assert "or -1" in client.set(threshold=-0.5)
    for _ in range(2):
        assert client.change(Transition.TRANSITION_CONFIGURE)
        assert client.state() == "inactive"
        assert "clean up the node first" in client.set(device="auto")
        for _ in range(2):
            assert client.change(Transition.TRANSITION_ACTIVATE)
            assert client.state() == "active"
            assert "deactivate the node first" in client.set(use_depth=True)
            assert client.change(Transition.TRANSITION_DEACTIVATE)
        assert client.change(Transition.TRANSITION_CLEANUP)


def test_answers_are_those_of_python(active, scene, segmenter):
    """In every encoding, with padded rows: boxes, scores, the header, and every pixel of the labels."""
    for number, (encoding, order) in enumerate(ORDERS.items(), start=1):
        message = image(scene[..., order], encoding, number, padding=number)
        detections, labels, info = active.answer(message, "detections", "label_image", "label_info")
        grey = np.repeat(scene[..., :1], 3, axis=2)
        result = segmenter.segment(grey if encoding == "mono8" else scene, INSTRUCTION)
        assert detections.header == labels.header == message.header
        compare(detections.detections, result)
        expected = label_image(result.iter_masks(), range(1, len(result) + 1), result.image_size)
        np.testing.assert_array_equal(labels_of(labels), expected)
        assert [(one.class_id, one.class_name) for one in info.class_map] == [
            (row, INSTRUCTION) for row in range(1, len(result) + 1)
        ]
    assert active.set(labels="class") == ""
    labels, info = active.answer(image(scene, number=9), "label_image", "label_info")
    assert [one.class_name for one in info.class_map] == [INSTRUCTION]
    np.testing.assert_array_equal(labels_of(labels), segmenter.segment(scene, INSTRUCTION).merged)


def test_a_camera_of_30_images_a_second(active, scene):
    """Answers are in order, and what came was answered or counted as dropped."""
    sent, begun = 200, time.monotonic()
    for number in range(1, sent + 1):
        active.image.publish(image(scene, number=number))
        while time.monotonic() < begun + number / 30:
            rclpy.spin_once(active.node, timeout_sec=0.002)
    active.answer(image(scene, number=sent + 1))
    stamps = [one.header.stamp.sec for one in active.got["detections"]]
    assert stamps == sorted(stamps)
    assert stamps[-1] == sent + 1
    assert all(one.header.frame_id == "lens" for one in active.got["detections"])
    ids = {one.id for message in active.got["detections"] for one in message.detections}
    assert len(ids) == len(active.got["detections"][0].detections)  # the picture stands still
    active.status = None

    def settled():
        """Received, dropped and segmented, once none is on its way."""
        values = {one.key: one.value for one in active.status.values} if active.status else {}
        counts = [int(values.get(key, 0)) for key in ("received", "dropped", "segmented")]
        return counts if counts[0] and counts[0] == counts[1] + counts[2] else None

    active.wait(settled)
    segmented = settled()[2]
    values = {one.key: one.value for one in active.status.values}
    assert segmented >= len(set(stamps)) >= 2
    assert float(values["latency_ms"]) > 0
    assert (values["model"], values["device"]) == ("sam3i-nano", "cpu")


def test_the_instruction_changes_on_the_fly(active, scene, segmenter):
    detections, *_ = active.answer(image(scene, number=1))
    before = {one.id for one in detections.detections}
    active.instruction.publish(String(data="every circle"))
    active.wait(lambda: classes(active.answer(image(scene, number=2))) <= {"every circle"})

    refused = active.ask(["star", "  "], "nonsense")
    assert not refused.success
    assert "nonsense" in refused.message
    assert not active.ask([" "]).success
    assert "2,000" in active.ask(["a " * 2001]).message
    answered = active.ask(["star", "every shape"], "simple")
    assert (answered.success, answered.message) == (True, "star | every shape")
    detections, labels = active.answer(image(scene, number=3), "detections", "label_image")
    results = segmenter.segment(scene, ["star", "every shape"], level="simple")
    first = len(results[0])
    compare(detections.detections[:first], results[0])
    compare(detections.detections[first:], results[1])
    assert labels_of(labels).max() <= len(detections.detections)
    assert not before & {one.id for one in detections.detections}

    assert "unknown level" in active.set(level="nonsense")
    assert active.set(instructions=["star"], level="auto", threshold=1.0) == ""
    (detections,) = active.answer(image(scene, number=4))
    assert detections.detections == []


def classes(answers):
    return {one.results[0].hypothesis.class_id for one in answers[0].detections}


def test_pause_tracks_rate_and_overlay(active, scene):
    (first,) = active.answer(image(scene, number=1))
    active.reset_tracks()
    (second,) = active.answer(image(scene, number=2))
    assert not {one.id for one in first.detections} & {one.id for one in second.detections}
    active.enable(False)
    active.wait(lambda: active.status and active.status.message == "paused")
    active.got.clear()
    active.image.publish(image(scene, number=3))
    end = time.monotonic() + 2
    while time.monotonic() < end:
        rclpy.spin_once(active.node, timeout_sec=0.1)
    assert not active.got["detections"]
    active.enable(True)
    assert active.set(publish_overlay=True, max_rate=0.5) == ""
    (overlay,) = active.answer(image(scene, number=4), "overlay")
    assert overlay.encoding == "rgb8"
    assert overlay.height > scene.shape[0]  # a caption below
    assert len(overlay.data) == overlay.height * overlay.step
    active.got.clear()
    for number in range(60):  # six seconds
        active.image.publish(image(scene, number=10 + number))
        end = time.monotonic() + 0.1
        while time.monotonic() < end:
            rclpy.spin_once(active.node, timeout_sec=0.02)
    assert 1 <= len(active.got["detections"]) <= 5


def test_no_frame_ends_the_node(active, scene):
    """Wrong encodings, missing bytes and a camera that stops are told, and the next image is answered."""
    active.answer(image(scene, number=1))
    short = image(scene, number=2)
    short.data = short.data[:100]
    empty = image(scene, number=2)
    empty.height = 0
    for broken, reason in (
        (image(scene[..., :2], "16UC1", 2), "'16UC1', which holds depth"),
        (image(scene, "bayer_rggb8", 2), "bayer_rggb8"),
        (short, "the image has 100"),
        (empty, "320 x 0 pixels"),
    ):
        active.refused(broken, reason)
    active.answer(image(scene, number=3))
    active.wait(lambda: active.status and "is the camera running?" in active.status.message)
    assert active.status.level == DiagnosticStatus.WARN

    def well():
        active.image.publish(image(scene, number=4))
        return active.status.level == DiagnosticStatus.OK

    active.wait(well)
    assert int({one.key: one.value for one in active.status.values}["refused"]) >= 4


def test_compressed_images(client, scene, segmenter):
    client.activate(image_transport="compressed")
    message = CompressedImage(format="png", data=cv2.imencode(".png", scene[..., ::-1])[1].tobytes())
    message.header = image(scene).header
    (detections,) = client.answer(message, publisher=client.compressed)
    compare(detections.detections, segmenter.segment(scene, INSTRUCTION))
    message.data = message.data[:50]
    message.header.stamp.sec = 2
    client.refused(message, "the 50 bytes", client.compressed)


@pytest.mark.parametrize(
    ("encoding", "dtype", "unit"), [("16UC1", np.uint16, 1000), ("32FC1", np.float32, 1)]
)
def test_depth_gives_boxes_in_space(client, scene, segmenter, encoding, dtype, unit):
    client.activate(use_depth=True)
    height, width = scene.shape[:2]
    camera = CameraInfo(height=height, width=width, k=[300.0, 0, 160, 0, 280.0, 120, 0, 0, 1])
    plane = np.full((height, width, 1), 2 * unit, dtype)  # two metres away
    plane[::7, ::11] = 0  # no depth
    plane[::13, ::5] = 6 * unit  # what lies behind
    seen = plane[..., 0] == 2 * unit
    depth = image(plane, encoding, number=1)
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        client.camera.publish(camera)
        client.depth.publish(depth)
        rclpy.spin_once(client.node, timeout_sec=0.1)
    detections, space = client.answer(image(scene, number=1), "detections", "detections_3d")
    result = segmenter.segment(scene, INSTRUCTION)
    assert [one.id for one in space.detections] == [one.id for one in detections.detections]
    assert space.header == detections.header
    for one, mask in zip(space.detections, result.iter_masks(), strict=True):
        rows, columns = np.nonzero(mask & seen)
        x, y = (columns - 160) * 2 / 300, (rows - 120) * 2 / 280
        centroid, box = one.results[0].pose.pose.position, one.bbox
        assert (centroid.x, centroid.y, centroid.z) == pytest.approx(
            (np.median(x), np.median(y), 2), abs=1e-6
        )
        assert (box.size.x, box.size.y, box.size.z) == pytest.approx((np.ptp(x), np.ptp(y), 0), abs=1e-6)
        assert box.center.position.x == pytest.approx((x.min() + x.max()) / 2, abs=1e-6)
        assert box.center.position.z == pytest.approx(2, abs=1e-6)
    client.refused(image(scene, number=7), "depth_tolerance")  # there is no depth of that time


def test_one_image_by_the_action(active, scene, segmenter):
    action = ActionClient(active.node, Segment, "/sam3i/segment")
    active.wait(action.server_is_ready)

    def send(**goal):
        future = action.send_goal_async(Segment.Goal(**goal))
        active.wait(future.done)
        return future.result().get_result_async()

    def result_of(future):
        active.wait(future.done)
        return future.result().result

    message = image(scene, number=3)
    answer = result_of(send(image=message, instructions=["every shape"], level="simple"))
    result = segmenter.segment(scene, "every shape", level="simple")
    compare(answer.detections.detections, result)
    assert answer.success
    assert [one.id for one in answer.detections.detections] == [str(n + 1) for n in range(len(result))]
    assert answer.label_image.header == message.header
    np.testing.assert_array_equal(labels_of(answer.label_image) > 0, result.merged)
    assert answer.device == "cpu"

    waiting = send()  # the camera's next image, the node's instruction
    while not waiting.done():
        active.image.publish(image(scene, number=4))
        rclpy.spin_once(active.node, timeout_sec=0.2)
    compare(waiting.result().result.detections.detections, segmenter.segment(scene, INSTRUCTION))
    refused = result_of(send(image=image(scene[..., :2], "16UC1")))
    assert not refused.success
    assert "16UC1" in refused.message
    sent = [action.send_goal_async(Segment.Goal()) for _ in range(2)]  # either may come first
    active.wait(lambda: all(future.done() for future in sent))
    handles = [future.result() for future in sent]
    answers = [handle.get_result_async() for handle in handles]
    active.wait(lambda: any(one.done() for one in answers))
    second = 0 if answers[0].done() else 1
    assert "another goal waits" in result_of(answers[second]).message
    canceling = handles[1 - second].cancel_goal_async()
    active.wait(canceling.done)
    assert result_of(answers[1 - second]).message == "canceled"
    assert active.change(Transition.TRANSITION_DEACTIVATE)
    assert "not active" in result_of(send()).message
    action.destroy()


def test_it_ends_in_the_middle(active, process, scene):
    """With images on their way: exit code 0 and no traceback."""
    active.answer(image(scene))
    for number in range(2, 40):
        active.image.publish(image(scene, number=number))
        rclpy.spin_once(active.node, timeout_sec=0.01)
    process.end(signal.SIGINT)


def test_it_ends_from_any_state(tmp_path):
    process = Process(tmp_path / "log", "-r", "__node:=other", "-p", "labels:=nonsense")
    client = Client("other")
    assert client.state() == "unconfigured"
    assert not client.change(Transition.TRANSITION_CONFIGURE)
    assert "unknown labels 'nonsense'" in (tmp_path / "log").read_text()
    assert client.change(Transition.TRANSITION_UNCONFIGURED_SHUTDOWN)
    assert client.state() == "finalized"
    process.end(signal.SIGTERM)
    client.node.destroy_node()
