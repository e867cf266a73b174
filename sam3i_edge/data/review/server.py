"""Serves the page and takes its decisions, on this machine alone.

GET  /            the page, which holds nothing of the folder
GET  /queue       what is to decide, and what stands
GET  /item/N      item N: text, masks, why; and its decision
GET  /picture/N   its picture, as `load_image` reads it
POST /decision    {id, decision, text, targets: numbers of its objects}; "undo" needs no id

All but the page want `Authorization: Bearer TOKEN`. The page reads the token from the part of its address
behind "#", which browsers send to nobody. Requests under another host's name are refused, so that no page
elsewhere gets in.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import logging
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from sam3i_edge.bundle.manifest import first_problem
from sam3i_edge.data.review.decisions import DECISIONS, reviewing
from sam3i_edge.data.review.folder import Click, Refused, ReviewFolder
from sam3i_edge.errors import DataError

_log = logging.getLogger(__name__)

_HOST: Final = "127.0.0.1"
_MOST_BYTES: Final = 64 * 1024  # of a request's body
_PATIENCE: Final = 30  # seconds for a request to arrive


class ReviewServer(ThreadingHTTPServer):
    """Serves one folder, to whoever has the token.

    Attributes:
        review: the folder.
        token: of this server.
    """

    daemon_threads = True

    def __init__(self, review: ReviewFolder, port: int) -> None:
        self.review, self.token = review, secrets.token_urlsafe(24)
        self.page = resources.files(__package__).joinpath("page.html").read_bytes()
        (script,) = re.findall(rb"<script>(.*?)</script>", self.page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(script).digest()).decode()
        self.policy = (
            f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
            "img-src blob: data:; connect-src 'self'; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        super().__init__((_HOST, port), _Handler)

    @property
    def hosts(self) -> tuple[str, str]:
        """The names under which it may be asked."""
        return f"{_HOST}:{self.server_port}", f"localhost:{self.server_port}"

    @property
    def url(self) -> str:
        """The page's address, with the token."""
        return f"http://{self.hosts[0]}/#{self.token}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Notes what failed while a request was answered, such as a page that was closed."""
        _log.debug("a request of %s failed", client_address, exc_info=True)


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
    with reviewing(folder):
        review = ReviewFolder(folder)
        try:
            server = ReviewServer(review, port)
        except OSError as error:
            raise ValueError(
                f"port {port} cannot be used ({error.strerror}); leave it out to take a free one"
            ) from error
        with server:
            yield server


class _Handler(BaseHTTPRequestHandler):
    server: ReviewServer
    timeout = _PATIENCE
    server_version, sys_version = "sam3i-edge", ""

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def _answer(self, work: Callable[[], tuple[str, bytes]]) -> None:
        try:
            self._check()
            kind, body = work()
            status = HTTPStatus.OK
        except Refused as refused:
            status, kind, body = refused.status, "text/plain; charset=utf-8", str(refused).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Security-Policy", self.server.policy)
        self.send_header("Cache-Control", "no-store")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.end_headers()
        self.wfile.write(body)

    def _check(self) -> None:
        host = self.headers.get("Host", "")
        if host not in self.server.hosts:
            raise Refused(HTTPStatus.FORBIDDEN, "this server answers under 127.0.0.1 and localhost alone")
        origin = self.headers.get("Origin")
        if origin is not None and origin != f"http://{host}":
            raise Refused(HTTPStatus.FORBIDDEN, "another page may not ask here")
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if self.path != "/" and not hmac.compare_digest(given.encode(), self.server.token.encode()):
            raise Refused(
                HTTPStatus.UNAUTHORIZED,
                "the token is missing or of another server: open the address it printed",
            )

    def _get(self) -> tuple[str, bytes]:
        review = self.server.review
        if self.path == "/":
            return "text/html; charset=utf-8", self.server.page
        if self.path == "/queue":
            return _json(review.summary())
        asked = re.fullmatch(r"/(item|picture)/(\d{1,9})", self.path)
        if asked is None:
            raise Refused(HTTPStatus.NOT_FOUND, "there is nothing at this address")
        if asked[1] == "item":
            return _json(review.item(int(asked[2])))
        return "image/jpeg", review.picture(int(asked[2]))

    def _post(self) -> tuple[str, bytes]:
        if self.path != "/decision":
            raise Refused(HTTPStatus.NOT_FOUND, "there is nothing at this address")
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > _MOST_BYTES:
            raise Refused(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"want a Content-Length of at most {_MOST_BYTES} bytes"
            )
        try:
            click = Click.model_validate_json(self.rfile.read(int(length)))
        except ValidationError as error:
            raise Refused(HTTPStatus.BAD_REQUEST, first_problem(error)) from error
        try:
            return _json(self.server.review.decide(click))
        except OSError as error:
            message = f"{DECISIONS} cannot be written ({error.strerror}); nothing was decided"
            raise Refused(HTTPStatus.INSUFFICIENT_STORAGE, message) from error

    def log_message(self, format: str, *args: Any) -> None:
        _log.debug(format, *args)


def _json(content: Mapping[str, Any]) -> tuple[str, bytes]:
    return "application/json", json.dumps(content, ensure_ascii=False).encode()
