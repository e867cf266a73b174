"""Serves a page and answers it over HTTP, to whoever has the token, by default on this machine alone.

Pages read the token from the part of their address behind "#", which browsers send to nobody, and send it as
`Authorization: Bearer TOKEN`. Requests under another host's name, or of another page, are refused.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import logging
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, TypeAlias

_log = logging.getLogger(__name__)

LOOPBACK: Final = "127.0.0.1"
_PATIENCE: Final = 30  # seconds for a request to arrive

Content: TypeAlias = tuple[str, bytes]  # its media type, and what it is


class Refused(Exception):  # noqa: N818  (it is an answer)
    """An answer other than what was asked for; `error` names its kind for programs."""

    def __init__(self, status: HTTPStatus, message: str, error: str = "") -> None:
        super().__init__(message)
        self.status, self.error = status, error


class LoopbackServer(ThreadingHTTPServer):
    """A server with a token.

    Attributes:
        token: of this server.
        page_headers: sent with every answer, beside those that keep pages apart.
    """

    daemon_threads = True

    def __init__(
        self, handler: type[LoopbackHandler], port: int, headers: Mapping[str, str], host: str = LOOPBACK
    ) -> None:
        """Listens, and answers once `serve_forever` is called.

        Args:
            handler: answers.
            port: to listen on; 0 takes a free one.
            headers: see `page_headers`.
            host: address of this machine, or "0.0.0.0" for all of them.

        Raises:
            ValueError: host or port is taken, not ours to use, or none.
        """
        self.token, self.page_headers, self._host = secrets.token_urlsafe(24), headers, host
        try:
            super().__init__((host, port), handler)
        except OSError as error:
            raise ValueError(
                f"port {port} of {host} cannot be used ({error.strerror}); leave it out to take a free one"
            ) from error

    @property
    def hosts(self) -> tuple[str, ...] | None:
        """The names under which it may be asked; None where it listens at every address, and any will do."""
        if self._host in ("0.0.0.0", ""):
            return None
        names = (self._host, "localhost") if is_loopback(self._host) else (self._host,)
        return tuple(f"{name}:{self.server_port}" for name in names)

    @property
    def address(self) -> str:
        """The page's address, without the token."""
        return f"http://{(self.hosts or (f'{LOOPBACK}:{self.server_port}',))[0]}/"

    @property
    def url(self) -> str:
        """The page's address, with the token."""
        return f"{self.address}#{self.token}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Notes what failed while a request was answered, such as a page that was closed."""
        _log.debug("a request of %s failed", client_address, exc_info=True)


class LoopbackHandler(BaseHTTPRequestHandler, ABC):
    """Answers requests that may be answered; the rest is refused with a sentence."""

    server: LoopbackServer
    timeout = _PATIENCE
    server_version, sys_version = "sam3i-edge", ""

    @abstractmethod
    def is_public(self) -> bool:
        """Whether this request needs no token."""

    @abstractmethod
    def get(self) -> Content:
        """What a GET gives.

        Raises:
            Refused: there is nothing to give.
        """

    @abstractmethod
    def most_bytes(self) -> int:
        """The largest body that a POST may have.

        Raises:
            Refused: it may not be posted there.
        """

    @abstractmethod
    def post(self, body: bytes) -> Content:
        """What a POST gives.

        Raises:
            Refused: it is not done.
        """

    def do_GET(self) -> None:
        """Answers a GET."""
        self._answer(self.get)

    def do_POST(self) -> None:
        """Answers a POST."""
        self._answer(lambda: self.post(self._body()))

    def _answer(self, work: Callable[[], Content]) -> None:
        error = ""
        try:
            self._check()
            kind, body = work()
            status = HTTPStatus.OK
        except Refused as refused:
            status, error = refused.status, refused.error
            kind, body = "text/plain; charset=utf-8", str(refused).encode()
        self.send_response(status)
        for name, value in {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Cache-Control": "no-store",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
            "Cross-Origin-Resource-Policy": "same-origin",
            **self.server.page_headers,
            **({"X-Error": error} if error else {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _check(self) -> None:
        host, hosts = self.headers.get("Host", ""), self.server.hosts
        if hosts is not None and host not in hosts:
            names = " and ".join(name.rpartition(":")[0] for name in hosts)
            raise Refused(HTTPStatus.FORBIDDEN, f"this server answers under {names} alone")
        origin = self.headers.get("Origin")
        if origin is not None and origin != f"http://{host}":
            raise Refused(HTTPStatus.FORBIDDEN, "another page may not ask here")
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if not self.is_public() and not hmac.compare_digest(given.encode(), self.server.token.encode()):
            raise Refused(
                HTTPStatus.UNAUTHORIZED,
                "the token is missing or of another server: open the address it printed",
            )

    def _body(self) -> bytes:
        most, length = self.most_bytes(), self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > most:
            raise Refused(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"want a Content-Length of at most {most:,} bytes"
            )
        return self.rfile.read(int(length))

    def log_message(self, format: str, *args: Any) -> None:
        """Notes a request in the log."""
        _log.debug(format, *args)


def is_loopback(host: str) -> bool:
    """Whether an address is of this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def nowhere() -> Refused:
    """The answer where there is nothing."""
    return Refused(HTTPStatus.NOT_FOUND, "there is nothing at this address")


def as_json(content: Mapping[str, Any]) -> Content:
    """An answer of JSON."""
    return "application/json", json.dumps(content, ensure_ascii=False, allow_nan=False).encode()
