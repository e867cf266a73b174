"""Serves the page and takes its decisions, on this machine alone.

GET  /            the page, which holds nothing of the folder
GET  /queue       what is to decide, and what stands
GET  /item/N      item N: text, masks, why; and its decision
GET  /picture/N   its picture, as `load_image` reads it
POST /decision    {id, decision, text, targets: numbers of its objects}; "undo" needs no id

All but the page want the token, see `sam3i_edge.loopback`.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import re
from collections.abc import Iterator
from http import HTTPStatus
from importlib import resources
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from sam3i_edge.bundle.manifest import first_problem
from sam3i_edge.data.review.decisions import DECISIONS, reviewing
from sam3i_edge.data.review.folder import Click, ReviewFolder
from sam3i_edge.errors import DataError
from sam3i_edge.loopback import Content, LoopbackHandler, LoopbackServer, Refused, as_json, nowhere

_MOST_BYTES: Final = 64 * 1024  # of a request's body


class ReviewServer(LoopbackServer):
    """Serves one folder, to whoever has the token.

    Attributes:
        review: the folder.
    """

    def __init__(self, review: ReviewFolder, port: int) -> None:
        self.review = review
        self.page = resources.files(__package__).joinpath("page.html").read_bytes()
        (script,) = re.findall(rb"<script>(.*?)</script>", self.page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(script).digest()).decode()
        policy = (
            f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
            "img-src blob: data:; connect-src 'self'; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        super().__init__(_Handler, port, {"Content-Security-Policy": policy})


@contextlib.contextmanager
def review_server(folder: str | Path, port: int = 0) -> Iterator[ReviewServer]:
    """A server for a folder, which it holds until the block ends; call `serve_forever` on it.

    Args:
        folder: holds `review.jsonl` and `images/`.
        port: to listen on; 0 takes a free one.

    Raises:
        DataError: nothing is to be reviewed there, or another server holds it.
        ValueError: the port is taken or not ours to use.
        OSError: the folder cannot be written.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; name one that 'sam3i-edge instruct' has written")
    with reviewing(folder), ReviewServer(ReviewFolder(folder), port) as server:
        yield server


class _Handler(LoopbackHandler):
    server: ReviewServer

    def is_public(self) -> bool:
        return self.path == "/"

    def get(self) -> Content:
        review = self.server.review
        if self.path == "/":
            return "text/html; charset=utf-8", self.server.page
        if self.path == "/queue":
            return as_json(review.summary())
        asked = re.fullmatch(r"/(item|picture)/(\d{1,9})", self.path)
        if asked is None:
            raise nowhere()
        if asked[1] == "item":
            return as_json(review.item(int(asked[2])))
        return "image/jpeg", review.picture(int(asked[2]))

    def most_bytes(self) -> int:
        if self.path != "/decision":
            raise nowhere()
        return _MOST_BYTES

    def post(self, body: bytes) -> Content:
        try:
            click = Click.model_validate_json(body)
        except ValidationError as error:
            raise Refused(HTTPStatus.BAD_REQUEST, first_problem(error)) from error
        try:
            return as_json(self.server.review.decide(click))
        except OSError as error:
            message = f"{DECISIONS} cannot be written ({error.strerror}); nothing was decided"
            raise Refused(HTTPStatus.INSUFFICIENT_STORAGE, message) from error
