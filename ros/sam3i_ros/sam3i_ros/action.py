"""The action `~/segment`: one image, the goal's own or the camera's next, and what is found in it."""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.action import ActionServer, CancelResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node
from sam3i_msgs.action import Segment

from sam3i_edge import Result
from sam3i_edge.errors import InstructionError, Sam3iError, StreamError
from sam3i_ros import messages
from sam3i_ros.messages import AnyImage
from sam3i_ros.parameters import Question

_NEXT_IMAGE = 10.0  # seconds that a goal waits for the camera


class SegmentAction:
    """Answers goals beside the camera's images.

    Args:
        node: whose action it is.
        question: what the node's parameters ask, with some of them changed.
        answer: an image's pixels and what is found in it; raises Sam3iError or ValueError.
        active: whether the node takes the camera's images.
    """

    def __init__(
        self,
        node: Node,
        question: Callable[..., Question],
        answer: Callable[[AnyImage, Question], tuple[NDArray[np.uint8], list[Result]]],
        active: Callable[[], bool],
    ) -> None:
        self._question, self._answer, self._active = question, answer, active
        self._waiting: list[deque[AnyImage]] = []  # of the goal that wants the next image
        self._one_waits = threading.Lock()
        self._server = ActionServer(
            node,
            Segment,
            "~/segment",
            self._segment,
            cancel_callback=lambda goal: CancelResponse.ACCEPT,
            callback_group=ReentrantCallbackGroup(),
        )

    def receive(self, message: AnyImage) -> None:
        """Hands the camera's image to the goal that waits for it, if one does."""
        for waiting in list(self._waiting):
            waiting.append(message)

    def destroy(self) -> None:
        """Takes no more goals."""
        self._server.destroy()

    def _segment(self, goal: ServerGoalHandle) -> Segment.Result:
        request, begun = goal.request, time.monotonic()
        answer = Segment.Result()
        try:
            message = request.image
            if not message.data:
                goal.publish_feedback(Segment.Feedback(state="waiting for an image"))
                message = self._next_image(goal)
            goal.publish_feedback(Segment.Feedback(state="segmenting"))
            changed: dict[str, Any] = {"level": request.level} if request.level else {}
            if request.instructions:
                changed["instructions"] = request.instructions
            question = self._question(**changed)
            if not question.instructions:
                raise InstructionError("there is no instruction: describe what to segment")
            _, results = self._answer(message, question)
        except (Sam3iError, ValueError) as error:
            answer.message = str(error)
            if goal.is_cancel_requested:
                goal.canceled()
            else:
                goal.abort()
            return answer
        counted = itertools.count(1)
        ids = [[str(next(counted)) for _ in range(len(result))] for result in results]
        answer.detections = messages.detections_message(message.header, results, ids)
        answer.label_image = messages.labels_message(message.header, results, "instance")
        answer.model, answer.device = results[0].model, results[0].device
        answer.success, answer.latency_ms = True, (time.monotonic() - begun) * 1e3
        goal.succeed()
        return answer

    def _next_image(self, goal: ServerGoalHandle) -> AnyImage:
        if not self._active():
            raise StreamError("the node is not active, so no image comes: activate it, or send an image")
        # Each waits in a thread of the executor, which receives by them too.
        if not self._one_waits.acquire(blocking=False):
            raise StreamError("another goal waits for the next image: try again, or send an image")
        waiting: deque[AnyImage] = deque()
        self._waiting.append(waiting)
        deadline = time.monotonic() + _NEXT_IMAGE
        try:
            while not waiting:
                if goal.is_cancel_requested:
                    raise StreamError("canceled")
                if time.monotonic() > deadline:
                    raise StreamError(f"no image came within {_NEXT_IMAGE:g} s: is the camera running?")
                time.sleep(0.01)
        finally:
            self._waiting.clear()
            self._one_waits.release()
        return waiting[0]
