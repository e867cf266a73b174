"""The node as a process, and a client that publishes images, keeps the answers and calls the services."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from rclpy.qos import qos_profile_sensor_data
from sam3i_msgs.srv import SetInstruction
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import String
from std_srvs.srv import SetBool, Trigger
from vision_msgs.msg import Detection2DArray, Detection3DArray, LabelInfo

PATIENCE = 60.0  # seconds; machines that test are busy
INSTRUCTION = "star"
# What tests change, as they find it.
DEFAULTS = {
    "image_transport": "raw",
    "use_depth": False,
    "instructions": [INSTRUCTION],
    "level": "auto",
    "threshold": -1.0,
    "max_rate": 0.0,
    "publish_overlay": False,
    "labels": "instance",
}


class Process:
    """The installed node, `sam3i_node`. It has to end without a traceback."""

    def __init__(self, log: Path, *arguments: str) -> None:
        command = [os.path.join(os.path.dirname(sys.executable), "sam3i_node"), "--ros-args", *arguments]
        self._log = log
        with log.open("w") as file:
            self._process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)

    def end(self, number: int) -> None:
        """Sends a signal, unless it has ended, and checks how it ended."""
        if self._process.poll() is None:
            self._process.send_signal(number)
        try:
            code = self._process.wait(PATIENCE)
        finally:
            self._process.kill()
        assert code == 0, self._log.read_text()
        assert "Traceback" not in self._log.read_text(), self._log.read_text()


class Client:
    """Publishes images, keeps what the node answers, and calls its services."""

    def __init__(self, name: str) -> None:
        """Talks to the node of that name."""
        self.node, self.name = rclpy.create_node(f"client_of_{name}"), name
        self.got: dict[str, list] = defaultdict(list)
        self.status: DiagnosticStatus | None = None
        publish, subscribe = self.node.create_publisher, self.node.create_subscription
        self.image = publish(Image, "image", qos_profile_sensor_data)
        self.compressed = publish(CompressedImage, "image/compressed", qos_profile_sensor_data)
        self.depth = publish(Image, "depth", qos_profile_sensor_data)
        self.camera = publish(CameraInfo, "camera_info", qos_profile_sensor_data)
        self.instruction = publish(String, "instruction", 10)
        for kind, topic in (
            (Detection2DArray, "detections"), (Detection3DArray, "detections_3d"), (Image, "label_image"),
            (LabelInfo, "label_info"), (Image, "overlay"),
        ):  # fmt: skip
            subscribe(kind, topic, partial(self._keep, topic), 10)
        subscribe(DiagnosticArray, "/diagnostics", self._keep_status, 10)
        self.services: dict[str, object] = {}

    def _keep(self, topic: str, message: object) -> None:
        self.got[topic].append(message)

    def _keep_status(self, message: DiagnosticArray) -> None:
        self.status = message.status[0]

    def wait(self, condition: Callable[[], object], seconds: float = PATIENCE) -> None:
        """Spins until a condition holds."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"waited {seconds:g} s; diagnostics: {self.status}"
            rclpy.spin_once(self.node, timeout_sec=0.05)

    def call(self, kind: type, name: str, **fields: object) -> object:
        """The answer of a service of the node."""
        service = self.services.setdefault(name, self.node.create_client(kind, f"/{self.name}/{name}"))
        self.wait(service.service_is_ready)
        future = service.call_async(kind.Request(**fields))
        self.wait(future.done)
        return future.result()

    def change(self, transition: int) -> bool:
        """Asks for a transition of the node's lifecycle."""
        return self.call(ChangeState, "change_state", transition=Transition(id=transition)).success

    def state(self) -> str:
        """The node's state."""
        return self.call(GetState, "get_state").current_state.label

    def set(self, **values: object) -> str:
        """Sets parameters one after the other; the first refusal, or ""."""
        parameters = [Parameter(name, value=value).to_parameter_msg() for name, value in values.items()]
        results = self.call(SetParameters, "set_parameters", parameters=parameters).results
        return next((one.reason for one in results if not one.successful), "")

    def ask(self, instructions: list[str], level: str = "") -> SetInstruction.Response:
        """The answer of `set_instruction`."""
        return self.call(SetInstruction, "set_instruction", instructions=instructions, level=level)

    def enable(self, on: bool) -> None:
        """Pauses the node, or lets it go on."""
        assert self.call(SetBool, "enable", data=on).success

    def reset_tracks(self) -> None:
        """Begins tracks anew."""
        assert self.call(Trigger, "reset_tracks").success

    def activate(self, **parameters: object) -> None:
        """From whatever state: sets parameters, the others to their defaults, and activates."""
        if self.state() == "active":
            assert self.change(Transition.TRANSITION_DEACTIVATE)
        assert self.set(**{**DEFAULTS, **parameters}) == ""
        if self.state() == "unconfigured":
            assert self.change(Transition.TRANSITION_CONFIGURE)
        assert self.change(Transition.TRANSITION_ACTIVATE)
        self.wait(lambda: self.image.get_subscription_count() or self.compressed.get_subscription_count())
        self.got.clear()
        self.status = None

    def answer(self, message: object, *topics: str, publisher: object = None) -> list:
        """Publishes an image until it is answered, and gives the answers of its stamp."""
        topics = topics or ("detections",)
        publisher = publisher or self.image
        stamp = message.header.stamp

        def found() -> list:
            every = [[one for one in self.got[topic] if one.header.stamp == stamp] for topic in topics]
            return [one[-1] for one in every if one]

        deadline = time.monotonic() + PATIENCE
        while len(found()) < len(topics):
            assert time.monotonic() < deadline, f"no answer at {topics}; diagnostics: {self.status}"
            publisher.publish(message)
            until = time.monotonic() + 1.0
            while len(found()) < len(topics) and time.monotonic() < until:
                rclpy.spin_once(self.node, timeout_sec=0.05)
        return found()

    def refused(self, message: object, reason: str, publisher: object = None) -> None:
        """Publishes an image until diagnostics say for what reason it is refused."""
        deadline = time.monotonic() + PATIENCE
        while not (self.status and reason in self.status.message):
            assert time.monotonic() < deadline, self.status
            (publisher or self.image).publish(message)
            rclpy.spin_once(self.node, timeout_sec=0.2)
        assert self.status.level == DiagnosticStatus.ERROR


def image(pixels: np.ndarray, encoding: str = "rgb8", number: int = 1, padding: int = 0) -> Image:
    """A message of [H, W, C] pixels whose stamp is `number` seconds; its rows are padded."""
    rows = np.pad(pixels.reshape(len(pixels), -1), ((0, 0), (0, padding)))
    message = Image(height=pixels.shape[0], width=pixels.shape[1], encoding=encoding, step=rows[0].nbytes)
    message.header.frame_id, message.header.stamp.sec, message.header.stamp.nanosec = "lens", number, 5
    message.data = rows.tobytes()
    return message
