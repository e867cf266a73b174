"""The lifecycle node `sam3i`: images in, detections and label images out."""

from __future__ import annotations

import signal
import threading
import time
import traceback
from collections.abc import Sequence
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from numpy.typing import NDArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.executors import MultiThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data
from rclpy.signals import SignalHandlerOptions
from sam3i_msgs.srv import SetInstruction
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import String
from std_srvs.srv import SetBool, Trigger
from vision_msgs.msg import Detection2DArray, Detection3DArray, LabelInfo

from sam3i_edge import Result, Segmenter
from sam3i_edge.errors import RuntimeUnavailable, Sam3iError
from sam3i_edge.pipeline.instruction import check_instruction
from sam3i_ros import messages
from sam3i_ros.action import SegmentAction
from sam3i_ros.depth import DepthImages, detections_3d_message
from sam3i_ros.frames import Newest
from sam3i_ros.health import Health
from sam3i_ros.messages import AnyImage
from sam3i_ros.parameters import MODEL, TOPICS, Question, declared, refusal
from sam3i_ros.tracks import Tracks

_LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
_NEWEST = QoSProfile(
    depth=1, history=qos_profile_sensor_data.history, reliability=qos_profile_sensor_data.reliability
)


class Sam3iNode(LifecycleNode):
    """Segments the newest image of a camera, again and again.

    `configure` opens the model, `activate` subscribes, `deactivate` unsubscribes, `cleanup` closes the model.
    One thread segments while the executor's receive. A frame that cannot be used is refused, with a reason in
    the log and in the diagnostics, and the next one is tried.
    """

    def __init__(self, **options: Any) -> None:
        """Declares the parameters; everything else comes with `configure`."""
        super().__init__("sam3i", **options)
        self.declare_parameters("", declared())
        self.add_on_set_parameters_callback(self._check_parameters)
        self._segmenter: Segmenter | None = None
        self._frames: Newest[AnyImage] = Newest()
        self._worker: threading.Thread | None = None
        self._depths = DepthImages()
        self._tracks = Tracks()
        self._health = Health()
        self._enabled = True
        self._inputs: list[Any] = []
        publish = self.create_lifecycle_publisher  # silent but in state active
        self._detections = publish(Detection2DArray, "detections", 10)
        self._detections_3d = publish(Detection3DArray, "detections_3d", 10)
        self._label_image = publish(Image, "label_image", 10)
        self._label_info = publish(LabelInfo, "label_info", _LATCHED)
        self._overlay = publish(Image, "overlay", 1)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self.create_timer(1.0, self._diagnose)
        self.create_subscription(String, "instruction", self._set_by_topic, 10)
        self.create_service(SetInstruction, "~/set_instruction", self._set_by_service)
        self.create_service(SetBool, "~/enable", self._enable)
        self.create_service(Trigger, "~/reset_tracks", self._reset_tracks)
        self._action = SegmentAction(self, self._question, self._answer, lambda: self._worker is not None)

    # Lifecycle

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Opens the model; a failure is logged and leaves the node unconfigured."""
        values = {name: self.get_parameter(name).value for name in MODEL}
        threads = values.pop("threads")
        try:
            # What the node was started with was not checked yet.
            if problem := refusal([self.get_parameter(name) for name, *_ in declared()], set()):
                raise ValueError(problem)
            self._segmenter = Segmenter(**values, threads=threads or None, image_cache=0)
            self._segmenter.prepare()
            self._check_question(self._question())
        except (Sam3iError, ValueError, ImportError) as error:
            self.get_logger().error(f"cannot configure: {error}")
            self._close()
            return TransitionCallbackReturn.FAILURE
        info = self._segmenter.info
        self.get_logger().info(
            f"{info.model}, {info.device}, {info.runtime}, {info.precision}: {info.reason}"
        )
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribes and starts to segment."""
        result = super().on_activate(state)  # publishers first: the first frame is answered
        group = MutuallyExclusiveCallbackGroup()
        kind, topic = (Image, "image")
        if self.get_parameter("image_transport").value == "compressed":
            kind, topic = (CompressedImage, "image/compressed")
        self._inputs = [self.create_subscription(kind, topic, self._receive, _NEWEST, callback_group=group)]
        self._depths = DepthImages()
        if self.get_parameter("use_depth").value:
            for kind, topic, receive in (
                (Image, "depth", self._depths.add),
                (CameraInfo, "camera_info", self._depths.calibrate),
            ):
                depth_qos = qos_profile_sensor_data
                self._inputs.append(
                    self.create_subscription(kind, topic, receive, depth_qos, callback_group=group)
                )
        self._frames, self._health = Newest(), Health()
        self._worker = threading.Thread(target=self._work, args=(self._frames,), name="segmenting")
        self._worker.start()
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribes; the frame that is being segmented is finished and published first."""
        self._stop()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Closes the model."""
        self._close()
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stops and closes whatever is open, from any state."""
        self._close()
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Closes whatever is open: the node is unconfigured again."""
        self._close()
        return TransitionCallbackReturn.SUCCESS

    def _stop(self) -> None:
        for one in self._inputs:
            self.destroy_subscription(one)
        self._inputs = []
        self._frames.close()
        if self._worker is not None:
            self._worker.join()
            self._worker = None

    def _close(self) -> None:
        self._stop()
        if self._segmenter is not None:
            self._segmenter.close()
            self._segmenter = None

    # What is asked

    def _question(self, **changed: Any) -> Question:
        """What the parameters ask, with some of them changed."""
        names = ("instructions", "level", "threshold")
        values = {name: changed.get(name, self.get_parameter(name).value) for name in names}
        texts = tuple(text for text in values["instructions"] if text.strip())
        return Question(texts, values["level"], values["threshold"] if values["threshold"] >= 0 else None)

    def _check_question(self, question: Question) -> None:
        """Raises InstructionError or ValueError; before `configure` only the words can be checked."""
        for text in question.instructions:
            check_instruction(text)
            if self._segmenter is not None:  # a stream of nothing: the model's levels are checked too
                self._segmenter.stream((), text, level=question.level).close()

    def _check_parameters(self, parameters: list[Parameter]) -> SetParametersResult:
        fixed = set(MODEL) if self._segmenter is not None else set()
        fixed |= set(TOPICS) if self._worker is not None else set()
        reason = refusal(parameters, fixed)
        if not reason:
            try:
                self._check_question(self._question(**{one.name: one.value for one in parameters}))
            except ValueError as error:
                reason = str(error)
        return SetParametersResult(successful=not reason, reason=reason)

    def _ask(self, instructions: Sequence[str], level: str) -> SetParametersResult:
        """Sets instructions and level, where one is given, or refuses both."""
        if not any(text.strip() for text in instructions):
            return SetParametersResult(reason="there is no instruction: describe what to segment")
        changes = [Parameter("instructions", Parameter.Type.STRING_ARRAY, list(instructions))]
        changes += [Parameter("level", Parameter.Type.STRING, level)] if level else []
        return self.set_parameters_atomically(changes)

    def _set_by_topic(self, message: String) -> None:
        result = self._ask([message.data], "")
        if not result.successful:
            self.get_logger().warning(f"instruction refused: {result.reason}")

    def _set_by_service(
        self, request: SetInstruction.Request, response: SetInstruction.Response
    ) -> SetInstruction.Response:
        result = self._ask(request.instructions, request.level)
        response.success, response.message = result.successful, result.reason
        if result.successful:
            response.message = " | ".join(self._question().instructions)
        return response

    def _enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self._enabled = request.data
        response.success, response.message = True, "segmenting" if request.data else "paused"
        return response

    def _reset_tracks(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._tracks.reset()
        response.success, response.message = True, "tracks begin anew with the next image"
        return response

    # Frames

    def _receive(self, message: AnyImage) -> None:
        self._action.receive(message)
        if self._enabled and self._question().instructions:
            self._frames.put(message)

    def _work(self, frames: Newest[AnyImage]) -> None:
        """Segments the newest frame until the frames are closed."""
        begun = 0.0
        while True:
            rate = self.get_parameter("max_rate").value
            if rate and frames.wait_closed(begun + 1 / rate - time.monotonic()):
                return
            taken = frames.take()
            if taken is None:
                return
            message, came = taken
            begun = time.monotonic()
            try:
                self._segment(message)
            except (Sam3iError, ValueError) as error:
                self._refuse(str(error))
            except Exception as error:  # a frame that meets a bug does not end the node
                self.get_logger().error(traceback.format_exc())
                self._refuse(f"{type(error).__name__}: {error}")
            else:
                self._health.answer(came)

    def _refuse(self, problem: str) -> None:
        self._health.refuse(problem)
        self.get_logger().warning(f"image refused: {problem}", throttle_duration_sec=5.0)

    def _answer(self, message: AnyImage, question: Question) -> tuple[NDArray[np.uint8], list[Result]]:
        segmenter = self._segmenter
        if segmenter is None:
            raise RuntimeUnavailable("the node has no model: configure it first")
        pixels = messages.pixels_of(message)
        options = {"level": question.level, "threshold": question.threshold}
        return pixels, segmenter.segment(pixels, list(question.instructions), **options)

    def _segment(self, message: AnyImage) -> None:
        question = self._question()
        if not question.instructions:
            return
        pixels, results = self._answer(message, question)
        ids = self._tracks.ids(question, results)
        header = message.header
        self._detections.publish(messages.detections_message(header, results, ids))
        labels = self.get_parameter("labels").value
        names = [str(result.instruction) for result in results]
        if labels == "instance":
            names = [name for name, result in zip(names, results, strict=True) for _ in range(len(result))]
        self._label_info.publish(messages.label_info_message(header, names, results[0].threshold))
        if self._label_image.get_subscription_count():
            self._label_image.publish(messages.labels_message(header, results, labels))
        if self.get_parameter("publish_overlay").value:
            self._overlay.publish(messages.overlay_message(header, pixels, results))
        if self.get_parameter("use_depth").value:
            depth, camera = self._depths.near(header, self.get_parameter("depth_tolerance").value)
            self._detections_3d.publish(detections_3d_message(header, results, ids, depth, camera))

    # Diagnostics

    def _diagnose(self) -> None:
        status = DiagnosticStatus(name=f"{self.get_fully_qualified_name()}: segmentation")
        status.level, status.message = self._condition()
        instructions = " | ".join(self._question().instructions)
        status.values = self._health.values(self._frames, self._segmenter, instructions)
        status.hardware_id = "" if self._segmenter is None else self._segmenter.info.device
        message = DiagnosticArray(status=[status])
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)

    def _condition(self) -> tuple[bytes, str]:
        """Level and message of the diagnostics."""
        if self._segmenter is None or not self._inputs:
            return DiagnosticStatus.STALE, "not active"
        if not self._enabled:
            return DiagnosticStatus.OK, "paused"
        if not self._question().instructions:
            return DiagnosticStatus.WARN, "no instruction: set one"
        patience = self.get_parameter("stale_after").value
        return self._health.condition(self._frames, self._inputs[0].topic_name, patience)

    def destroy_node(self) -> None:
        """Stops and closes whatever is open."""
        self._close()
        self._action.destroy()
        super().destroy_node()


def main(arguments: list[str] | None = None) -> None:
    """Runs the node until SIGINT or SIGTERM; a frame that is being segmented is finished first."""
    # rclpy's own handlers would end the context under the thread that publishes.
    rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
    ended = threading.Event()
    executor = MultiThreadedExecutor(num_threads=3)

    def end(number: int, frame: object) -> None:
        ended.set()
        executor.wake()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    node = Sam3iNode()
    executor.add_node(node)
    try:
        while not ended.is_set():
            executor.spin_once(timeout_sec=0.5)
    finally:
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown()
