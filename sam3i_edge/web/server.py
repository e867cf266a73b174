"""Serves the page on this machine, and answers it where a `Segmenter` is given.

GET  /PATH        a file of the page; needs no token
GET  /info        what the Segmenter runs
POST /scene       a picture's file -> {scene, width, height, timings}
POST /segment     {scene, instruction, boxes, box_labels, level, threshold} -> a Result's JSON

The last three want the token, see `sam3i_edge.loopback`. One question runs at a time; others wait, a few at
most. The newest pictures are kept.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeVar
from urllib.parse import unquote

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sam3i_edge.bundle.folder import Bundle
from sam3i_edge.bundle.manifest import first_problem
from sam3i_edge.errors import RuntimeUnavailable
from sam3i_edge.levels import Level
from sam3i_edge.loopback import (
    LOOPBACK,
    Content,
    LoopbackHandler,
    LoopbackServer,
    Refused,
    as_json,
    nowhere,
)
from sam3i_edge.pipeline.caching import Lru
from sam3i_edge.result import Result
from sam3i_edge.scene import Scene
from sam3i_edge.segmenter import Segmenter
from sam3i_edge.web.site import Site

if TYPE_CHECKING:
    from collections.abc import Iterator

_T = TypeVar("_T")

_SCENES: Final = 4
_WAITING: Final = 8
_PICTURE_BYTES: Final = 64 * 1024 * 1024
_QUESTION_BYTES: Final = 64 * 1024
_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".png": "image/png",
    ".txt": "text/plain; charset=utf-8",
    ".wasm": "application/wasm",
}
# The first two give the page threads; the page's own policy stands in it.
_HEADERS: Final = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Permissions-Policy": "camera=(self)",
}


class _Question(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    scene: int
    instruction: str | None
    boxes: Annotated[list[list[float]], Field(max_length=1024)] | None = None
    box_labels: Annotated[list[int], Field(max_length=1024)] | None = None
    level: Level | Literal["auto"] = "auto"
    threshold: float | None = None


class Answers:
    """A `Segmenter` behind one queue. Thread-safe."""

    def __init__(self, segmenter: Segmenter) -> None:
        self._segmenter = segmenter
        self._scenes: Lru[Scene] = Lru(_SCENES)
        self._numbers = itertools.count(1)
        self._turn, self._places = threading.Lock(), threading.BoundedSemaphore(_WAITING)

    def info(self) -> dict[str, Any]:
        """What runs, in the page's words."""
        info = self._segmenter.info
        manifest = Bundle.open(info.bundle).manifest
        return {
            "model": info.model,
            "device": f"{info.device} ({info.runtime})",
            "precision": info.precision,
            "threads": 0,
            "imageSize": info.image_size,
            "threshold": info.threshold,
            "maxBoxes": info.max_boxes,
            "levels": list(manifest.variants[info.variant].levels),
            "notes": list(manifest.notes),
        }

    def encode(self, picture: bytes) -> dict[str, Any]:
        """Encodes a picture's file.

        Raises:
            Refused: it is none that can be read, or too many wait.
        """
        scene = self._run(lambda: self._segmenter.encode(picture))
        number = next(self._numbers)
        self._scenes.put(number, scene)
        height, width = scene.image_size
        return {"scene": number, "width": width, "height": height, "timings": {}}

    def segment(self, question: bytes) -> dict[str, Any]:
        """Answers a question about an encoded picture.

        Raises:
            Refused: it is no question, or one that the model does not answer, or too many wait.
        """
        try:
            asked = _Question.model_validate_json(question)
        except ValidationError as error:
            raise Refused(HTTPStatus.BAD_REQUEST, first_problem(error), "ValueError") from error
        scene = self._scenes.get(asked.scene)
        if scene is None:
            raise Refused(
                HTTPStatus.GONE,
                f"this picture was let go, the newest {_SCENES} are kept: open it again",
                "ImageError",
            )
        result: Result = self._run(lambda: scene.segment(**asked.model_dump(exclude={"scene"})))
        return result.to_dict()

    def _run(self, work: Callable[[], _T]) -> _T:
        with self._place(), self._turn:
            try:
                return work()
            except ValueError as error:  # also an ImageError, and an InstructionError
                raise Refused(HTTPStatus.BAD_REQUEST, str(error), type(error).__name__) from error
            except RuntimeUnavailable as error:
                raise Refused(HTTPStatus.INTERNAL_SERVER_ERROR, str(error), type(error).__name__) from error

    @contextmanager
    def _place(self) -> Iterator[None]:
        if not self._places.acquire(blocking=False):
            raise Refused(
                HTTPStatus.SERVICE_UNAVAILABLE, f"{_WAITING} questions wait already: ask again later"
            )
        try:
            yield
        finally:
            self._places.release()


class WebServer(LoopbackServer):
    """Serves the page; call `serve_forever`.

    Attributes:
        site: the page's files.
        answers: who answers it, or None where it runs the model itself.
    """

    def __init__(
        self, site: Site, segmenter: Segmenter | None = None, *, port: int = 0, host: str = LOOPBACK
    ) -> None:
        """Listens.

        Args:
            site: the page's files.
            segmenter: answers the page's questions, or None.
            port: as in `LoopbackServer`.
            host: likewise.

        Raises:
            ValueError: likewise.
        """
        self.site = site
        self.answers = None if segmenter is None else Answers(segmenter)
        super().__init__(_Handler, port, _HEADERS, host)


class _Handler(LoopbackHandler):
    server: WebServer

    @property
    def _posts(self) -> Mapping[str, tuple[int, Callable[[bytes], dict[str, Any]]]]:
        answers = self.server.answers
        if answers is None:
            return {}
        return {
            "/scene": (_PICTURE_BYTES, answers.encode),
            "/segment": (_QUESTION_BYTES, answers.segment),
        }

    def is_public(self) -> bool:
        return self.command == "GET" and self.path != "/info"

    def get(self) -> Content:
        if self.path == "/info" and self.server.answers is not None:
            return as_json(self.server.answers.info())
        path = unquote(self.path.partition("?")[0])[1:]
        content = self.server.site.read(path)
        if content is None:
            raise nowhere()
        kind = _TYPES.get(PurePosixPath(path or "index.html").suffix, "application/octet-stream")
        return kind, content

    def most_bytes(self) -> int:
        if self.path not in self._posts:
            raise nowhere()
        return self._posts[self.path][0]

    def post(self, body: bytes) -> Content:
        return as_json(self._posts[self.path][1](body))
